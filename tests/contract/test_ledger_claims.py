"""What every ledger promises about who may claim what, and when."""

from datetime import timedelta

import pytest

from agent2389.ledger.records import Failure, NextTask
from agent2389.ledger.states import TaskState
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger


async def first_task(ledger: SteppedLedger, job_id: str) -> str:
    return (await ledger.job(job_id)).tasks[0].task_id


async def test_nobody_claims_after_the_deadline(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job("late", deadline=ledger.time() + timedelta(seconds=0.4)))
    task_id = await first_task(ledger, "late")
    await ledger.advance(0.6)
    assert await ledger.claim(task_id, incarnation) is None
    assert list(await ledger.claim_batch(incarnation, 1)) == []


async def test_nobody_claims_before_the_time(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job("later", not_before=ledger.time() + timedelta(seconds=60)))
    assert await ledger.claim(await first_task(ledger, "later"), incarnation) is None
    assert list(await ledger.claim_batch(incarnation, 1)) == []


@pytest.mark.parametrize("job", [new_job(capability="writing"), new_job(capability=None, agent="r2")])
async def test_nobody_claims_what_is_for_others(ledger: SteppedLedger, job: object) -> None:
    incarnation = await join(ledger, "r1", "research")
    await ledger.submit(job)  # type: ignore[arg-type]
    assert await ledger.claim(await first_task(ledger, "job-1"), incarnation) is None
    assert list(await ledger.claim_batch(incarnation, 1)) == []
    other = await join(ledger, "r2", "writing")
    assert await ledger.claim(await first_task(ledger, "job-1"), other) is not None


@pytest.mark.parametrize("state", ["paused", "draining"])
async def test_nobody_claims_who_is_not_running(ledger: SteppedLedger, state: str) -> None:
    incarnation = await join(ledger, state=state)
    await ledger.submit(new_job())
    assert await ledger.claim(await first_task(ledger, "job-1"), incarnation) is None
    assert list(await ledger.claim_batch(incarnation, 1)) == []


async def test_nobody_judges_the_own_work(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish(verify=NextTask(capability="research")), "job-1")
    judging = next(row.task_id for row in (await ledger.job("job-1")).tasks if row.verifies)
    assert await ledger.claim(judging, incarnation) is None
    assert list(await ledger.claim_batch(incarnation, 1)) == []
    other = await join(ledger, "r2")
    won = await ledger.claim(judging, other)
    assert won is not None
    assert won.verifies == claim.fence.task_id


async def test_an_answer_of_an_earlier_attempt_counts_no_more(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job(capability=None, agent="stranger"))
    task_id = await first_task(ledger, "job-1")
    soon = ledger.time() + timedelta(seconds=60)
    assert await ledger.forward(task_id, soon) is not None
    failed = Failure(code="llm_error", message="busy", retryable=True)
    assert (await ledger.forward_ended(task_id, 0, failed, "job-1")).verdict == "ok"
    await ledger.until(lambda: ledger.forward(task_id, soon))
    assert (await ledger.forward_ended(task_id, 0, finish("late"), "job-1")).verdict == "already"
    assert (await ledger.job("job-1")).tasks[0].state is TaskState.FORWARDED
    assert (await ledger.forward_ended(task_id, 1, finish("in time"), "job-1")).verdict == "ok"


async def test_an_hour_without_a_deadline_begins_when_the_job_may_begin(ledger: SteppedLedger) -> None:
    for job_id, hours in (("past", -2), ("later", 2)):
        may_begin = ledger.time() + timedelta(hours=hours)
        await ledger.submit(new_job(job_id, not_before=may_begin))
        found = await ledger.job(job_id)
        assert found.deadline is not None
        late = found.deadline - max(may_begin, found.job.created_at) - timedelta(hours=1)
        assert abs(late) < timedelta(seconds=1)
    await ledger.submit(new_job("named", not_before=may_begin, deadline=may_begin + timedelta(minutes=1)))
    assert (await ledger.job("named")).deadline == may_begin + timedelta(minutes=1)
