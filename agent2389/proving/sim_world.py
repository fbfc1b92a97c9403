"""The world of one simulation: a clock, a bus, a ledger, and berths in which processes live and die."""

import asyncio
import contextvars
import functools
import hashlib
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from agent2389.broker.memory_server import MemoryServer
from agent2389.errors import Agent2389Error
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.memory_tables import Tables
from agent2389.proving.sim_ledger import NOBODY, Referee, Wire, over
from agent2389.proving.sim_loop import Process, VirtualLoop
from agent2389.proving.sim_processes import AgentProcess, OpsProcess, Place, Temper
from agent2389.proving.sim_weather import CALM, BadWeather, Climate
from agent2389.upkeep.chores import INTERVALS

ROUGH = Climate(delay=0.05, spike=0.02, loss=0.1, double=0.05, swallow=0.1)
SKEWS = (0.0, 0.0, 0.0, 2.5, 3600.0, -3600.0)
"""Seconds by which a process' clock of the day is wrong."""
WINDOWS = ((20, 1000), (20, 1000), (3, 5), (2, 2))
"""In flight and queued; the measured broker has 20 and 1,000, a smaller one is full sooner."""


class Program(Protocol):
    """What runs in a berth."""

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Its names on the broker."""
        ...

    def ask_drain(self) -> None:
        """SIGTERM."""
        ...

    def run(self) -> Coroutine[Any, Any, None]:
        """From start to end."""
        ...


class World:
    """Everything around the processes. ``found`` is what must not be."""

    def __init__(self, loop: VirtualLoop, seed: int, folder: Path) -> None:
        self.loop = loop
        self.seed = seed
        self.chance = random.Random(f"{seed} world")  # noqa: S311 - it must repeat
        self.lines: list[str] = []
        self.found: list[str] = []
        self.faults: dict[str, int] = {}
        self.saved: dict[str, Any] = {}
        self.tables = Tables(loop.now, random.Random(f"{seed} ledger"))  # noqa: S311
        self.ledger = MemoryLedger(tables=self.tables)
        self.ledger.expect_chores(INTERVALS)
        self.referee = Referee()
        self.wire = Wire(random.Random(f"{seed} wire"), self.referee, self.note)  # noqa: S311
        self.weather = BadWeather(random.Random(f"{seed} bus"), CALM, self.note)  # noqa: S311
        in_flight, queued = self.chance.choice(WINDOWS)
        self.server = MemoryServer(self.weather, in_flight=in_flight, queued=queued)
        self.is_over = False
        temper = Temper(longest=self.chance.choice((2.0, 12.0, 40.0)))
        self.berths = [
            Berth(self, f"a{number}", functools.partial(AgentProcess, number=number), folder, temper)
            for number in range(5)
        ]
        self.berths.append(Berth(self, "ops", OpsProcess, folder, temper))

    def note(self, text: str) -> None:
        """One line of the log."""
        if not self.is_over:
            self.lines.append(f"{self.loop.time():10.3f} {text}")

    def digest(self) -> str:
        """SHA-256 of the log."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def process(self, name: str, skew: float = 0.0) -> Process:
        """A new process with chance of its own."""
        return Process(self.loop, name, random.Random(f"{self.seed} {name}"), skew)  # noqa: S311

    def later(self, seconds: float, step: Callable[..., None], *arguments: Any) -> None:
        """A step of the world itself."""
        self.loop.call_later(seconds, step, *arguments, context=contextvars.Context())

    def begin(self) -> None:
        """Start everybody, not all at once."""
        for berth in self.berths:
            self.later(self.chance.uniform(0.0, 3.0), berth.start)

    def calm(self) -> None:
        """Every fault ends: from now on the mesh has to recover by itself."""
        self.note("world: all faults end")
        self.weather.climate = CALM
        self.wire.is_away, self.wire.lost_answers, self.wire.delay = False, 0.0, 0.02
        self.wire.cut.clear()
        if not self.server.is_up:
            self.server.start()
        for berth in self.berths:
            berth.go_on()
            berth.start()

    async def end(self) -> None:
        """Nobody's steps count any more; every task ends, also those of killed processes."""
        self.is_over = True
        me = asyncio.current_task()
        for berth in self.berths:
            berth.bury()
        while tasks := [task for task in asyncio.all_tasks() if task is not me]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0)


class Berth:
    """Where one process after another lives under one name, as a supervisor would have it."""

    def __init__(
        self, world: World, name: str, make: Callable[[Place], Program], folder: Path, temper: Temper
    ) -> None:
        self.name = name
        self._world = world
        self._make = make
        self._place = Place(
            ledger=lambda: over(world.wire, name, world.ledger),
            server=world.server,
            folder=folder,
            temper=temper,
        )
        self._generation = 0
        self._dead: list[Process] = []
        self.process: Process | None = None
        self.program: Program | None = None

    def start(self) -> None:
        """A new process, unless one runs."""
        world = self._world
        if self.process is not None or world.is_over:
            return
        self._generation += 1
        skew = world.chance.choice(SKEWS)
        self.process = process = world.process(f"{self.name}.{self._generation}", skew)
        self.program = program = self._make(self._place)
        world.note(f"{process.name} starts, clock {skew:+g} s")
        task = process.start(program.run(), process.name)
        task.add_done_callback(lambda ended: self._ended(process, ended), context=NOBODY)

    def kill(self, back_in: float) -> None:
        """SIGKILL; the supervisor starts another one ``back_in`` seconds later."""
        if self.process is None or self.program is None:
            return
        self._world.note(f"{self.process.name} is killed")
        self.process.kill()
        self._dead.append(self.process)
        self.disconnect("the process died")
        self.process = self.program = None
        self._world.later(back_in, self.start)

    def hold(self) -> bool:
        """SIGSTOP; ``False`` when it stands already."""
        if self.process is None or self.process.is_held:
            return False
        self._world.note(f"{self.process.name} stands still")
        self.process.hold()
        return True

    def go_on(self) -> None:
        """SIGCONT."""
        if self.process is not None and self.process.is_held:
            self._world.note(f"{self.process.name} goes on")
            self.process.go_on()

    def drain(self) -> None:
        """SIGTERM; it starts again when it has left."""
        if self.process is not None and self.program is not None and not self.process.is_held:
            self._world.note(f"{self.process.name} is asked to drain")
            self.process.context.run(self.program.ask_drain)

    def disconnect(self, reason: str) -> None:
        """Its connections to the broker break."""
        if self.program is not None:
            for client_id in self.program.client_ids:
                self._world.server.drop(client_id, reason)

    def bury(self) -> None:
        """Let the tasks of all its processes be cancelled."""
        for process in (*self._dead, *([self.process] if self.process else [])):
            process.bury()

    def _ended(self, process: Process, task: "asyncio.Task[None]") -> None:
        world = self._world
        if world.is_over or self.process is not process:
            return
        error = None if task.cancelled() else task.exception()
        world.note(f"{process.name} ended{f': {_told(error)}' if error else ''}")
        if error is not None and not _is_ours(error):
            world.found.append(f"{process.name} died of {_told(error)}")
        self.disconnect("the process ended")
        self.process = self.program = None
        world.later(1.0, self.start)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _is_ours(error: BaseException) -> bool:
    """Whether the process ended for a reason it knows, so that a supervisor starts it again."""
    return all(isinstance(leaf, Agent2389Error) for leaf in _leaves(error))


def _told(error: BaseException) -> str:
    return "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in _leaves(error))
