"""An event loop whose time jumps, with processes that can be held still or killed between two steps."""

import asyncio
import contextvars
import heapq
import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from agent2389.telemetry.surroundings import Surroundings, live_in

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When every simulation begins."""


class Stuck(RuntimeError):
    """Nothing will ever happen again, or so much happens that time stands still."""


class Process(Surroundings):
    """One simulated process: whatever was started in its context runs only while it runs.

    A killed process executes not one more instruction: no handler, no ``finally``. ``skew`` moves
    its clock of the day; elapsed time is the loop's.
    """

    def __init__(self, loop: "VirtualLoop", name: str, chance: random.Random, skew: float = 0.0) -> None:
        self.name = name
        self.chance = chance
        self._loop = loop
        self._skew = timedelta(seconds=skew)
        self._held: list[asyncio.Handle] = []
        self.is_held = False
        self.is_dead = False
        self.context = contextvars.copy_context()
        self.context.run(self._move_in)

    def _move_in(self) -> None:
        _running.set(self)
        live_in(self)

    def now(self) -> datetime:
        """The process' idea of the time of day."""
        return self._loop.now() + self._skew

    def elapsed(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def start(self, work: Any, name: str) -> "asyncio.Task[Any]":
        """Run a coroutine in this process."""
        return self._loop.create_task(work, name=name, context=self.context)

    def hold(self) -> None:
        """SIGSTOP: due steps pile up."""
        self.is_held = True

    def go_on(self) -> None:
        """SIGCONT: everything that fell due meanwhile runs now, in its order."""
        held, self._held, self.is_held = self._held, [], False
        for handle in held:
            self._loop.enter(self._loop.time(), handle, self)

    def kill(self) -> None:
        """SIGKILL."""
        self.is_dead = True

    def bury(self) -> None:
        """After the end of the story its tasks may be cancelled like anybody's."""
        self.is_dead = False
        self.go_on()

    def catches(self, handle: asyncio.Handle) -> bool:
        """Whether a due step does not run now."""
        if self.is_held or self.is_dead:
            self._held.append(handle)
        return self.is_held or self.is_dead


_running: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """The process whose step this is; ``None`` is the world outside."""
    return _running.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """No selector, no threads: due steps in order of time, then of arrival; between them time jumps.

    The same steps in the same order follow from the same start, whatever machine or hash seed.
    """

    def __init__(self, most_steps: int = 5_000_000) -> None:
        super().__init__()
        self._moment = 0.0
        self._numbers = itertools.count()
        self._agenda: list[tuple[float, int, asyncio.Handle, Process | None]] = []
        self._steps_left = most_steps

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._moment

    def now(self) -> datetime:
        """The time of day outside all processes."""
        return EPOCH + timedelta(seconds=round(self._moment, 6))

    def enter(self, when: float, handle: asyncio.Handle, process: Process | None) -> None:
        """Put a step on the agenda."""
        heapq.heappush(self._agenda, (when, next(self._numbers), handle, process))

    # asyncio, typed more loosely than the standard library does ----------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """After everything that is due already."""
        context = context or contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self.enter(self._moment, handle, context.get(_running))
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """At virtual second ``when``."""
        context = context or contextvars.copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.enter(max(when, self._moment), handle, context.get(_running))
        return handle

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - there is only here
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """At once and here: threads have no order."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001
            # Whatever the function raises belongs to whoever waits for it.
            future.set_exception(error)
        return future

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def _run_once(self) -> None:
        self._steps_left -= 1
        if not self._agenda or self._steps_left < 0:
            raise Stuck("nothing is due any more" if not self._agenda else "time does not go on")
        when, _, handle, process = heapq.heappop(self._agenda)
        self._moment = max(self._moment, when)
        if handle.cancelled() or (process is not None and process.catches(handle)):
            return
        handle._run()  # noqa: SLF001 - what every event loop does with its handles
