"""What every front door reads: health with its cache, fleet, jobs by the beginning of an id, traces."""

import asyncio
import time

import pytest

from agent2389 import __version__
from agent2389.errors import InputRefused, NotFound, Unreachable
from agent2389.insight import fleet
from agent2389.insight.health import Degraded, Health
from agent2389.insight.jobs import resolve, trace_of, wait_for_end
from agent2389.ledger.fleet import AgentRecord
from agent2389.ledger.records import Failure
from agent2389.ledger.states import JobState
from agent2389.telemetry.metrics import Metrics
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedMemory


class Switch:
    """A check that a test turns."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return "fine"


def started(**probes: tuple[Switch, bool]) -> Health:
    health = Health()
    health.started_up = True
    for name, (probe, required) in probes.items():
        health.add(name, probe, required=required)
    return health


@pytest.mark.parametrize(
    ("error", "required", "status", "ready"),
    [
        (None, True, "healthy", True),
        (Degraded("slow"), True, "degraded", True),
        (Unreachable("ledger", "gone"), True, "unhealthy", False),
        (Unreachable("broker", "gone"), False, "degraded", True),
    ],
)
async def test_the_verdict_follows_the_checks(
    error: Exception | None, required: bool, status: str, ready: bool
) -> None:
    switch = Switch()
    switch.error = error
    health = started(thing=(switch, required))
    fine, body = await health.report()
    assert (body["status"], fine) == (status, ready)
    assert (await health.ready())[0] is ready
    assert body["checks"]["thing"]["required"] is required
    assert body["checks"]["thing"]["message"] == (str(error) if error else "fine")


async def test_checks_are_asked_at_most_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = Switch()
    health = started(thing=(switch, True))
    for _ in range(5):
        await health.ready()
    assert switch.asked == 1
    monkeypatch.setattr("agent2389.insight.health.CACHE_SECONDS", 0.0)
    await health.ready()
    assert switch.asked == 2


async def test_a_check_that_hangs_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.insight.health.CHECK_SECONDS", 0.05)

    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    health = Health()
    health.started_up = True
    health.add("thing", hangs)
    before = time.monotonic()
    ok, reasons = await health.ready()
    assert (ok, reasons) == (False, ["thing: no answer within 2 s"])
    assert time.monotonic() - before < 1


@pytest.mark.parametrize("state", ["paused", "draining", "stopped"])
async def test_a_process_that_takes_no_work_is_not_ready_and_still_healthy(state: str) -> None:
    health = Health(state=lambda: state)
    health.started_up = True
    assert await health.ready() == (False, [state])
    assert (await health.report())[0] is True


async def test_before_the_start_is_complete_it_is_not_ready() -> None:
    assert await Health().ready() == (False, ["starting"])


async def test_the_fleet_counts_agents_by_state_and_names_starved_pools() -> None:
    ledger = SteppedMemory()
    await join(ledger, "r1", "research")
    await join(ledger, "w1", "writing", state="paused")
    await ledger.register(AgentRecord(agent_id="ops", incarnation="o1", capabilities=(), role="ops"))
    await ledger.submit(new_job("one"))
    await ledger.submit(new_job("two", capability="painting"))
    await ledger.submit(new_job("three", capability=None, agent="r1"))
    seen = await fleet.summary(ledger)
    assert seen["agents"] == {"running": 1, "paused": 1}
    assert seen["pools_without_agents"] == ["painting"]
    assert seen["pools"]["research"] == {"agents": 1, "queued": 1, "running": 0}
    assert not any("." in pool for pool in seen["pools"]), "queues of single agents are no pools"


async def test_gauges_forget_pools_that_are_gone() -> None:
    ledger, metrics = SteppedMemory(), Metrics(__version__)
    await ledger.submit(new_job("one", capability="painting"))
    await ledger.advance(7)
    await fleet.measure(ledger, metrics)
    text = metrics.render().decode()
    assert 'agent2389_ledger_tasks{pool="painting",state="queued"} 1.0' in text
    assert 'agent2389_ledger_oldest_queued_seconds{pool="painting"} 7.0' in text
    assert 'agent2389_ledger_jobs{state="queued"} 1.0' in text
    assert "agent2389_outbox_pending 1.0" in text
    assert "agent2389_outbox_oldest_age_seconds 7.0" in text
    await ledger.cancel("one", "me")
    await fleet.measure(ledger, metrics)
    text = metrics.render().decode()
    assert "painting" not in text
    assert 'agent2389_ledger_jobs{state="cancelled"} 1.0' in text


async def test_a_job_is_found_by_the_beginning_of_its_id() -> None:
    ledger = SteppedMemory()
    for name in ("alpha-1", "alpha-2", "alpha", "beta"):
        await ledger.submit(new_job(name))
        await ledger.advance(1)
    assert await resolve(ledger, "b") == "beta"
    assert await resolve(ledger, "@last") == "beta"
    assert await resolve(ledger, "alpha") == "alpha"
    with pytest.raises(InputRefused, match="beginning of several"):
        await resolve(ledger, "al")
    for unknown in ("gamma", "%", "_", "'; --"):
        with pytest.raises(NotFound):
            await resolve(ledger, unknown)


async def test_a_trace_tells_times_attempts_and_errors() -> None:
    ledger = SteppedMemory()
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    await ledger.advance(2)
    claim = await claim_one(ledger, incarnation)
    await ledger.advance(3)
    await ledger.fail(claim.fence, Failure(code="llm_error", message="no answer", retryable=True))
    again = await ledger.until(lambda: ledger.claim_batch(incarnation, 1), 400)
    await ledger.advance(4)
    await ledger.finish(again[0].fence, finish("text"), "job-1")
    trace = trace_of(await ledger.job("job-1"))
    hop = trace.hops[0]
    assert (hop.attempt, hop.agent_id, hop.seconds, hop.state) == (1, "r1", 4.0, "completed")
    assert hop.claim_ms is not None
    assert hop.decision is not None
    assert hop.decision["reason"] == "because"
    assert trace.usage.cost_usd == 0.25
    assert trace.seconds is not None
    assert trace.seconds >= 9


async def test_a_task_that_nobody_claimed_has_no_times() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    hop = trace_of(await ledger.job("job-1")).hops[0]
    assert (hop.claim_ms, hop.seconds, hop.agent_id) == (None, None, None)


async def test_waiting_ends_with_the_job_or_with_the_time() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    assert (await wait_for_end(ledger, "job-1", 0.0)).job.state is JobState.QUEUED
    assert (await wait_for_end(ledger, "job-1", 0.1)).job.state is JobState.QUEUED
    waiting = asyncio.create_task(wait_for_end(ledger, "job-1", 10))
    await ledger.cancel("job-1", "me")
    assert (await asyncio.wait_for(waiting, 5)).job.state is JobState.CANCELLED
