"""What a process takes from the world around it (time of day, time elapsed, chance), replaceable as a whole.

A simulation gives every process it plays surroundings of its own, through the context in which
that process' tasks run; everybody else gets those of the machine.
"""

import random
import time
from contextvars import ContextVar
from datetime import UTC, datetime


class Surroundings:
    """Those of this machine; chance is good enough for ids."""

    chance: random.Random = random.SystemRandom()

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Seconds since some moment, never falling."""
        return time.monotonic()


_current: ContextVar[Surroundings] = ContextVar("surroundings", default=Surroundings())  # noqa: B039 - frozen


def live_in(surroundings: Surroundings) -> None:
    """Give the current context, and every task made in it, other surroundings."""
    _current.set(surroundings)


def now() -> datetime:
    """The time of day, aware, in UTC."""
    return _current.get().now()


def elapsed() -> float:
    """Seconds since some moment, never falling; for durations."""
    return _current.get().elapsed()


def chance() -> random.Random:
    """Where jitter and fresh ids come from."""
    return _current.get().chance
