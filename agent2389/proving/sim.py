"""A whole mesh on a virtual clock: real agent code, a bus and a ledger that misbehave, one seed."""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from agent2389.ledger.memory_tables import RuleBroken
from agent2389.proving import sim_faults
from agent2389.proving.sim_loop import Stuck, VirtualLoop
from agent2389.proving.sim_people import Person, Producers, wishes
from agent2389.proving.sim_world import World
from agent2389.upkeep.dispatch import board_topic
from agent2389.wire.topics import MeshTopics

LOOK_SECONDS = 5.0
RECOVER_SECONDS = 1800.0
"""Longer than every lease, back-off and patience together: who is not through by then never will be."""
QUIET_SECONDS = 75.0
"""After the last end: late writers have written, leftovers are sent, the broker is subscribed again."""


class SimPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much happens: ``seconds`` is the virtual time in which faults fall."""

    jobs: int = 12
    faults: int = 30
    seconds: float = 180.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one seed came to; ``found`` is empty when every promise held."""

    seed: int
    found: tuple[str, ...]
    jobs: dict[str, int]
    faults: dict[str, int]
    late_writes_refused: int
    messages_dropped: int
    crashes: int
    decided_by_person: int
    virtual_seconds: float
    seconds: float
    digest: str
    log: tuple[str, ...]

    def replay(self, plan: SimPlan) -> str:
        """The command that plays it again."""
        return (
            f"agent2389 sim --seed {self.seed} --jobs {plan.jobs} --faults {plan.faults} "
            f"--minutes {plan.seconds / 60:g} --log sim-{self.seed}.log"
        )


def simulate(seed: int, plan: SimPlan) -> Outcome:
    """Play one seed to its end. The same seed and plan give the same log, byte for byte."""
    started = time.perf_counter()
    loop = VirtualLoop()
    complaints: list[str] = []
    before = structlog.get_config()
    _listen(complaints)
    try:
        with tempfile.TemporaryDirectory(prefix="agent2389-sim-") as folder:
            world = World(loop, seed, Path(folder))
            loop.set_exception_handler(lambda _, context: _unheard(world, context))
            story = _Story(world, plan)
            loop.run_until_complete(story.play())
    finally:
        structlog.configure(**before)
        loop.close()
    tables = world.tables
    ends = Counter(str(job.ended or "open") for job in tables.jobs.values())
    return Outcome(
        seed=seed,
        found=(*world.found, *world.referee.found, *complaints),
        jobs=dict(sorted(ends.items())),
        faults=dict(sorted(world.faults.items())),
        late_writes_refused=world.referee.late_writes_refused,
        messages_dropped=world.server.dropped,
        crashes=sum(task.crashes for task in tables.tasks.values()),
        decided_by_person=story.person.decided,
        virtual_seconds=round(story.ended_at, 3),
        seconds=round(time.perf_counter() - started, 3),
        digest=world.digest(),
        log=tuple(world.lines),
    )


def _listen(complaints: list[str]) -> None:
    """A step that failed without being expected is a finding, though its process survives."""

    def hear(_: Any, __: str, event: Any) -> Any:
        if event.get("exc_info"):
            error = sys.exc_info()[1]
            complaints.append(f"unexpected: {event.get('event')}: {type(error).__name__}: {error}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[hear],
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        cache_logger_on_first_use=False,
    )


def _unheard(world: World, context: dict[str, Any]) -> None:
    """What failed where nobody listened is a finding too."""
    if not world.is_over:
        world.found.append(f"unexpected: {context['message']}: {context.get('exception')!r}")


class _Story:
    def __init__(self, world: World, plan: SimPlan) -> None:
        self._world = world
        self._plan = plan
        self.producers = Producers(world)
        self.person = Person(world)
        self.ended_at = 0.0

    async def play(self) -> None:
        world, plan = self._world, self._plan
        producing = world.process("producers").start(
            self.producers.run(wishes(world, plan.jobs, plan.seconds * 0.8)), "producers"
        )
        world.process("person").start(self.person.run(), "person")
        world.begin()
        sim_faults.schedule(world, plan.faults, plan.seconds)
        try:
            await self._until(plan.seconds)
            world.calm()
            await self._recover(producing)
            await self._until(world.loop.time() + QUIET_SECONDS)
            await self._judge()
        except Stuck as stuck:
            world.found.append(str(stuck))
        finally:
            self.ended_at = world.loop.time()
            await world.end()

    async def _until(self, moment: float) -> None:
        """Let time pass; the rules of the ledger hold all the while."""
        while (left := moment - self._world.loop.time()) > 0:
            await asyncio.sleep(min(left, LOOK_SECONDS))
            self._check()

    def _check(self, *, settled: bool = False) -> None:
        try:
            self._world.ledger.check_invariants(settled=settled)
        except RuleBroken as broken:
            self._world.found.append(str(broken))

    async def _recover(self, producing: "asyncio.Task[None]") -> None:
        world = self._world
        deadline = world.loop.time() + RECOVER_SECONDS
        while not (producing.done() and all(job.ended for job in world.tables.jobs.values())):
            if world.loop.time() >= deadline:
                world.found.append(f"{RECOVER_SECONDS:g} s after the last fault not everything has ended")
                return
            await self._until(world.loop.time() + LOOK_SECONDS)
        if error := producing.exception():
            # Who asks for nothing gets everything: a run without its producers proves nothing.
            world.found.append(f"the producers gave up: {error!r}")

    async def _judge(self) -> None:
        world = self._world
        await world.ledger.refresh_board()
        self._check(settled=True)
        while await world.ledger.seal(1000):
            pass
        world.found += self._violations()
        if broken := await world.ledger.broken_links():
            world.found.append(f"I14: the chain of events breaks at {broken}")

    def _violations(self) -> Iterator[str]:
        tables, producers = self._world.tables, self.producers
        jobs = {job_id: job for (_, job_id), job in tables.jobs.items()}
        for job_id in sorted(producers.accepted):
            if job_id not in jobs:
                yield f"I1: {job_id} was accepted and is gone"
            elif jobs[job_id].ended is None:
                yield f"I2: {job_id} was accepted and never ended"
        for job_id, payloads in sorted(producers.results.items()):
            if len(payloads) > 1:
                yield f"I3: {len(payloads)} different results of {job_id} were published"
        if tables.outbox:
            yield f"I17: {len(tables.outbox)} deliveries were never sent"
        yield from self._board()

    def _board(self) -> Iterator[str]:
        """I13: what the broker keeps of the board is what the ledger says."""
        expected = {
            board_topic(tenant, kind, ids): row.payload.encode()
            for (tenant, kind, ids), row in self._world.tables.board.items()
            if row.payload is not None
        }
        prefixes = tuple(name.partition("+")[0] for name in MeshTopics().board_filters())
        held = {
            topic: message.payload
            for topic, message in self._world.server.retained.items()
            if topic.startswith(prefixes)
        }
        for topic, payload in sorted(expected.items()):
            if held.get(topic) != payload:
                yield f"I13: {topic} is {'wrong' if topic in held else 'missing'} on the broker"
        for topic in sorted(held.keys() - expected.keys()):
            yield f"I13: {topic} is retained on the broker and not in the ledger"
