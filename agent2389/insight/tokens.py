"""Bearer tokens of requests: which one came, whether it is right, and the answer when it is not."""

import hmac

from aiohttp import web

from agent2389.insight.problems import REQUEST_ID, problem


def bearer_of(request: web.Request) -> str:
    """The token that came with the scheme ``Bearer``; empty without one."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given if scheme.lower() == "bearer" else ""


def is_token(given: str, wanted: str | None) -> bool:
    """Whether they are the same, told in a time that says nothing about ``wanted``."""
    return wanted is not None and hmac.compare_digest(given.encode(), wanted.encode())


def unauthorized(request: web.Request) -> web.Response:
    """401: no token came, or a wrong one."""
    given = any(name in request.headers for name in ("Authorization", "X-Manager-Token"))
    told = "the token is wrong" if given else "a bearer token is required"
    response = problem(401, "unauthorized", f"{told} (AGENT2389_TOKEN)", request[REQUEST_ID])
    response.headers["WWW-Authenticate"] = 'Bearer realm="agent2389"'
    return response
