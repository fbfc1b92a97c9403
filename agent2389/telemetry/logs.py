"""Structured logs on standard error, without secrets."""

import logging
import re
import sys
from collections import deque
from collections.abc import MutableMapping
from types import TracebackType
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
    libraries = logging.getLogger()
    if not any(isinstance(handler, _ThroughOurs) for handler in libraries.handlers):
        libraries.addHandler(_ThroughOurs(logging.WARNING))
    if not pretty:
        sys.excepthook = _last_words


class _ThroughOurs(logging.Handler):
    """Lines of libraries take the form of ours and lose the same secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger().log(
                record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
            )
        except Exception:  # noqa: BLE001 - a line that cannot be written is never the caller's trouble
            self.handleError(record)


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody expected ends the process with one line, as whoever collects them expects."""
    structlog.get_logger().critical("the process ends unexpectedly", exc_info=(kind, error, trace))


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
