"""The memory ledger over hours and over random ways, checked after every step."""

import random
from datetime import timedelta
from typing import Any

import pytest

from agent2389.errors import InputRefused
from agent2389.ledger.fleet import Beat
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.memory_tables import RuleBroken
from agent2389.ledger.records import Claim, Failure, NextTask
from agent2389.ledger.states import AgentState, JobState, TaskState
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedMemory


async def test_work_that_nobody_serves_asks_a_person_after_a_quarter_of_an_hour() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    await ledger.advance(14 * 60)
    assert (await ledger.reap()).changes == ()
    await ledger.advance(2 * 60)
    assert [change.type for change in (await ledger.reap()).changes] == ["task.escalated"]
    assert (await ledger.job("job-1")).job.state is JobState.WAITING


async def test_an_agent_without_beat_is_lost_and_its_presence_cleared() -> None:
    ledger = SteppedMemory()
    incarnation = await join(ledger)
    await ledger.advance(31)
    assert [row.state for row in await ledger.agents()] == [AgentState.LOST]
    assert [row.incarnation for row in (await ledger.retire()).agents] == [incarnation]
    await ledger.advance(25 * 3600)
    await ledger.retire()
    assert await ledger.agents() == ()


async def test_results_stay_on_the_board_for_an_hour() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "me")
    await ledger.board_sent(await ledger.lease_board(10))
    await ledger.advance(3601)
    await ledger.retire()
    assert [(row.kind, row.payload) for row in await ledger.lease_board(10)] == [("result", None)]
    assert (await ledger.job("job-1")).final is not None


async def test_a_taken_board_row_comes_again_when_its_taker_died() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "me")
    first = await ledger.lease_board(10)
    assert await ledger.lease_board(10) == ()
    await ledger.advance(10.1)
    second = await ledger.lease_board(10)
    assert [row.version for row in second] == [row.version for row in first]
    await ledger.board_sent(first)
    assert len(await ledger.lease_board(10)) == 1, "a lost lease marks nothing as sent"


async def test_tenants_do_not_meet() -> None:
    one = SteppedMemory()
    other = MemoryLedger(tables=one.tables, tenant="other")
    await one.submit(new_job())
    assert await other.jobs() == ()
    assert await other.claim_batch(await join(other), 5) == []
    assert (await other.submit(new_job(content_hash="else"))).verdict == "accepted"
    one.check_invariants()


async def test_the_same_seed_gives_the_same_tokens() -> None:
    async def token(seed: int) -> str:
        ledger = SteppedMemory(seed=seed)
        incarnation = await join(ledger)
        await ledger.submit(new_job())
        return (await claim_one(ledger, incarnation)).fence.token

    assert await token(1) == await token(1)
    assert await token(1) != await token(2)


def _set_all(rows: dict[Any, Any], field: str, value: object) -> None:
    for row in rows.values():
        setattr(row, field, value)


@pytest.mark.parametrize(
    ("harm", "rule"),
    [
        (lambda t: t.jobs.clear() or t.tasks.clear() or t.finals.clear() or t.grants.clear(), "I1"),
        (lambda t: t.finals.clear(), "I3"),
        (lambda t: [rows.clear() for rows in t.results.values()], "I3"),
        (lambda t: [grants.clear() for grants in t.grants.values()], "I4"),
        (lambda t: t.events.reverse(), "I5"),
        (lambda t: _set_all(t.tasks, "token", "x"), "I6"),
        (lambda t: t.told_to_cancel.update(t.tasks), "I7"),
        (lambda t: _set_all(t.jobs, "open_tasks", 7), "I8"),
        (lambda t: [task.states.insert(1, TaskState.DEAD) for task in t.tasks.values()], "I9"),
        (lambda t: _set_all(t.tasks, "crashes", 9), "I11"),
        (lambda t: _set_all(t.board, "payload", "x"), "I13"),
    ],
)
async def test_every_rule_is_really_checked(harm: object, rule: str) -> None:
    ledger = SteppedMemory()
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish(), "job-1")
    ledger.check_invariants()
    harm(ledger.tables)  # type: ignore[operator]
    with pytest.raises(RuleBroken, match=f"{rule}:"):
        ledger.check_invariants()


