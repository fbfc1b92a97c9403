"""The http toolkit: http_request, for APIs that an agent is meant to use."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from agent2389.errors import ConfigurationError
from agent2389.tools.addresses import (
    AddressPolicy,
    AddressRefused,
    Resolve,
    Target,
    canonical_host,
    policy_of,
    resolve_with_system,
)
from agent2389.tools.guarded_http import Caps, Fetched, FetchFailed, GuardedClient, Outgoing
from agent2389.tools.port import Effect, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.readable import NotReadable, page_of
from agent2389.tools.secret_values import SecretValues
from agent2389.tools.tool_settings import read_settings

Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
MAX_BODY_CHARACTERS = 200_000
MAX_SHOWN_CHARACTERS = 40_000
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE = _READING | {"PUT", "DELETE"}
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_OURS = re.compile(
    r"host|content-length|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|accept-encoding"
    r"|authorization|cookie2?|proxy-.*|forwarded|x-forwarded-.*|x-real-ip|sec-.*|x-http-method.*|x-method-override",
)
"""Headers a model may not set: they steer the connection, or they are credentials (see ``secrets``)."""
_SHOWN_HEADERS = (
    "content-type",
    "content-length",
    "location",
    "etag",
    "last-modified",
    "retry-after",
    "link",
)


class HostSecrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[toolkit_config.http.secrets."api.example.com"]``: header → name of an environment variable.

    ``prefix`` stands before each value: ``Bearer `` for most APIs.
    """

    headers_env: dict[str, str]
    prefix: str = ""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.http]``; ``idempotency_header`` makes repeats harmless where servers heed it."""

    methods: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
    secrets: dict[str, HostSecrets] = {}
    idempotency_header: str | None = None
    allow_private: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    max_bytes: Annotated[int, msgspec.Meta(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 30.0
    redirects: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3


class HttpToolkit:
    """http_request: any method to any allowed address; credentials only from the agent's file."""

    name = "http"

    def __init__(
        self, settings: ToolSettings | None = None, *, resolve: Resolve = resolve_with_system
    ) -> None:
        self._settings = settings or ToolSettings()
        self._resolve = resolve
        self._secrets = SecretValues()
        self._form = HttpSettings()
        self._headers: dict[str, dict[str, str]] = {}
        self._policy = AddressPolicy()
        self._client: GuardedClient | None = None

    def missing(self) -> str | None:
        """Needs nothing."""
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in the file; looks at nothing else."""
        self._form = read_settings(self._settings.values, HttpSettings, where="toolkit_config.http")
        self._policy = policy_of(
            allow_private=self._form.allow_private, ports=self._form.ports, hosts=self._form.hosts
        )
        if not self._form.methods:
            raise ConfigurationError("toolkit_config.http.methods: an empty list allows nothing")
        for host, secrets in self._form.secrets.items():
            _host_key(host)
            for name in secrets.headers_env:
                if not _HEADER_NAME.fullmatch(name):
                    raise ConfigurationError(f"toolkit_config.http.secrets: {name!r} is no header name")

    async def open(self) -> None:
        """Read the settings and the secrets. Raises ``ConfigurationError``."""
        self.check()
        form = self._form
        self._headers = {
            _host_key(host): {
                name.lower(): secrets.prefix + self._secrets.read(variable)
                for name, variable in secrets.headers_env.items()
            }
            for host, secrets in form.secrets.items()
        }
        self._client = GuardedClient(
            self._policy,
            Caps(max_bytes=form.max_bytes, seconds=form.seconds, redirects=form.redirects),
            proxy=self._settings.proxy,
            resolve=self._resolve,
        )

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()

    def tools(self) -> tuple[Tool, ...]:
        """``http_request(url, method?, headers?, body?, json?)``."""
        return (
            Tool(
                name="http_request",
                description="Send an HTTP request and read the answer: status, headers, text.",
                parameters=_parameters(self._form.methods),
                call=self._call,
                effect=self._effect(),
                effect_of=self._effect_of,
                address="url",
                finds_addresses=True,
                timeout=self._form.seconds + 10,
                output_cap=MAX_SHOWN_CHARACTERS + 4096,
            ),
        )

    def _effect(self) -> Effect:
        """The worst that the allowed methods can do."""
        methods = set(self._form.methods)
        if methods <= _READING:
            return Effect.PURE
        if methods <= _REPEATABLE:
            return Effect.IDEMPOTENT
        return Effect.KEYED if self._form.idempotency_header else Effect.UNSAFE

    def _effect_of(self, arguments: Mapping[str, Any]) -> Effect:
        method = str(arguments.get("method", "GET")).upper()
        if method in _READING:
            # What a model says in headers or a body can carry anything that it has read.
            carries = any(arguments.get(name) is not None for name in ("headers", "body", "json"))
            return Effect.IDEMPOTENT if carries else Effect.PURE
        if method in _REPEATABLE:
            return Effect.IDEMPOTENT
        return Effect.KEYED if self._form.idempotency_header else Effect.UNSAFE

    async def _call(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        assert self._client is not None
        try:
            outgoing = self._outgoing(arguments, scope)
            fetched = await self._client.fetch(outgoing, self._secrets_for)
        except (FetchFailed, AddressRefused) as error:
            return ToolOutput(text=f"the request failed: {error}", failed=True)
        text, cut = await _shown(fetched)
        headers = {name: fetched.headers[name][:500] for name in _SHOWN_HEADERS if name in fetched.headers}
        lines = [f"Status: {fetched.status}", f"URL: {fetched.url}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ToolOutput(
            text=self._secrets.hide("\n".join(lines) + "\n\n" + text),
            data={"status": fetched.status, "url": self._secrets.hide(fetched.url), "cut": cut},
            failed=fetched.status >= 400,
            untrusted=True,
        )

    def _secrets_for(self, target: Target) -> Mapping[str, str]:
        """Exactly the configured host and port, and not in plain text over the Internet."""
        plain = target.scheme == "http" and not self._is_exempt(target)
        return {} if plain else self._headers.get(f"{target.host}:{target.port}", {})

    def _is_exempt(self, target: Target) -> bool:
        return any(
            exemption.covers(target.host, ipaddress.ip_address(address), target.port)
            for exemption in self._policy.exemptions
            for address in target.addresses
        )

    def _outgoing(self, arguments: Mapping[str, Any], scope: TaskScope) -> Outgoing:
        headers = {name.lower(): value for name, value in arguments.get("headers", {}).items()}
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not value.isprintable() or not value.isascii():
                raise FetchFailed("a header has a name or value that HTTP does not allow")
            if _OURS.fullmatch(name):
                raise FetchFailed(f"the header {name} cannot be set by a tool call")
        method = arguments.get("method", "GET")
        content = arguments["body"].encode("utf-8", "replace") if "body" in arguments else None
        if "json" in arguments:
            if content is not None:
                raise FetchFailed("give body or json, not both")
            content = msgspec.json.encode(arguments["json"])
            headers.setdefault("content-type", "application/json")
        if content is not None and method in ("GET", "HEAD"):
            raise FetchFailed(f"a {method} request has no body")
        if self._form.idempotency_header and scope.idempotency_key and method not in _REPEATABLE:
            headers[self._form.idempotency_header.lower()] = scope.idempotency_key
        return Outgoing(url=arguments["url"], method=method, headers=headers, content=content)


async def _shown(fetched: Fetched) -> tuple[str, bool]:
    if not fetched.body:
        return "[no body]", False
    try:
        page = await page_of(fetched)
    except NotReadable as reason:
        return f"[{len(fetched.body)} bytes not shown: {reason}]", False
    cut = fetched.cut or len(page.text) > MAX_SHOWN_CHARACTERS
    note = "\n\n[cut: the answer is longer]" if cut else ""
    return page.text[:MAX_SHOWN_CHARACTERS] + note, cut


def _host_key(text: str) -> str:
    host, colon, port = text.strip().lower().rpartition(":")
    if not colon or not port.isdigit():
        host, port = text, "443"
    try:
        return f"{canonical_host(host)}:{int(port)}"
    except AddressRefused:
        raise ConfigurationError(
            f"toolkit_config.http.secrets: {text!r} is no host", hint='write "api.example.com" or "host:port"'
        ) from None


def _parameters(methods: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "https:// or http:// address", "maxLength": 2048},
            "method": {"enum": list(methods), "description": "GET when absent"},
            "headers": {
                "type": "object",
                "description": "further headers; credentials are added by the agent itself",
                "additionalProperties": {"type": "string", "maxLength": 4096},
                "maxProperties": 32,
            },
            "body": {"type": "string", "description": "text to send", "maxLength": MAX_BODY_CHARACTERS},
            "json": {"description": "a JSON value to send instead of body"},
        },
        "required": ["url"],
        "additionalProperties": False,
    }
