"""Who may call the API: probes are open, the rest needs the token where one is asked for."""

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from agent2389.broker.address import is_loopback
from agent2389.insight.probes import PROBES
from agent2389.ops.problems import REQUEST_ID, Handler, problem

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
        if _is(_credentials(request), token):
            return await handler(request)
        if request.path.startswith("/api/agent-services") and _is(
            request.headers.get("X-Manager-Token", ""), manager_token
        ):
            return await handler(request)
        response = problem(401, "unauthorized", _refusal(request), request[REQUEST_ID])
        response.headers["WWW-Authenticate"] = 'Bearer realm="agent2389"'
        return response

    return check


def _refusal(request: web.Request) -> str:
    if any(name in request.headers for name in ("Authorization", "X-Manager-Token")):
        return "the token is wrong (AGENT2389_TOKEN)"
    return "a bearer token is required (AGENT2389_TOKEN)"


def _credentials(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given if scheme.lower() == "bearer" else ""


def _is_local(request: web.Request) -> bool:
    host = urlsplit(f"//{request.host}").hostname or ""
    origin = request.headers.get("Origin")
    same_origin = origin is None or urlsplit(origin).netloc == request.host
    has_credentials = "Authorization" in request.headers
    return not has_credentials and same_origin and is_loopback(host)


def _is(given: str, wanted: str | None) -> bool:
    return wanted is not None and hmac.compare_digest(given.encode(), wanted.encode())