class Walk:
    """Random clients, honest and not, on one ledger."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.ledger = SteppedMemory(seed=seed, lease_seconds=20)
        self.claims: list[Claim] = []
        self.jobs = 0

    async def step(self) -> None:
        often = [self.submit, self.claim, self.claim, self.finish, self.finish]
        seldom = [self.fail, self.release, self.beat, self.cancel, self.stop, self.upkeep, self.later]
        await self.chance.choice([*often, *seldom])()
        self.ledger.check_invariants()

    async def submit(self) -> None:
        self.jobs += self.chance.random() < 0.8
        limit = self.ledger.time() + timedelta(seconds=self.chance.choice([5, 60, 3600]))
        pool = {"capability": None, "agent": "r1"} if self.chance.random() < 0.2 else {}
        name = f"job-{self.jobs}"
        job = new_job(name, priority=self.chance.randrange(10), max_hops=3, deadline=limit, **pool)
        await self.ledger.submit(job)

    async def claim(self) -> None:
        who = self.chance.choice(["r1", "r2"])
        self.claims += await self.ledger.claim_batch(f"{who}-incarnation", self.chance.randint(1, 3))

    def any_claim(self) -> Claim | None:
        """An old one as often as a live one: zombies write too."""
        return self.chance.choice(self.claims) if self.claims else None

    async def finish(self) -> None:
        if claim := self.any_claim():
            count = self.chance.choice([0, 0, 0, 1, 2])
            items = [NextTask(slot=slot, capability="research") for slot in range(count)]
            done = finish("x", *items, escalate=self.chance.random() < 0.1)
            await self.ledger.finish(claim.fence, done, claim.job_id)

    async def fail(self) -> None:
        if claim := self.any_claim():
            retryable = self.chance.random() < 0.7
            failure = Failure(code="llm_error", message="m", retryable=retryable, partial="p")
            await self.ledger.fail(claim.fence, failure)

    async def release(self) -> None:
        if claim := self.any_claim():
            await self.ledger.release(claim.fence, "drain")

    async def stop(self) -> None:
        if claim := self.any_claim():
            await self.ledger.stop_task(claim.fence, "p")

    async def cancel(self) -> None:
        if self.jobs:
            await self.ledger.cancel(f"job-{self.jobs}", "me")

    async def beat(self) -> None:
        held = tuple(claim.fence for claim in self.claims[-5:])
        for who in ("r1", "r2"):
            beat = Beat(incarnation=f"{who}-incarnation", state=AgentState.RUNNING, free_slots=1, held=held)
            await self.ledger.beat(beat)

    async def upkeep(self) -> None:
        await self.ledger.reap()
        await self.ledger.ring_due()
        await self.ledger.refresh_board()
        rows = await self.ledger.lease_board(20)
        if self.chance.random() < 0.7:
            await self.ledger.board_sent(rows)

    async def later(self) -> None:
        await self.ledger.advance(self.chance.choice([0.1, 1, 8, 25]))


@pytest.mark.parametrize("seed", range(12))
async def test_random_ways_break_no_rule_and_every_job_ends(seed: int) -> None:
    walk = Walk(seed)
    for who in ("r1", "r2"):
        await join(walk.ledger, who)
    await walk.ledger.submit(new_job("job-0", deadline=walk.ledger.time() + timedelta(seconds=9)))
    for _ in range(400):
        try:
            await walk.step()
        except InputRefused as refused:
            assert refused.code == "expired"
    await walk.ledger.advance(3601)
    await walk.ledger.reap()
    await walk.ledger.refresh_board()
    walk.ledger.check_invariants(settled=True)
    # I2: escalated work waits for a person, everything else has come to its end.
    counts = await walk.ledger.job_counts()
    assert not set(counts) & {JobState.QUEUED, JobState.RUNNING}
    assert sum(counts.values()) > 20
