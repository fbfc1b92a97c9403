"""Rules of the ledger beyond the common way of a job."""

import hashlib
import json
from datetime import timedelta

import msgspec
import pytest

from agent2389.errors import Conflict, InputRefused
from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.records import Failure, FileRef, NextTask
from agent2389.ledger.states import AgentState, JobState, TaskState
from agent2389.wire.names import task_id_of
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger


async def test_http_answers_itself_and_gets_no_receipt(ledger: SteppedLedger) -> None:
    submitted = await ledger.submit(new_job(source="http", reply_to="agent2389/v1/default/replies/me"))
    assert submitted.effects.deliveries == ()
    assert len(submitted.effects.wakes) == 1


async def test_a_late_duplicate_gets_a_receipt_with_the_state(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.advance(2.1)
    again = await ledger.submit(new_job())
    body = json.loads(again.effects.deliveries[0].body)
    assert (body["verdict"], body["state"]) == ("duplicate", "queued")
    assert again.age_seconds > 2


async def test_a_bare_window_slides_and_ends(ledger: SteppedLedger) -> None:
    for name, expected in (("a", "a"), ("b", "a"), ("c", "a")):
        answer = await ledger.submit(new_job(name, content_hash="same", recent_seconds=1.0))
        assert answer.job_id == expected
        await ledger.advance(0.6)
    await ledger.advance(0.6)
    later = await ledger.submit(new_job("d", content_hash="same", recent_seconds=1.0))
    assert (later.verdict, later.job_id) == ("accepted", "d")


async def test_a_live_agent_makes_the_note_go(ledger: SteppedLedger) -> None:
    await join(ledger)
    assert (await ledger.submit(new_job())).note is None


async def test_children_have_the_ids_of_their_place(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger, "r1", "research", "writing", "editing")
    await ledger.submit(new_job())
    first = await claim_one(ledger, incarnation)
    assert first.fence.task_id == task_id_of("job-1", "", 0)
    items = (NextTask(slot=0, capability="writing"), NextTask(slot=1, agent="r1"))
    written = await ledger.finish(first.fence, finish("x", *items), "job-1")
    assert [wake.task_id for wake in written.effects.wakes] == [
        task_id_of("job-1", first.fence.task_id, slot) for slot in (0, 1)
    ]
    assert [wake.pool for wake in written.effects.wakes] == ["writing", "agent.r1"]
    assert (await ledger.jobs())[0].open_tasks == 2


async def test_a_job_ends_with_its_last_open_task(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger, "r1", "research", "writing")
    await ledger.submit(new_job())
    first = await claim_one(ledger, incarnation)
    items = (NextTask(slot=0, capability="writing"), NextTask(slot=1, capability="writing"))
    await ledger.finish(first.fence, finish("x", *items), "job-1")
    one, two = await ledger.claim_batch(incarnation, 5)
    assert (await ledger.finish(one.fence, finish("one"), "job-1")).job_state is JobState.RUNNING
    done = await ledger.finish(two.fence, finish("two"), "job-1")
    assert done.job_state is JobState.COMPLETED
    final = json.loads((await ledger.job("job-1")).final or "")
    # The first branch speaks, whichever ended last.
    assert (len(final["route"]), final["result"]["text"]) == (3, "one")


async def test_two_children_in_one_slot_are_refused_and_nothing_is_written(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    twins = (NextTask(capability="research"), NextTask(capability="writing"))
    with pytest.raises(InputRefused):
        await ledger.finish(claim.fence, finish("x", *twins), "job-1")
    detail = await ledger.job("job-1")
    assert [task.state for task in detail.tasks] == [TaskState.IN_PROGRESS]
    assert detail.job.usage.input_tokens == 0
    assert (await ledger.finish(claim.fence, finish(), "job-1")).job_state is JobState.COMPLETED


async def test_a_person_hands_nothing_on_beyond_the_hop_limit(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job(max_hops=1))
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish("a draft", escalate=True), "job-1")
    onward = NextTask(capability="writing")
    with pytest.raises(Conflict, match="hop limit of 1"):
        await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann", next=onward)
    written = await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert written.job_state is JobState.COMPLETED


async def test_a_verification_is_no_hop_of_the_way(ledger: SteppedLedger) -> None:
    await join(ledger)
    judge = await join(ledger, "j1", "judging")
    await ledger.submit(new_job(max_hops=1))
    claim = await claim_one(ledger, "r1-incarnation")
    await ledger.finish(claim.fence, finish("42", verify=NextTask(capability="judging")), "job-1")
    verdict = await claim_one(ledger, judge)
    written = await ledger.finish(verdict.fence, finish("yes", verdict="approved"), "job-1")
    assert written.job_state is JobState.COMPLETED


async def test_a_question_for_a_person_keeps_the_job_open(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    written = await ledger.finish(claim.fence, finish("a draft", escalate=True), "job-1")
    assert (written.task_state, written.job_state) == (TaskState.ESCALATED, JobState.WAITING)
    assert (await ledger.cancel("job-1", "me")).job_state is JobState.CANCELLED


async def test_the_conversation_hears_of_a_failure(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job(conversation_id="talk", wire_task_id="wire-1"))
    claim = await claim_one(ledger, incarnation)
    failure = Failure(code="budget", message="x" * 600, retryable=False)
    written = await ledger.fail(claim.fence, failure)
    body = json.loads(written.effects.deliveries[0].body)
    assert body["task_id"] == "wire-1"
    assert (body["error"]["code"], len(body["error"]["message"])) == ("internal_error", 500)


async def test_a_wish_to_wait_is_granted(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    failure = Failure(code="llm_error", message="slow down", retryable=True, retry_after=2.5)
    await ledger.fail(claim.fence, failure)
    (task,) = (await ledger.job("job-1")).tasks
    assert (task.state, task.attempt) == (TaskState.QUEUED, 1)
    assert task.run_after - ledger.time() > timedelta(seconds=1.5)
    reply = await ledger.beat(Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=4))
    assert reply.next_due_seconds is not None
    assert 1.5 < reply.next_due_seconds <= 2.5


async def test_a_checkpoint_is_what_the_next_owner_finds(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    kept = {"draft.md": FileRef("b" * 64, 5, "text/markdown", "draft.md")}
    assert (await ledger.checkpoint(claim.fence, kept)).verdict == "ok"
    await ledger.release(claim.fence, "drain")
    assert (await claim_one(ledger, incarnation)).manifest == kept


async def test_an_owner_past_the_deadline_is_told_and_stops(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job(deadline=ledger.time() + timedelta(seconds=0.5)))
    claim = await claim_one(ledger, incarnation)
    await ledger.advance(0.6)
    beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=3, held=(claim.fence,))
    assert (await ledger.beat(beat)).tasks == {claim.fence.task_id: "expire"}
    stopped = await ledger.stop_task(claim.fence, "half of it")
    assert (stopped.task_state, stopped.job_state) == (TaskState.EXPIRED, JobState.EXPIRED)
    final = json.loads((await ledger.job("job-1")).final or "")
    assert (final["result"]["text"], final["error"]["code"]) == ("half of it", "expired")


async def test_a_cancelled_owner_that_died_leaves_a_cancelled_task(hasty: SteppedLedger) -> None:
    incarnation = await join(hasty)
    await hasty.submit(new_job())
    await claim_one(hasty, incarnation)
    await hasty.cancel("job-1", "me")

    async def reaped() -> object:
        return (await hasty.reap()).changes

    await hasty.until(reaped)
    assert (await hasty.job("job-1")).job.state is JobState.CANCELLED


async def test_a_second_singleton_is_turned_away(ledger: SteppedLedger) -> None:
    def record(incarnation: str) -> AgentRecord:
        return AgentRecord(
            agent_id="judge", incarnation=incarnation, capabilities=("judging",), singleton=True
        )

    await ledger.register(record("one"))
    with pytest.raises(Conflict):
        await ledger.register(record("two"))
    await ledger.stopped("one")
    await ledger.register(record("two"))
    assert {row.incarnation for row in await ledger.agents()} == {"one", "two"}


async def test_an_unknown_incarnation_is_told_to_register(ledger: SteppedLedger) -> None:
    reply = await ledger.beat(Beat(incarnation="nobody", state=AgentState.RUNNING, free_slots=1))
    assert (reply.known, reply.backlog) == (False, False)


async def test_a_claim_is_shown_while_it_lasts(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)

    async def shown() -> object:
        await ledger.refresh_board()
        return await ledger.lease_board(10)

    (row,) = await ledger.until(shown)
    assert (row.kind, row.key) == ("claim", (claim.fence.task_id, "1"))
    assert claim.fence.token not in row.payload
    await ledger.board_sent([row])
    await ledger.finish(claim.fence, finish(), "job-1")
    await ledger.advance(0.3)
    await ledger.refresh_board()
    rows = {message.kind: message for message in await ledger.lease_board(10)}
    assert rows["claim"].payload is None
    assert set(rows) == {"claim", "result"}


async def test_a_change_after_the_lease_is_sent_again(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())

    async def shown() -> object:
        await ledger.refresh_board()
        return await ledger.lease_board(10)

    rows = await ledger.until(shown)
    await ledger.cancel("job-1", "me")
    await ledger.advance(0.3)
    await ledger.refresh_board()
    await ledger.board_sent(rows)
    again = {message.kind: message for message in await ledger.lease_board(10)}
    assert again["open"].payload is None


async def test_a_broker_that_forgot_gets_every_topic_again(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "me")
    rows = await ledger.lease_board(10)
    await ledger.board_sent(rows)
    assert await ledger.lease_board(10) == ()
    await ledger.board_reset()
    assert [row.key for row in await ledger.lease_board(10)] == [("job-1",)]


async def test_a_delivery_that_was_sent_is_no_leftover(ledger: SteppedLedger) -> None:
    submitted = await ledger.submit(new_job())
    await ledger.outbox_sent([row.id for row in submitted.effects.deliveries])
    await ledger.advance(2.2)
    assert await ledger.take_outbox(10) == ()


async def test_the_detail_tells_the_way_and_its_reasons(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger, "r1", "research", "writing")
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    next_ = NextTask(capability="writing", reason="notes are ready")
    await ledger.finish(claim.fence, finish("notes", next_), "job-1")
    detail = await ledger.job("job-1")
    assert [(task.hop, task.state, task.reason) for task in detail.tasks] == [
        (1, TaskState.COMPLETED, "submitted"),
        (2, TaskState.QUEUED, "notes are ready"),
    ]
    assert detail.tasks[0].decision is not None
    assert detail.final is None
    changes = await ledger.changes("job-1")
    assert [change.type for _, change in changes] == [
        "job.accepted",
        "task.claimed",
        "task.completed",
        "task.queued",
    ]
    assert await ledger.changes("job-1", changes[1][0]) == changes[2:]
    assert [row.job_id for row in await ledger.jobs(state=JobState.RUNNING)] == ["job-1"]
    assert await ledger.jobs(state=JobState.QUEUED) == ()


async def test_what_stopped_is_cleared_from_the_broker_once(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    assert (await ledger.retire()).agents == ()
    await ledger.stopped(incarnation)
    assert [row.incarnation for row in (await ledger.retire()).agents] == [incarnation]
    assert (await ledger.retire()).agents == ()


async def test_the_board_tells_what_a_broker_should_hold_and_what_it_lost(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "me")
    (unsent,) = await ledger.board_shown(("result",))
    assert (unsent.kind, unsent.key, unsent.sent) == ("result", ("job-1",), False)
    assert await ledger.board_lost((unsent,)) == 0, "what was never sent is not lost"
    rows = await ledger.lease_board(10)
    await ledger.board_sent(rows)
    (shown,) = await ledger.board_shown(("result",))
    payload = next(row.payload for row in rows if row.kind == "result")
    assert shown.sent
    assert payload is not None
    assert shown.digest == hashlib.sha256(payload.encode()).hexdigest()
    assert await ledger.board_lost((msgspec.structs.replace(shown, version=shown.version + 1),)) == 0
    assert await ledger.board_lost((shown,)) == 1
    assert [row.key for row in await ledger.lease_board(10)] == [("job-1",)]


async def test_the_board_is_read_in_slices(ledger: SteppedLedger) -> None:
    for number in range(5):
        await ledger.submit(new_job(f"job-{number}"))
        await ledger.cancel(f"job-{number}", "me")
    first = await ledger.board_shown(("result",), limit=2)
    rest = await ledger.board_shown(("result",), after=first[-1].key, limit=10)
    assert [row.key for row in (*first, *rest)] == [(f"job-{number}",) for number in range(5)]
    assert await ledger.board_shown(("open", "claim")) == ()


async def test_a_pool_never_has_more_than_a_hundred_open_topics_on_the_broker(ledger: SteppedLedger) -> None:
    for number in range(130):
        await ledger.submit(new_job(f"job-{number}"))
    await ledger.advance(0.3)
    held: set[tuple[str, ...]] = set()

    async def dispatch(*, half: bool = False) -> None:
        await ledger.advance(0.3)
        await ledger.refresh_board()
        rows = [row for row in await ledger.lease_board(500) if row.kind == "open"]
        # A sender that dies on its way sends nothing of the rest, and clears may be what is left.
        rows = [row for row in rows if row.payload is not None] if half else rows
        for row in rows:
            (held.discard if row.payload is None else held.add)(row.key)
        await ledger.board_sent(rows)

    await dispatch()
    assert len(held) == 100
    for number in range(60):
        await ledger.cancel(f"job-{number}", "me")
    await dispatch(half=True)
    assert len(held) == 100, "what still has to be cleared keeps its place"
    await ledger.advance(10.1)
    await dispatch()
    await dispatch()
    assert len(held) == 70
