"""Named places in a task's work where a test may interfere; in production nothing listens."""

from collections.abc import Callable

POINTS = (
    "task.claimed",
    "journal.resumed",
    "files.laid_out",
    "model.before_begin",
    "model.begun",
    "model.answered",
    "model.ended",
    "tools.before_begin",
    "tools.begun",
    "tool.before_call",
    "tool.called",
    "files.stored",
    "tool.ended",
    "tools.complete",
    "answer.ready",
    "routing.begun",
    "routing.answered",
    "routing.decided",
    "finish.before_write",
    "finish.written",
)

Hook = Callable[[str], None]


class _Listener:
    hook: Hook | None = None


def intercept(hook: Hook | None) -> None:
    """Call ``hook`` with the name of every point that is reached from now on (tests only)."""
    _Listener.hook = hook


def reach(point: str) -> None:
    """Say that the work stands at ``point``, one of ``POINTS``."""
    if _Listener.hook is not None:
        _Listener.hook(point)
