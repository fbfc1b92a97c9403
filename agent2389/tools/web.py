"""The web toolkit: web_search and fetch_url."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

import httpx2
import msgspec

from agent2389.config.environment import read_variable
from agent2389.errors import ConfigurationError
from agent2389.tools.addresses import AddressRefused, Resolve, policy_of, resolve_with_system
from agent2389.tools.guarded_http import Caps, FetchFailed, GuardedClient, Outgoing
from agent2389.tools.port import TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.readable import NotReadable, page_of
from agent2389.tools.search import BASE_URLS, KEY_NAMES, Hit, Provider, Question, SearchClient
from agent2389.tools.secret_values import SecretValues
from agent2389.tools.tool_settings import read_settings

SHOWN_CHARACTERS = 15_000
MOST_CHARACTERS = 100_000
_ACCEPT = "text/html, application/xhtml+xml, text/*;q=0.9, application/json;q=0.9, */*;q=0.1"


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.web]``. ``seconds`` and ``max_bytes`` cap one exchange."""

    search: Provider | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    allow_private: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    max_bytes: Annotated[int, msgspec.Meta(ge=1024, le=64 * 1024 * 1024)] = 2 * 1024 * 1024
    seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 20.0
    redirects: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3


class WebToolkit:
    """web_search (Serper or Tavily) and fetch_url. Without a search key only fetch_url is offered."""

    name = "web"

    def __init__(
        self, settings: ToolSettings | None = None, *, resolve: Resolve = resolve_with_system
    ) -> None:
        self._settings = settings or ToolSettings()
        self._resolve = resolve
        self._secrets = SecretValues()
        self._form = WebSettings()
        self._pages: GuardedClient | None = None
        self._search: SearchClient | None = None
        self._no_search = ""

    def missing(self) -> str | None:
        """Needs nothing: without a key it opens without web_search."""
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in the file; looks at nothing else."""
        self._form = read_settings(self._settings.values, WebSettings, where="toolkit_config.web")
        policy_of(allow_private=self._form.allow_private)
        self._provider_named()

    async def open(self) -> None:
        """Read the settings and the key. Raises ``ConfigurationError``."""
        self.check()
        form = self._form
        caps = Caps(max_bytes=form.max_bytes, seconds=form.seconds, redirects=form.redirects)
        policy = policy_of(allow_private=form.allow_private, ports=form.ports, hosts=form.hosts)
        self._pages = GuardedClient(policy, caps, proxy=self._settings.proxy, resolve=self._resolve)
        try:
            self._search = self._open_search(caps)
        except ConfigurationError as error:
            self._no_search = str(error)

    async def close(self) -> None:
        """Close both clients."""
        for client in (self._pages, self._search.http if self._search else None):
            if client is not None:
                await client.close()

    def left_out(self) -> Mapping[str, str]:
        """web_search, when there is no key for it."""
        return {"web_search": self._no_search} if self._search is None and self._no_search else {}

    def tools(self) -> tuple[Tool, ...]:
        """What is open; before ``open`` both, for those who only ask for names."""
        seconds = self._form.seconds
        fetch = Tool(
            name="fetch_url",
            description="Read a public web page or text document: its title and text. Long ones in parts.",
            parameters=_FETCH_PARAMETERS,
            call=self._call_fetch,
            address="url",
            finds_addresses=True,
            timeout=seconds + 10,
            output_cap=MOST_CHARACTERS + 4096,
        )
        search = Tool(
            name="web_search",
            description="Search the web. Returns titles, addresses and snippets; read pages with fetch_url.",
            parameters=_SEARCH_PARAMETERS,
            call=self._call_search,
            finds_addresses=True,
            timeout=seconds + 5,
        )
        return (fetch,) if self._no_search else (search, fetch)

    def _provider_named(self) -> Provider | None:
        named = self._settings.implementations.get("web_search", "builtin")
        if named != "builtin" and named not in BASE_URLS:
            raise ConfigurationError(f"tools.web_search: unknown impl {named!r}", hint="serper or tavily")
        return self._form.search if named == "builtin" else msgspec.convert(named, Provider)

    def _open_search(self, caps: Caps) -> SearchClient:
        provider = self._provider_named()
        if provider is None:
            provider = "tavily" if _is_set("TAVILY_API_KEY") and not _is_set("SERPER_API_KEY") else "serper"
        base_url = self._form.base_url or BASE_URLS[provider]
        # The operator wrote this address, so it may be private; nothing else may be.
        policy = policy_of(allow_private=(*self._form.allow_private, _host_and_port(base_url)))
        return SearchClient(
            provider=provider,
            base_url=base_url,
            api_key=self._key(provider),
            http=GuardedClient(policy, caps, proxy=self._settings.proxy, resolve=self._resolve),
        )

    def _key(self, provider: Provider) -> str:
        if key := self._settings.api_keys.get("web_search"):
            return self._secrets.add(key)
        return self._secrets.read(self._form.api_key_env or KEY_NAMES[provider])

    async def _call_search(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        assert self._search is not None
        question = Question(
            query=arguments["query"],
            count=arguments.get("count", 5),
            country=arguments.get("country"),
            language=arguments.get("language"),
        )
        try:
            hits = await self._search.search(question)
        except (FetchFailed, AddressRefused) as error:
            return ToolOutput(text=self._secrets.hide(f"the search failed: {error}"), failed=True)
        if not hits:
            return ToolOutput(text="nothing found", data=[], untrusted=True)
        lines = [
            f"{number}. {hit.title}\n   {hit.url}\n   {hit.snippet}" for number, hit in enumerate(hits, 1)
        ]
        return ToolOutput(
            text=self._secrets.hide("\n".join(lines)),
            data=[self._hidden(hit) for hit in hits],
            untrusted=True,
        )

    def _hidden(self, hit: Hit) -> dict[str, str]:
        return {name: self._secrets.hide(text) for name, text in msgspec.structs.asdict(hit).items()}

    async def _call_fetch(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        assert self._pages is not None
        try:
            fetched = await self._pages.fetch(Outgoing(url=arguments["url"], headers={"accept": _ACCEPT}))
            page = await page_of(fetched)
        except (FetchFailed, AddressRefused, NotReadable) as error:
            return ToolOutput(text=f"cannot read this: {error}", failed=True, untrusted=True)
        start = arguments.get("start", 0)
        end = start + arguments.get("max_characters", SHOWN_CHARACTERS)
        notes = [f"URL: {fetched.url}"] + ([f"Title: {page.title}"] if page.title else [])
        notes += [f"Status: {fetched.status}"] if fetched.status >= 400 else []
        rest = _what_is_missing(page.text, start, end, cut=fetched.cut, max_bytes=self._form.max_bytes)
        text = "\n".join(notes) + "\n\n" + (page.text[start:end] or "[no text here]") + rest
        return ToolOutput(
            text=self._secrets.hide(text),
            data={
                "url": fetched.url,
                "status": fetched.status,
                "characters": len(page.text),
                "cut": bool(rest),
            },
            failed=fetched.status >= 400,
            untrusted=True,
        )


def _what_is_missing(text: str, start: int, end: int, *, cut: bool, max_bytes: int) -> str:
    """Without this a model would take the part for the whole."""
    lines = []
    if len(text) > end:
        lines.append(f"[cut: characters {start} to {end} of {len(text)}; go on with start={end}]")
    if cut:
        lines.append(f"[the document is longer than {max_bytes} bytes; the rest was not read]")
    return "".join(f"\n\n{line}" for line in lines)


def _is_set(name: str) -> bool:
    return read_variable(os.environ, name) is not None


def _host_and_port(base_url: str) -> str:
    try:
        url = httpx2.URL(base_url)
        host, port = url.host, url.port or (443 if url.scheme == "https" else 80)
    except (httpx2.InvalidURL, ValueError):
        host, port = "", 0
    if not host or url.scheme not in ("http", "https"):
        raise ConfigurationError(f"base_url {base_url!r} is no http(s) URL")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_FETCH_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "description": "https:// or http:// address", "maxLength": 2048},
        "start": {
            "type": "integer",
            "description": "first character to show, for the later parts of a long page",
            "minimum": 0,
            "maximum": 100_000_000,
        },
        "max_characters": {
            "type": "integer",
            "description": f"how much to show, {SHOWN_CHARACTERS} when absent",
            "minimum": 1,
            "maximum": MOST_CHARACTERS,
        },
    },
    "required": ["url"],
    "additionalProperties": False,
}
_SEARCH_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "what to search for", "minLength": 1, "maxLength": 400},
        "count": {"type": "integer", "description": "how many results", "minimum": 1, "maximum": 20},
        "country": {"type": "string", "description": "two-letter country code", "pattern": "^[A-Za-z]{2}$"},
        "language": {"type": "string", "description": "two-letter language code", "pattern": "^[A-Za-z]{2}$"},
    },
    "required": ["query"],
    "additionalProperties": False,
}
