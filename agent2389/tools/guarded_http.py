"""HTTP for tools: only to checked addresses, each redirect checked anew, size and time capped."""

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from urllib.parse import urljoin

import httpx2
import msgspec

from agent2389 import __version__
from agent2389.errors import Agent2389Error, ConfigurationError
from agent2389.tools.addresses import (
    AddressPolicy,
    AddressRefused,
    Resolve,
    Target,
    check,
    resolve_with_system,
)

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
FOLLOWED: Final = frozenset({"GET", "HEAD"})
"""Methods whose redirects are followed; a body is never sent a second time to somewhere else."""
USER_AGENT: Final = f"agent2389/{__version__}"
PIECE: Final = 64 * 1024


class FetchFailed(Agent2389Error):
    """The server could not be reached or answered nonsense; the message is for the model."""


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one exchange: ``max_bytes`` of the unpacked body, ``seconds`` for all of it."""

    max_bytes: int = 2 * 1024 * 1024
    seconds: float = 20.0
    redirects: int = 3


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One request as a tool wants it."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = {}
    content: bytes | None = None


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. ``cut``: the body was longer than the cap; ``url`` is where it came from at last."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False

    @property
    def media_type(self) -> str:
        """``text/html`` of ``text/html; charset=utf-8``; empty when the server names none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


SecretsFor = Callable[[Target], Mapping[str, str]]
"""Headers with secrets for exactly this target; asked anew at each redirect."""


def no_secrets(target: Target) -> Mapping[str, str]:  # noqa: ARG001 - the signature of ``SecretsFor``
    """For requests without any."""
    return {}


class GuardedClient:
    """Requests under one address policy. No cookies, no kept connections, no proxy from the environment."""

    def __init__(
        self,
        policy: AddressPolicy,
        caps: Caps | None = None,
        *,
        proxy: str | None = None,
        resolve: Resolve = resolve_with_system,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._caps = caps or Caps()
        self._proxy = proxy
        self._resolve = resolve
        self._verify = verify
        self._transport: httpx2.AsyncHTTPTransport | None = None

    async def fetch(self, outgoing: Outgoing, secrets_for: SecretsFor = no_secrets) -> Fetched:
        """Send and read one answer.

        Raises ``AddressRefused`` and ``FetchFailed``; neither message holds an address or a secret.
        """
        try:
            async with asyncio.timeout(self._caps.seconds):
                return await self._fetch(outgoing, secrets_for)
        except TimeoutError:
            raise FetchFailed(f"no complete answer within {self._caps.seconds:g} seconds") from None

    async def close(self) -> None:
        """Close what is open."""
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def _fetch(self, outgoing: Outgoing, secrets_for: SecretsFor) -> Fetched:
        url = outgoing.url
        for _ in range(self._caps.redirects + 1):
            target = await check(url, self._policy, self._resolve)
            fetched = await self._exchange(target, outgoing, secrets_for(target))
            location = fetched.headers.get("location")
            if fetched.status not in REDIRECTS or location is None or outgoing.method not in FOLLOWED:
                return fetched
            url = _joined(target, location)
        raise FetchFailed(f"more than {self._caps.redirects} redirects")

    async def _exchange(self, target: Target, outgoing: Outgoing, secrets: Mapping[str, str]) -> Fetched:
        for address in target.addresses[:-1]:
            with contextlib.suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await self._exchange_with(address, target, outgoing, secrets)
        try:
            return await self._exchange_with(target.addresses[-1], target, outgoing, secrets)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise FetchFailed("the server does not accept connections") from None

    async def _exchange_with(
        self, address: str, target: Target, outgoing: Outgoing, secrets: Mapping[str, str]
    ) -> Fetched:
        request = self._request(address, target, outgoing, secrets)
        try:
            response = await self._opened().handle_async_request(request)
            try:
                body, cut = await self._body(response)
            finally:
                await response.aclose()
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise
        except httpx2.TimeoutException:
            raise FetchFailed("the server is too slow") from None
        except (httpx2.HTTPError, zlib.error, ssl.SSLError, OSError) as error:
            # The text of a network error may name addresses and, in odd cases, header values.
            raise FetchFailed(f"the exchange with the server broke ({type(error).__name__})") from None
        return Fetched(
            status=response.status_code,
            url=target.url,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            cut=cut,
        )

    def _request(
        self, address: str, target: Target, outgoing: Outgoing, secrets: Mapping[str, str]
    ) -> httpx2.Request:
        """The pinned address stands in the URL; Host and SNI stay those of the name that was checked."""
        literal = f"[{address}]" if ":" in address else address
        host = f"[{target.host}]" if ":" in target.host else target.host
        usual = target.port == (443 if target.scheme == "https" else 80)
        path = httpx2.URL(target.url).raw_path.decode("ascii")
        seconds = self._caps.seconds
        connect = max(seconds / (len(target.addresses) + 1), 1.0)
        return httpx2.Request(
            outgoing.method,
            f"{target.scheme}://{literal}:{target.port}{path}",
            headers={
                "user-agent": USER_AGENT,
                "accept-encoding": "gzip, deflate",
                **outgoing.headers,
                **secrets,
                "host": host if usual else f"{host}:{target.port}",
                "connection": "close",
            },
            content=outgoing.content,
            extensions={
                "sni_hostname": target.host,
                "timeout": {"connect": connect, "read": seconds, "write": seconds, "pool": seconds},
            },
        )

    def _opened(self) -> httpx2.AsyncHTTPTransport:
        if self._transport is None:
            try:
                self._transport = httpx2.AsyncHTTPTransport(
                    verify=self._verify or True,
                    trust_env=False,
                    proxy=self._proxy,
                    # A kept connection belongs to an address, and two names may share one.
                    limits=httpx2.Limits(max_connections=20, max_keepalive_connections=0),
                )
            except (ImportError, ValueError) as error:
                raise ConfigurationError(f"network.proxy cannot be used: {error}") from None
        return self._transport

    async def _body(self, response: httpx2.Response) -> tuple[bytes, bool]:
        """The unpacked body up to the cap; a bomb is unpacked no further than that."""
        limit = self._caps.max_bytes
        body = bytearray()
        async for piece in _unpacked(response, limit + 1):
            body += piece
            if len(body) > limit:
                return bytes(body[:limit]), True
        return bytes(body), False


async def _unpacked(response: httpx2.Response, limit: int) -> AsyncIterator[bytes]:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        async for chunk in response.aiter_raw(PIECE):
            yield chunk
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise FetchFailed("the answer is packed in a way that was not asked for")
    unpacker: Any = None
    async for chunk in response.aiter_raw(PIECE):
        if unpacker is None:
            unpacker = _unpacker(coding, chunk)
        rest = chunk
        while rest and not unpacker.eof:
            piece = unpacker.decompress(rest, PIECE)
            limit -= len(piece)
            yield piece
            if limit <= 0:
                return
            rest = unpacker.unconsumed_tail


def _unpacker(coding: str, start: bytes) -> Any:
    if coding != "deflate":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    # Servers disagree on what deflate is: with a zlib header, or without.
    wrapped = len(start) > 1 and start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _joined(target: Target, location: str) -> str:
    try:
        url = urljoin(target.url, location)
    except ValueError:
        raise AddressRefused("the server redirects to something that is no URL") from None
    if target.scheme == "https" and not url.lower().startswith("https:"):
        raise AddressRefused("the server redirects from https to something less safe")
    return url
