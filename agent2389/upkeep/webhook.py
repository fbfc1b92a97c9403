"""Posting one notification to a receiver over HTTP, signed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import msgspec

from agent2389 import __version__
from agent2389.broker.address import is_loopback
from agent2389.config.model import WebhookSection
from agent2389.errors import ConfigurationError
from agent2389.telemetry import surroundings
from agent2389.telemetry.logs import register_secret
from agent2389.upkeep.notify import Answer, Post
from agent2389.wire.notice import EVENTS, Notice, notice_id, signed_headers, signing_key

LATER = frozenset({408, 425, 429})
"""Of the answers 4xx those that ask for another try; the others refuse the event."""
HOW_TO_MAKE = 'make one: echo "whsec_$(openssl rand -base64 32)"'


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Where notifications go. ``url`` and ``key`` are secrets, ``shown`` is what people may see.

    ``seconds`` is for one try, ``proxy`` an HTTP proxy on the way.
    """

    url: str
    key: bytes
    shown: str
    events: tuple[str, ...]
    seconds: float
    proxy: str | None = None

    def __repr__(self) -> str:
        return f"Receiver({self.shown})"


def receiver_of(
    section: WebhookSection, *, production: bool = False, proxy: str | None = None
) -> Receiver | None:
    """The receiver of a configuration, ``None`` when it names none. Raises ``ConfigurationError``.

    Keeps address and secret out of the log of this process.
    """
    if section.url is None:
        return None
    url = section.url.get_secret_value()
    register_secret(url)
    shown = _shown(url, production=production)
    if section.secret is None:
        raise ConfigurationError(
            "a webhook is configured without a secret to sign with",
            hint=f"set AGENT2389_WEBHOOK_SECRET; {HOW_TO_MAKE}",
        )
    secret = section.secret.get_secret_value()
    register_secret(secret)
    try:
        key = signing_key(secret)
    except ValueError as error:
        raise ConfigurationError(f"AGENT2389_WEBHOOK_SECRET: {error}", hint=HOW_TO_MAKE) from None
    if unknown := sorted(set(section.events) - set(EVENTS)):
        raise ConfigurationError(
            f"AGENT2389_WEBHOOK_EVENTS: there is no event {', '.join(unknown)}",
            hint=f"choose among {', '.join(EVENTS)}",
        )
    if proxy is not None and urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigurationError(
            "a webhook goes through an HTTP proxy only",
            hint="unset AGENT2389_PROXY for ops, or name one with http://",
        )
    return Receiver(
        url=url, key=key, shown=shown, events=section.events, seconds=section.timeout, proxy=proxy
    )


def _shown(url: str, *, production: bool) -> str:
    """Scheme, host and port of a usable address; never user, path or query, which may be secrets."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            "AGENT2389_WEBHOOK_URL must look like https://HOST/PATH",
            hint="correct it, or leave it empty for no webhook",
        )
    if production and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"a webhook over http:// to {parts.hostname} is not allowed in production", hint="use https://"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


@asynccontextmanager
async def posting(receiver: Receiver) -> AsyncIterator[Post]:
    """A way to post to ``receiver``. Follows no redirect, reads no body, keeps no cookie."""
    client = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=receiver.seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        # What the receiver says is not unpacked either.
        auto_decompress=False,
        trust_env=False,
        proxy=receiver.proxy,
        headers={"User-Agent": f"agent2389/{__version__}", "Content-Type": "application/json"},
    )

    async def post(notice: Notice) -> Answer:
        body = msgspec.json.encode(notice)
        moment = int(surroundings.now().timestamp())
        headers = signed_headers(receiver.key, notice_id(notice), moment, body)
        try:
            async with client.post(
                receiver.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return _answer_of(receiver.shown, response.status)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(f"{receiver.shown} {_why(error, receiver.seconds)}")

    async with client:
        yield post


def _answer_of(shown: str, status: int) -> Answer:
    if 200 <= status < 300:
        return Answer()
    if 300 <= status < 400:
        return Answer(f"{shown} answers {status}, and redirects are not followed")
    return Answer(f"{shown} answers {status}", refused=400 <= status < 500 and status not in LATER)


def _why(error: Exception, seconds: float) -> str:
    """In our own words: theirs repeat the address."""
    match error:
        case TimeoutError():
            return f"does not answer within {seconds:g} s"
        case aiohttp.ClientSSLError():
            return "shows no certificate that can be trusted"
        case aiohttp.ClientConnectorError():
            return "cannot be reached"
        case _:
            return f"broke off ({type(error).__name__})"
