"""The places of notifications, on every ledger: who tells, what, and from where."""

from datetime import timedelta

import pytest

from agent2389.errors import InputRefused
from agent2389.ledger.notices import Batch, Place
from agent2389.ledger.records import Failure, Waiting
from tests.support.jobs import claim_one, join, new_job
from tests.support.stepped import SteppedLedger

TYPES = ("task.escalated", "task.waiting", "job.failed")


async def take(ledger: SteppedLedger, holder: str = "a", *, limit: int = 50, lease: float = 30.0) -> Batch:
    batch = await ledger.notices.take("webhook", holder, TYPES, limit=limit, lease_seconds=lease)
    assert batch is not None
    return batch


async def is_free(ledger: SteppedLedger, holder: str = "b") -> bool:
    return await ledger.notices.take("webhook", holder, TYPES, limit=50, lease_seconds=30) is not None


async def let_go(ledger: SteppedLedger, place: Place, holder: str = "a", *, rest: float = 0.0) -> bool:
    return await ledger.notices.keep("webhook", holder, place, seconds=rest, ends=True)


async def escalated(ledger: SteppedLedger, *jobs: str) -> None:
    """Jobs of which each gives one sealed event to tell, among others."""
    incarnation = await join(ledger)
    for job in jobs:
        await ledger.submit(new_job(job))
        claim = await claim_one(ledger, incarnation)
        failure = Failure(code="llm_error", message="no", retryable=False, escalate=True)
        await ledger.fail(claim.fence, failure)
    await ledger.seal(1000)


async def test_a_new_name_begins_at_the_end(ledger: SteppedLedger) -> None:
    await escalated(ledger, "before")
    assert await ledger.notices.standing("webhook", TYPES) is None
    batch = await take(ledger)
    assert (batch.events, batch.upto) == ((), batch.place.number)
    assert batch.place.number == (await ledger.sealed_changes(0))[-1][0]


async def test_events_come_in_order_and_once_they_are_told_never_again(ledger: SteppedLedger) -> None:
    assert await let_go(ledger, (await take(ledger)).place)
    await escalated(ledger, "one", "two", "three")
    sealed = dict(await ledger.sealed_changes(0))
    first = await take(ledger, limit=2)
    assert [change.job_id for _, change in first.events] == ["one", "two"]
    assert all(sealed[number] == change for number, change in first.events)
    assert first.upto == first.events[-1][0], "the third is still to be told"
    assert await let_go(ledger, Place(number=first.upto))
    second = await take(ledger, limit=2)
    assert [(change.job_id, change.type) for _, change in second.events] == [("three", "task.escalated")]
    assert second.upto == max(sealed), "what nobody wants to hear is passed over"
    assert await let_go(ledger, Place(number=second.upto))
    assert (await take(ledger)).events == ()


async def test_one_tells_at_a_time(ledger: SteppedLedger) -> None:
    batch = await take(ledger, "a", lease=0.4)
    assert not await is_free(ledger)
    assert not await let_go(ledger, batch.place, "b"), "b never had it"
    assert await ledger.notices.keep("webhook", "a", batch.place, seconds=0.4, ends=False)
    assert not await is_free(ledger, "a"), "nor does its holder take it twice"
    await ledger.advance(0.5)
    assert await is_free(ledger, "b"), "whoever died at it is replaced"
    assert not await let_go(ledger, Place(number=batch.upto), "a")


async def test_it_rests_as_long_as_it_was_told(ledger: SteppedLedger) -> None:
    assert await let_go(ledger, (await take(ledger)).place, rest=0.4)
    assert not await is_free(ledger)
    await ledger.until(lambda: is_free(ledger))


async def test_what_failed_is_remembered(ledger: SteppedLedger) -> None:
    await take(ledger)
    await escalated(ledger, "one", "two")
    place = (await ledger.notices.standing("webhook", TYPES) or pytest.fail("no place")).place
    failed = Place(number=place.number, failures=3, refusals=2, reason="it answers 500 " * 50)
    assert await let_go(ledger, failed)
    standing = await ledger.notices.standing("webhook", TYPES)
    assert standing is not None
    assert (standing.place.failures, standing.place.refusals) == (3, 2)
    assert standing.place.reason == ("it answers 500 " * 50)[:500]
    assert (standing.waiting, standing.more) == (2, False)
    assert (await take(ledger)).place == standing.place


async def test_a_number_never_falls(ledger: SteppedLedger) -> None:
    await take(ledger)
    await escalated(ledger, "one")
    batch_end = (await ledger.sealed_changes(0))[-1][0]
    await let_go(ledger, Place(number=batch_end))
    await let_go(ledger, (await take(ledger)).place)
    await take(ledger)
    await let_go(ledger, Place(number=0))
    assert (await take(ledger)).place.number == batch_end


async def test_a_timer_wants_nobody(ledger: SteppedLedger) -> None:
    await take(ledger)
    await let_go(ledger, Place(number=0))
    incarnation = await join(ledger)
    for job, waiting in (
        ("timed", Waiting(reason="timer", until=ledger.time() + timedelta(hours=1))),
        ("asked", Waiting(reason="person", question="which one?")),
    ):
        await ledger.submit(new_job(job))
        await ledger.wait((await claim_one(ledger, incarnation)).fence, waiting)
    await ledger.seal(1000)
    assert [(change.job_id, change.data["for"]) for _, change in (await take(ledger)).events] == [
        ("asked", "person")
    ]


async def test_names_do_not_know_each_other(ledger: SteppedLedger) -> None:
    await take(ledger)
    other = await ledger.notices.take("pager", "b", TYPES, limit=50, lease_seconds=30)
    assert other is not None
    with pytest.raises(InputRefused):
        await ledger.notices.take("", "b", TYPES, limit=50, lease_seconds=30)
    assert not await ledger.notices.keep("nothing", "a", Place(number=1), seconds=0, ends=True)
