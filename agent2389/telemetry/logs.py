"""Structured logs on standard error, without secrets."""

import logging
import re
import sys
from collections import deque
from collections.abc import MutableMapping
from typing import Any

import structlog

_PATTERNS = (
    re.compile(r"sk-[A-Za-z0-9_-]{8,}"),
    re.compile(r"(?i)bearer\s+[A-Za-z0-9._~+/-]{8,}=*"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(?<=password=)[^\s&'\"]+"),
)
MASK = "********"
_secrets: set[str] = set()
_recent: deque[str] = deque(maxlen=1000)


def register_secret(value: str | None) -> None:
    """Never show ``value`` in a log line of this process."""
    if value and len(value) >= 6:
        _secrets.add(value)


def redacted(text: str) -> str:
    """``text`` without registered secrets and without anything that looks like one."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    return text


def recent_lines(count: int) -> list[str]:
    """The last log lines of this process, redacted."""
    return list(_recent)[-count:]


def configure_logging(level: str = "info", style: str = "auto") -> None:
    """``level`` as people write it, ``style`` json, pretty or auto (pretty on a terminal)."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    pretty = style == "pretty" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if pretty
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _redact,
            renderer,
            _remember,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redacted(value)
        elif not isinstance(value, int | float | None):
            event[key] = redacted(str(value))
    return event


def _remember(_: Any, __: str, line: Any) -> str:
    """The renderer's line, kept for /logs."""
    _recent.append(str(line))
    return str(line)
