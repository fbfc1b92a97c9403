"""The citation toolkit: what an answer rests on, kept in the job's dossier for every later agent."""

import asyncio
import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent2389.ledger.dossier import Citation, Dossier, NewCitation
from agent2389.tools.document import PARSE_SECONDS, parse_document
from agent2389.tools.dossier_calls import DossierToolkit, as_data, fence_of
from agent2389.tools.paths import NameRefused, open_below
from agent2389.tools.port import TaskScope, Tool, ToolOutput

LIST_LIMIT = 100
SHOWN_QUOTE = 200

_CLAIM = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4000,
    "description": "the statement that the source supports",
}
_QUOTE = {"type": "string", "maxLength": 8000, "description": "the supporting words of the source"}
_TITLE = {"type": "string", "maxLength": 500}
_NUMBER = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
_DOCUMENT = {
    "path": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "file in the workspace"},
    "claim": _CLAIM,
    "quote": _QUOTE,
    "page": {**_NUMBER, "description": "page of a PDF; only it is searched for the quote"},
    "title": _TITLE,
}
_WEB = {
    "url": {"type": "string", "minLength": 8, "maxLength": 2048, "description": "http(s) address"},
    "claim": _CLAIM,
    "quote": _QUOTE,
    "title": _TITLE,
}


class CitationToolkit(DossierToolkit):
    """cite_document, cite_web, list_sources, get_citation, list_citations."""

    name = "citation"

    def tools(self) -> tuple[Tool, ...]:
        """The five citation tools."""
        return (
            self.tool(
                "cite_document",
                "Record that a document in the workspace supports a claim. A quote must occur in it.",
                _cite_document,
                _DOCUMENT,
                required=("path", "claim"),
                writes=True,
            ),
            self.tool(
                "cite_web",
                "Record that a web page supports a claim.",
                _cite_web,
                _WEB,
                required=("url", "claim"),
                writes=True,
            ),
            self.tool("list_sources", "List everything this job has cited so far.", _list_sources, {}),
            self.tool(
                "get_citation",
                "Show one citation in full.",
                _get_citation,
                {"number": _NUMBER},
                required=("number",),
            ),
            self.tool(
                "list_citations",
                "List the citations of this job, or those of one source.",
                _list_citations,
                {"source": {**_NUMBER, "description": "number of a source; all when absent"}},
            ),
        )


async def _cite_document(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    path, quote, page = arguments["path"], arguments.get("quote", ""), arguments.get("page")
    try:
        sha256 = await asyncio.to_thread(_digest, scope.workspace, path)
    except OSError as error:
        raise NameRefused(f"the document cannot be read ({error.strerror})") from None
    found = await _is_in(scope.workspace, path, quote, page) if quote else None
    if found is False:
        raise NameRefused("the quote does not occur in the document: quote its own words, or leave it out")
    kept = await dossier.cite(
        fence_of(scope),
        NewCitation(
            kind="document",
            locator=path,
            sha256=sha256,
            title=arguments.get("title") or Path(path).name,
            claim=arguments["claim"],
            quote=quote,
            place=f"page {page}" if page else "",
            found=found,
        ),
    )
    return ToolOutput(text=f"kept as citation {kept.number}: {_line(kept)}", data=as_data(kept))


async def _cite_web(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    kept = await dossier.cite(
        fence_of(scope),
        NewCitation(
            kind="web",
            locator=_address(arguments["url"]),
            title=arguments.get("title", ""),
            claim=arguments["claim"],
            quote=arguments.get("quote", ""),
        ),
    )
    return ToolOutput(text=f"kept as citation {kept.number}: {_line(kept)}", data=as_data(kept))


async def _list_sources(
    dossier: Dossier,
    arguments: Mapping[str, Any],  # noqa: ARG001 - every tool's signature
    scope: TaskScope,
) -> ToolOutput:
    rows = await dossier.sources(scope.job_id)
    lines = [
        f"[{row.number}] {row.title or row.locator} ({row.locator}), cited {row.citations} times"
        for row in rows
    ]
    return ToolOutput(
        text="\n".join(lines) or "nothing is cited yet", data=as_data(rows), untrusted=bool(rows)
    )


async def _get_citation(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    row = await dossier.citation(scope.job_id, arguments["number"])
    checked = {True: "the quote was found in it", False: "the quote was not found", None: "not checked"}
    lines = [
        f"citation {row.number} of source {row.source}: {row.title or row.locator}",
        f"source: {row.locator}{', ' + row.place if row.place else ''} ({checked[row.found]})",
        f"claim: {row.claim}",
    ]
    lines += [f"quote: {row.quote}"] if row.quote else []
    return ToolOutput(text="\n".join(lines), data=as_data(row), untrusted=True)


async def _list_citations(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    rows = await dossier.citations(scope.job_id, source=arguments.get("source"), limit=LIST_LIMIT + 1)
    text = _listed(rows[:LIST_LIMIT])
    if len(rows) > LIST_LIMIT:
        text += f"\n[cut: more than {LIST_LIMIT} citations; name a source]"
    return ToolOutput(
        text=text or "nothing is cited yet", data=as_data(rows[:LIST_LIMIT]), untrusted=bool(rows)
    )


def _listed(rows: Sequence[Citation]) -> str:
    return "\n".join(f"[{row.number}] {_line(row)}" for row in rows)


def _line(row: Citation) -> str:
    quote = f' - "{row.quote[:SHOWN_QUOTE]}"' if row.quote else ""
    return f"{row.claim} ({row.title or row.locator}{', ' + row.place if row.place else ''}){quote}"


def _digest(root: Path, name: str) -> str:
    with os.fdopen(open_below(root, name, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _is_in(root: Path, name: str, quote: str, page: int | None) -> bool | None:
    """Whether the document holds the quote; ``None`` when only a part of it could be read."""
    async with asyncio.timeout(PARSE_SECONDS + 5):
        parsed = await parse_document(root, name, None if page is None else str(page))
    if parsed.error is not None:
        raise NameRefused(f"the document is rejected: {parsed.error}")
    if _plain(quote) in _plain(parsed.text):
        return True
    return None if parsed.cut else False


def _plain(text: str) -> str:
    """Letters and digits only: line breaks, hyphens at their ends and kinds of quotes differ by reader."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).casefold()


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        plain = False
    if not plain or not url.isprintable() or " " in url:
        raise NameRefused("the address must be an http(s) URL without user name")
    return url
