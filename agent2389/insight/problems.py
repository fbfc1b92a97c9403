"""Errors over HTTP: RFC 9457 problem+json, never a trace."""

import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from agent2389.errors import Agent2389Error, Conflict, InputRefused, NotAllowed, NotFound, Unreachable
from agent2389.wire.receipts import Code

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
StatusOf = Callable[[Agent2389Error], tuple[int, str]]
"""HTTP status and code of an error."""
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
_MALFORMED = {Code.MALFORMED, Code.DUPLICATE_KEY, Code.TOO_DEEP}

log = structlog.get_logger(__name__)


class PreconditionFailed(Conflict):
    """What ``If-Match`` names is not what stands now: 412 instead of 409."""


def problem(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    *,
    headers: dict[str, str] | None = None,
    more: dict[str, str] | None = None,
) -> web.Response:
    """One problem document; ``more`` are its further members."""
    body = {
        "type": f"about:blank#{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
        **(more or {}),
    }
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)


def status_of(error: Agent2389Error) -> tuple[int, str]:
    """HTTP status and code of one of our errors."""
    match error:
        case InputRefused():
            if error.code == Code.TOO_LARGE:
                return 413, error.code
            return (400 if error.code in _MALFORMED else 422), error.code
        case NotFound():
            return 404, "not_found"
        case PreconditionFailed():
            return 412, "precondition_failed"
        case Conflict():
            return 409, "conflict"
        case NotAllowed():
            return 403, "not_allowed"
        case Unreachable():
            return 503, "unavailable"
        case _:
            return 500, "internal_error"


def _code_of(status: int) -> str:
    """From the status alone, for a reason is a sentence for people. Python renamed 413 in 3.13."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Code.TOO_LARGE
    return HTTPStatus(status).name.lower()


def _told(error: web.HTTPException) -> str:
    """What the handler says; aiohttp's own text is only the status again."""
    text = error.text or ""
    return (error.reason or "") if text.startswith(f"{error.status}:") else text


def problems(status_of: StatusOf = status_of) -> Middleware:
    """A middleware that turns every error into a problem and gives each answer its request id."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = str(uuid.uuid4())
        try:
            response = await handler(request)
        except Agent2389Error as error:
            response = _of_ours(error, status_of, request_id)
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            response = problem(
                error.status, _code_of(error.status), _told(error), request_id, headers=headers
            )
        except Exception:
            log.exception("request failed unexpectedly", path=request.path)
            response = problem(500, "internal_error", "the service failed", request_id)
        if not response.prepared:
            response.headers["X-Request-Id"] = request_id
        return response

    return answer


def _of_ours(error: Agent2389Error, status_of: StatusOf, request_id: str) -> web.Response:
    status, code = status_of(error)
    detail = f"{error} ({error.hint})" if error.hint else str(error)
    headers = {"Retry-After": "2"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(status, code, detail, request_id, headers=headers)
