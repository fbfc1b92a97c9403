"""One claim for each wake: ranks, doorbells, slots that free, and a claim under way when the end comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent2389.agent.claiming import EAGER_POLL_SECONDS, RANK_PAUSE_SECONDS, Claimer, rank
from agent2389.ledger.records import Claim
from agent2389.wire.mesh import Wake, encode
from agent2389.wire.topics import MeshTopics
from tests.support.jobs import join, new_job
from tests.support.recorded_broker import RecordedConnection
from tests.support.stepped import SteppedMemory
from tests.support.waiting import until

TOPICS = MeshTopics()
PEERS = tuple(f"peer-{number}" for number in range(100))


class CountingLedger(SteppedMemory):
    """Counts claims; a closed ``door`` lets them win and keeps back the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.door = asyncio.Event()
        self.door.set()

    async def claim(self, task_id: str, incarnation: str) -> Claim | None:
        self.asked.append(task_id)
        won = await super().claim(task_id, incarnation)
        await self.door.wait()
        return won

    async def claim_batch(self, incarnation: str, limit: int) -> tuple[Claim, ...]:
        self.asked.append("batch")
        return tuple(await super().claim_batch(incarnation, limit))


class House:
    """A claimer on a ledger; ``started`` are the tasks it owns."""

    def __init__(self, incarnation: str, ledger: CountingLedger) -> None:
        self.ledger = ledger
        self.slots = 1
        self.started: list[str] = []
        self.lost = 0
        self.claimer = Claimer(
            ledger, incarnation, free_slots=lambda: self.slots, start=self._start, lost=self._lost
        )

    async def _start(self, claim: Claim) -> None:
        self.slots -= 1
        self.started.append(claim.fence.task_id)

    def _lost(self) -> None:
        self.lost += 1

    async def submit(self, job_id: str) -> str:
        submitted = await self.ledger.submit(new_job(job_id))
        return submitted.effects.wakes[0].task_id

    async def hear(self, task_id: str, *, taken: bool = False) -> None:
        wake = encode(Wake(task_id, 0, taken=taken))
        await self.claimer.on_wake(RecordedConnection().delivery(TOPICS.wake("research"), wake))

    def end_task(self) -> None:
        self.slots += 1
        self.claimer.slot_freed()


@asynccontextmanager
async def idle_house() -> AsyncIterator[House]:
    """A claimer that has looked once, found nothing and waits."""
    ledger = CountingLedger()
    house = House(await join(ledger), ledger)
    running = asyncio.create_task(house.claimer.run())
    try:
        await until(lambda: ledger.asked == ["batch"])
        ledger.asked.clear()
        yield house
    finally:
        running.cancel()


def test_every_task_has_one_first_and_all_peers_agree() -> None:
    for number in range(50):
        ranks = [rank(f"task-{number}", peer, PEERS) for peer in PEERS]
        assert sorted(ranks) == list(range(100))
        assert [rank(f"task-{number}", peer, PEERS, 8) for peer in PEERS] == [min(own, 8) for own in ranks]
    first = {min(PEERS, key=lambda peer: rank(f"task-{n}", peer, PEERS)) for n in range(200)}
    assert len(first) > 60, "the first place goes round"


async def test_an_idle_agent_claims_once_for_a_task_and_not_when_it_ends() -> None:
    async with idle_house() as house:
        for job_id in ("job-1", "job-2", "job-3"):
            task_id = await house.submit(job_id)
            await house.hear(task_id)
            await until(lambda: task_id in house.started)
            house.end_task()
        await house.claimer.settled()
        assert house.ledger.asked == house.started


async def test_whoever_hears_taken_in_time_does_not_try() -> None:
    async with idle_house() as house:
        task_id = await house.submit("job-1")
        names = (f"other-{number}" for number in range(100))
        ahead = next(name for name in names if rank(task_id, "r1-incarnation", (name,)) == 1)
        house.claimer.peers = {"research": (ahead,)}
        await house.hear(task_id)
        await house.hear(task_id, taken=True)
        await asyncio.sleep(RANK_PAUSE_SECONDS * 1.2)
        assert house.ledger.asked == []
        await house.hear(task_id)
        await until(lambda: house.started == [task_id])


async def test_what_came_while_all_slots_were_taken_is_tried_when_one_frees() -> None:
    async with idle_house() as house:
        first, second = await house.submit("job-1"), await house.submit("job-2")
        await house.hear(first)
        await until(lambda: house.started == [first])
        await house.hear(second)
        house.end_task()
        await until(lambda: house.started == [first, second])


async def test_a_slot_that_frees_looks_while_there_is_backlog() -> None:
    async with idle_house() as house:
        task_id = await house.submit("job-1")
        house.claimer.poll_seconds = EAGER_POLL_SECONDS
        house.slots = 0
        house.end_task()
        await until(lambda: house.started == [task_id])


async def test_the_end_waits_for_a_claim_that_is_under_way() -> None:
    async with idle_house() as house:
        task_id = await house.submit("job-1")
        house.ledger.door.clear()
        await house.hear(task_id)
        await until(lambda: house.ledger.asked == [task_id])
        settled = asyncio.create_task(house.claimer.settled())
        await asyncio.sleep(0)
        assert not settled.done()
        house.ledger.door.set()
        await settled
        assert house.started == [task_id]
