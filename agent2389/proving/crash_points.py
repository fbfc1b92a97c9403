"""An agent that kills itself: ``python -m agent2389.proving.crash_points POINT NTH run FILE``.

The program is the real one; only the method of the point is wrapped.
"""

import functools
import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from agent2389.ledger.postgres import PostgresLedger
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.tools.registry import ToolSet
from agent2389.upkeep.dispatch import Dispatcher

Method = Callable[..., Awaitable[Any]]

METHODS: dict[str, tuple[type, str]] = {
    "claim": (PostgresLedger, "claim_batch"),
    "model": (RehearsalModel, "answer"),
    "tool": (ToolSet, "call"),
    "file": (PostgresLedger, "put_blob"),
    "finish": (PostgresLedger, "finish"),
    "effects": (Dispatcher, "perform"),
    "board-lease": (PostgresLedger, "lease_board"),
    "board-sent": (PostgresLedger, "board_sent"),
    "beat": (PostgresLedger, "beat"),
}
POINTS = tuple(f"{when}-{name}" for name in METHODS for when in ("before", "after"))


def arm(point: str, nth: int) -> None:
    """Make the process kill itself at the ``nth`` passing of ``point``. Raises ``KeyError``."""
    when, _, name = point.partition("-")
    owner, attribute = METHODS[name]
    original: Method = getattr(owner, attribute)
    passed = 0

    @functools.wraps(original)
    async def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal passed
        passed += 1
        if when == "before" and passed >= nth:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await original(*arguments, **options)
        if passed >= nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, attribute, wrapped)


def main() -> None:
    """Arm, then be ``agent2389`` with the rest of the arguments."""
    point, nth, *rest = sys.argv[1:]
    arm(point, int(nth))
    sys.argv = ["agent2389", *rest]
    runpy.run_module("agent2389", run_name="__main__")


if __name__ == "__main__":
    main()
