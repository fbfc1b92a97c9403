"""Routing decisions over HTTP."""

from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.insight.decisions import MOST, page_of_decisions
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.ops.routes_jobs import answer
from agent2389.wire.receipts import Code

DEFAULT_LIMIT = 50
DEFAULT_AGE_SECONDS = 7 * 86_400
MOST_SECONDS = 366 * 86_400


def add(app: web.Application) -> None:
    """Add the route."""
    app.router.add_get("/api/v1/decisions", decisions)


async def decisions(request: web.Request) -> web.Response:
    """Routing decisions of the last ``?since=`` seconds (default 7 days), newest first."""
    rows, cursor = await page_of_decisions(
        request.app[DEPENDENCIES].ledger,
        _whole(request, "since", DEFAULT_AGE_SECONDS, MOST_SECONDS),
        limit=_whole(request, "limit", DEFAULT_LIMIT, MOST),
        cursor=request.query.get("cursor"),
    )
    return answer({"data": rows, "next_cursor": cursor})


def _whole(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= most:
        raise InputRefused(Code.INVALID, f"{name} must be a number between 1 and {most}")
    return int(text)
