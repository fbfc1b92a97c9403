"""Web search by Serper or Tavily: two small clients behind one shape."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from agent2389.tools.guarded_http import Fetched, FetchFailed, GuardedClient, Outgoing

Provider = Literal["serper", "tavily"]
BASE_URLS: dict[str, str] = {"serper": "https://google.serper.dev", "tavily": "https://api.tavily.com"}
KEY_NAMES: dict[str, str] = {"serper": "SERPER_API_KEY", "tavily": "TAVILY_API_KEY"}
MAX_SNIPPET = 1000


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to search: ``country`` and ``language`` are two-letter codes."""

    query: str
    count: int = 5
    country: str | None = None
    language: str | None = None


class Hit(msgspec.Struct, frozen=True):
    """One result."""

    title: str
    url: str
    snippet: str


class SearchClient(msgspec.Struct, frozen=True, kw_only=True):
    """One search service; ``base_url`` without a trailing slash."""

    provider: Provider
    base_url: str
    api_key: str
    http: GuardedClient

    async def search(self, question: Question) -> list[Hit]:
        """The service's results. Raises ``FetchFailed`` and ``AddressRefused``, never with the key in it."""
        return await _SEARCH[self.provider](self, question)

    async def post(self, path: str, document: Any, headers: dict[str, str]) -> Any:
        """One JSON question, one JSON answer."""
        outgoing = Outgoing(
            url=self.base_url.rstrip("/") + path,
            method="POST",
            headers={"content-type": "application/json", "accept": "application/json"},
            content=msgspec.json.encode(document),
        )
        fetched = await self.http.fetch(outgoing, lambda _: headers)
        _check_status(self.provider, fetched)
        try:
            answer = msgspec.json.decode(fetched.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise FetchFailed(f"{self.provider} answered with something that is no JSON") from None
        if not isinstance(answer, dict):
            raise FetchFailed(f"{self.provider} answered in a form that is not known")
        return answer


def _check_status(provider: str, fetched: Fetched) -> None:
    match fetched.status:
        case 200:
            return
        case 401 | 403:
            raise FetchFailed(f"{provider} refuses the key in {KEY_NAMES[provider]}")
        case 402 | 429:
            after = fetched.headers.get("retry-after", "")
            wait = f"; it asks to wait {after} seconds" if after.isdigit() and len(after) < 6 else ""
            raise FetchFailed(f"{provider} allows no more searches now{wait}")
        case status:
            raise FetchFailed(f"{provider} answered with status {status}")


async def _serper(client: SearchClient, question: Question) -> list[Hit]:
    document: dict[str, Any] = {"q": question.query, "num": question.count}
    if question.country:
        document["gl"] = question.country.lower()
    if question.language:
        document["hl"] = question.language.lower()
    answer = await client.post("/search", document, {"x-api-key": client.api_key})
    hits = _hits(answer.get("organic"), "link", "snippet")
    box = answer.get("answerBox")
    if isinstance(box, dict) and (text := box.get("answer") or box.get("snippet")):
        hits.insert(0, Hit(_text(box.get("title")), _text(box.get("link")), _text(text)))
    return hits[: question.count]


async def _tavily(client: SearchClient, question: Question) -> list[Hit]:
    document = {"query": question.query, "max_results": question.count}
    answer = await client.post("/search", document, {"authorization": f"Bearer {client.api_key}"})
    return _hits(answer.get("results"), "url", "content")[: question.count]


def _hits(items: Any, url: str, snippet: str) -> list[Hit]:
    if not isinstance(items, list):
        return []
    return [
        Hit(_text(item.get("title")), _text(item.get(url)), _text(item.get(snippet)))
        for item in items
        if isinstance(item, dict)
    ]


def _text(value: Any) -> str:
    return " ".join(value.split())[:MAX_SNIPPET] if isinstance(value, str) else ""


_SEARCH: dict[str, Callable[[SearchClient, Question], Awaitable[list[Hit]]]] = {
    "serper": _serper,
    "tavily": _tavily,
}
