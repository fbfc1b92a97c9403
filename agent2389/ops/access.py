"""Who may call the API: probes are open, the rest needs the token where one is asked for."""

from urllib.parse import urlsplit

from aiohttp import web

from agent2389.broker.address import is_loopback
from agent2389.insight.probes import PROBES
from agent2389.insight.problems import Handler
from agent2389.insight.tokens import bearer_of, is_token, unauthorized

OPEN = frozenset({*PROBES, "/docs", "/api/v1/openapi.json"})


def bearer(token: str | None, manager_token: str | None, *, required: bool) -> object:
    """A middleware. Off loopback (``required``) everything but the probes needs the token.

    On loopback a call without credentials is served, unless a page of another origin sent it
    (browsers name theirs); wrong credentials are refused everywhere.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN or (not required and _is_local(request)):
            return await handler(request)
        if is_token(bearer_of(request), token):
            return await handler(request)
        if request.path.startswith("/api/agent-services") and is_token(
            request.headers.get("X-Manager-Token", ""), manager_token
        ):
            return await handler(request)
        return unauthorized(request)

    return check


def _is_local(request: web.Request) -> bool:
    host = urlsplit(f"//{request.host}").hostname or ""
    origin = request.headers.get("Origin")
    same_origin = origin is None or urlsplit(origin).netloc == request.host
    has_credentials = "Authorization" in request.headers
    return not has_credentials and same_origin and is_loopback(host)
