"""The ledger as a process meets it over a network, with a referee who keeps books of his own."""

import asyncio
import contextvars
import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from agent2389.errors import Agent2389Error, Unreachable
from agent2389.ledger.fleet import BeatReply
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Claim, Fence, Written
from agent2389.ledger.states import TaskState

FENCED = frozenset({"finish", "fail", "release", "stop_task", "checkpoint"})
NOBODY = contextvars.Context()


class Referee:
    """Knows from the answers alone who owns what, so that the ledger is not its own witness."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}
        self._leases: dict[tuple[str, int], float] = {}
        self._ended: dict[str, int] = {}
        self.found: list[str] = []
        self.late_writes_refused = 0

    def saw(self, name: str, arguments: tuple[Any, ...], answer: Any, now: float) -> None:
        """Judge one committed call."""
        if isinstance(answer, Claim):
            self._granted(answer, now)
        elif name == "claim_batch":
            for claim in cast("Sequence[Claim]", answer):
                self._granted(claim, now)
        elif isinstance(answer, BeatReply):
            for fence in arguments[0].held:
                if answer.tasks[fence.task_id] != "lost":
                    self._renewed(fence, now)
        elif name in FENCED and isinstance(answer, Written):
            self._written(name, arguments[0], answer, now)

    def _granted(self, claim: Claim, now: float) -> None:
        fence = claim.fence
        last = self._epochs.get(fence.task_id, 0)
        if fence.epoch <= last:
            self.found.append(f"task {fence.task_id}: epoch {fence.epoch} was granted after {last}")
        if now < self._leases.get((fence.task_id, last), 0.0):
            self.found.append(f"task {fence.task_id}: granted again while epoch {last} held its lease")
        if fence.task_id in self._ended:
            self.found.append(f"task {fence.task_id}: granted after its end")
        self._epochs[fence.task_id] = fence.epoch
        self._leases[fence.task_id, fence.epoch] = now + claim.lease_seconds

    def _renewed(self, fence: Fence, now: float) -> None:
        if not self._holds(fence, now):
            self.found.append(f"task {fence.task_id}: a late beat of epoch {fence.epoch} was taken")
        self._leases[fence.task_id, fence.epoch] = now + 30.0

    def _written(self, name: str, fence: Fence, answer: Written, now: float) -> None:
        if answer.verdict == "fenced":
            self.late_writes_refused += 1
        if answer.verdict != "ok":
            return
        if not self._holds(fence, now):
            self.found.append(f"task {fence.task_id}: a late {name} of epoch {fence.epoch} was taken")
        if name == "checkpoint":
            return
        self._leases.pop((fence.task_id, fence.epoch), None)
        if name == "finish" and answer.task_state is not TaskState.ESCALATED:
            if fence.task_id in self._ended:
                self.found.append(f"task {fence.task_id}: finished twice")
            self._ended[fence.task_id] = fence.epoch

    def _holds(self, fence: Fence, now: float) -> bool:
        until = self._leases.get((fence.task_id, fence.epoch), 0.0)
        return self._epochs.get(fence.task_id) == fence.epoch and now < until


class Wire:
    """The network between processes and database; ``away`` and ``cut`` break it."""

    def __init__(self, chance: random.Random, referee: Referee, note: Callable[[str], None]) -> None:
        self.chance = chance
        self.referee = referee
        self.note = note
        self.delay = 0.02
        self.lost_answers = 0.0
        self.is_away = False
        self.cut: set[str] = set()

    def broken_for(self, name: str) -> bool:
        """Whether the process ``name`` reaches the database."""
        return self.is_away or name in self.cut


def over(wire: Wire, name: str, ledger: MemoryLedger) -> Ledger:
    """``ledger`` as the process ``name`` reaches it."""
    return cast("Ledger", _Distant(wire, name, ledger))


class _Distant:
    """Every call travels, commits in one moment, and its answer travels back or is lost on the way."""

    def __init__(self, wire: Wire, name: str, ledger: MemoryLedger) -> None:
        self._wire = wire
        self._name = name
        self._ledger = ledger

    def __getattr__(self, operation: str) -> Any:
        member = getattr(self._ledger, operation)
        if not inspect.iscoroutinefunction(member):
            return member

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._call(operation, lambda: member(*arguments, **named), arguments)

        return call

    async def _call(
        self, operation: str, begin: Callable[[], Awaitable[Any]], arguments: tuple[Any, ...]
    ) -> Any:
        loop, wire = asyncio.get_running_loop(), self._wire
        answered = loop.create_future()
        lost = wire.chance.random() < wire.lost_answers
        back = wire.chance.uniform(0.0005, wire.delay)

        def commit() -> None:
            if wire.broken_for(self._name):
                answer: Any = Unreachable("ledger", "the database does not answer")
            else:
                answer = _now(begin())
                if not isinstance(answer, Exception):
                    wire.referee.saw(operation, arguments, answer, loop.time())
                wire.note(f"{self._name} {operation} {_short(arguments)} -> {_short(answer)}")
                if lost:
                    answer = Unreachable("ledger", "the connection broke after the statement")
            loop.call_later(back, give, answer, context=NOBODY)

        def give(answer: Any) -> None:
            if not answered.done():
                answered.set_result(answer)

        loop.call_later(wire.chance.uniform(0.0005, wire.delay), commit, context=NOBODY)
        answer = await answered
        if isinstance(answer, Exception):
            raise answer
        return answer


def _now(work: Awaitable[Any]) -> Any:
    """The outcome of a coroutine of the memory ledger, which never waits."""
    try:
        cast("Any", work).send(None)
    except StopIteration as done:
        return done.value
    except Agent2389Error as error:
        return error
    raise AssertionError("the memory ledger waited inside a transaction")


def _short(value: Any) -> str:
    """What the log tells of arguments and answers: ids and verdicts, never tokens."""
    match value:
        case tuple() | list():
            return "[" + " ".join(_short(item) for item in value) + "]"
        case Claim():
            return f"{value.fence.task_id[:8]}/{value.fence.epoch}"
        case Fence():
            return f"{value.task_id[:8]}/{value.epoch}"
        case Written():
            return f"{value.verdict}:{value.task_state or ''}"
        case BeatReply():
            tasks = ",".join(f"{task[:8]}={verdict}" for task, verdict in sorted(value.tasks.items()))
            return f"beat({tasks} due={len(value.due)} backlog={value.backlog})"
        case Exception():
            return f"{type(value).__name__}: {value}"
        case str() | int() | bool() | float() | None:
            return str(value)[:40]
        case _:
            verdict = getattr(value, "verdict", "")
            return f"{getattr(value, 'job_id', '')}{':' if verdict else ''}{verdict}" or type(value).__name__
