"""What an endpoint's refusal means, without repeating a word that the endpoint wrote."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from agent2389.errors import ModelFailed
from agent2389.llm.replies import peek

LONGEST_WAIT_SECONDS: Final = 3600.0
"""No endpoint may put a task off for longer than this by its Retry-After."""
_TRANSIENT: Final = frozenset({408, 409, 425, 429})
_CHECK_KEY: Final = "check the variable that llm.api_key_env names"
_STATUS_OF_TYPE: Final = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "request_too_large": 413,
    "billing_error": 402,
}
"""Errors that arrive inside a stream, after HTTP 200, carry a type instead of a status."""
_MEANING: Final = {
    "insufficient_quota": ("the account has no credit left", False, "pay, or name another endpoint"),
    "billing_error": ("the account has no credit left", False, "pay, or name another endpoint"),
    "context_length_exceeded": (
        "the conversation is longer than the model can read",
        False,
        "give it less text or name a model with a larger context",
    ),
    "model_not_found": ("the endpoint has no such model", False, "check llm.model"),
    "API_KEY_INVALID": ("the model endpoint refuses the key", False, _CHECK_KEY),
}
"""The few codes that change what to do. Only these are read: the rest of a body is the endpoint's text,
and may hold the key that we sent."""


def failure_of_status(status: int, headers: Mapping[str, str] | None = None, body: Any = None) -> ModelFailed:
    """The typed failure for an HTTP answer that is no answer of the model."""
    codes = list(_codes(body))
    if status < 300:
        status = next((_STATUS_OF_TYPE[code] for code in codes if code in _STATUS_OF_TYPE), 500)
    for code in codes:
        if code in _MEANING:
            message, retryable, hint = _MEANING[code]
            return ModelFailed(f"{message} (HTTP {status})", retryable=retryable, status=status, hint=hint)
    # A pause of 0 is a pause that was named: only a missing one is looked for in the body.
    pause = retry_after(headers or {})
    return ModelFailed(
        f"the model endpoint {_what(status)} (HTTP {status})",
        retryable=status >= 500 or status in _TRANSIENT,
        retry_after=_delay_in(body) if pause is None else pause,
        status=status,
        hint=_hint(status),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``retry-after-ms`` or ``Retry-After`` (number or date), capped; ``None`` when unusable."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _capped(milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or not text:
        return None if seconds is None else _capped(seconds)
    try:
        moment = parsedate_to_datetime(text[:64])
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _capped((moment - datetime.now(UTC)).total_seconds())


def _number(text: Any) -> float | None:
    if not isinstance(text, str) or len(text) > 32:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _capped(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def _what(status: int) -> str:
    if status in (401, 403):
        return "refuses the key"
    if status == 404:
        return "knows no such model or path"
    if status == 429:
        return "asks for fewer calls"
    if status == 529:
        return "is overloaded"
    if 300 <= status < 400:
        return "sends us to another address"
    return "failed" if status >= 500 else "refuses the request"


def _hint(status: int) -> str | None:
    if status in (401, 403):
        return _CHECK_KEY
    if status == 404:
        return "check llm.model and llm.base_url"
    if 300 <= status < 400:
        return "write the final address into llm.base_url; a key is never sent after a redirect"
    return None


def _codes(body: Any) -> Iterator[str]:
    """Strings where the providers put their error codes."""
    for outer in body if isinstance(body, list) else [body]:
        error = peek(outer, "error")
        for place in (error, outer):
            for name in ("code", "type", "status"):
                if isinstance(value := peek(place, name), str):
                    yield value
            details = peek(place, "details")
            for detail in details if isinstance(details, list) else ():
                if isinstance(value := peek(detail, "reason"), str):
                    yield value


def _delay_in(body: Any) -> float | None:
    """Google names the pause in the body: ``error.details[].retryDelay = "13s"``."""
    for outer in body if isinstance(body, list) else [body]:
        details = peek(peek(outer, "error"), "details")
        for detail in details if isinstance(details, list) else ():
            found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", str(peek(detail, "retryDelay"))[:32])
            if found:
                return _capped(float(found[1]))
    return None
