"""What every ledger promises."""

import asyncio
import json
from datetime import timedelta

import pytest

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger.fleet import Beat
from agent2389.ledger.records import Failure, Fence, FileRef, NextTask, Rejection
from agent2389.ledger.states import AgentState, JobState, TaskState
from agent2389.ledger.views import Unsent
from tests.contract.conftest import SHORT_LEASE
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger


async def test_the_same_job_is_a_duplicate_and_other_content_a_conflict(ledger: SteppedLedger) -> None:
    first = await ledger.submit(new_job())
    again = await ledger.submit(new_job())
    other = await ledger.submit(new_job(content_hash="other"))
    assert (first.verdict, again.verdict, other.verdict) == ("accepted", "duplicate", "conflict")
    assert first.note == "no_live_agent"
    assert [json.loads(row.body)["verdict"] for row in first.effects.deliveries] == ["accepted"]
    assert not again.effects.deliveries, "a repeat within two seconds gets no second receipt"
    assert json.loads(other.effects.deliveries[0].body)["code"] == "conflict"


async def test_a_bare_topic_reuses_recent_content(ledger: SteppedLedger) -> None:
    first = await ledger.submit(new_job("a", content_hash="same", recent_seconds=60))
    second = await ledger.submit(new_job("b", content_hash="same", recent_seconds=60))
    assert (second.verdict, second.job_id) == ("duplicate", first.job_id)


async def test_a_reply_topic_gets_the_receipt_too(ledger: SteppedLedger) -> None:
    submitted = await ledger.submit(new_job(reply_to="agent2389/v1/default/replies/me", correlation="abcd"))
    topics = [row.topic for row in submitted.effects.deliveries]
    assert topics == [None, "agent2389/v1/default/replies/me"]


async def test_a_job_expired_on_arrival_is_refused(ledger: SteppedLedger) -> None:
    with pytest.raises(InputRefused) as refused:
        await ledger.submit(new_job(deadline=ledger.time() - timedelta(seconds=1)))
    assert refused.value.code == "expired"
    assert str(refused.value) == "the deadline passed before the job arrived"
    assert await ledger.jobs() == ()


async def test_urgent_work_comes_first_then_older_work(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    for name, priority in (("old", 5), ("new", 5), ("urgent", 9), ("later", 0)):
        await ledger.submit(new_job(name, priority=priority))
    order = [claim.job_id for claim in await ledger.claim_batch(incarnation, 10)]
    assert order == ["urgent", "old", "new", "later"]


async def test_one_task_has_one_winner(ledger: SteppedLedger) -> None:
    incarnations = [await join(ledger, f"agent{number}") for number in range(6)]
    submitted = await ledger.submit(new_job())
    task_id = submitted.effects.wakes[0].task_id
    claims = await asyncio.gather(*(ledger.claim(task_id, who) for who in incarnations))
    assert sum(claim is not None for claim in claims) == 1


async def test_only_running_agents_of_the_pool_claim(ledger: SteppedLedger) -> None:
    paused = await join(ledger, "paused", state="paused")
    other = await join(ledger, "other", "writing")
    bound = await join(ledger, "bound", "writing")
    await ledger.submit(new_job())
    await ledger.submit(new_job("for-bound", capability=None, agent="bound"))
    assert await ledger.claim_batch(paused, 5) == []
    assert await ledger.claim_batch(other, 5) == []
    assert [claim.job_id for claim in await ledger.claim_batch(bound, 5)] == ["for-bound"]


async def test_work_that_is_not_due_waits_and_rings_when_it_is(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    submitted = await ledger.submit(new_job(not_before=ledger.time() + timedelta(seconds=0.5)))
    assert not submitted.effects.wakes
    assert await ledger.claim_batch(incarnation, 1) == []
    wakes = await ledger.until(ledger.ring_due)
    assert [wake.job_id for wake in wakes] == ["job-1"]
    assert (await claim_one(ledger, incarnation)).job_id == "job-1"


async def test_a_job_runs_over_two_hops_with_history_files_and_cost(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger, "r1", "research", "writing")
    file = FileRef("a" * 64, 3, "text/plain", "source.txt", "abc")
    await ledger.submit(new_job(files=(file,), conversation_id="talk"))
    first = await claim_one(ledger, incarnation)
    assert first.manifest == {"source.txt": file}
    next_ = NextTask(capability="writing", reason="notes are ready", input="the notes")
    written = await ledger.finish(first.fence, finish("notes", next_, manifest=first.manifest), "job-1")
    assert (written.verdict, written.job_state) == ("ok", JobState.RUNNING)
    assert [wake.pool for wake in written.effects.wakes] == ["writing"]
    second = await claim_one(ledger, incarnation)
    assert (second.hop, second.input, second.manifest) == (2, "the notes", {"source.txt": file})
    assert [step.text for step in second.history] == ["notes"]
    assert (second.used.input_tokens, second.used.cost_usd) == (3, 0.25)
    done = await ledger.finish(second.fence, finish("the text", rehearsal=True), "job-1")
    assert done.job_state is JobState.COMPLETED
    answer = done.effects.deliveries[0]
    assert (answer.kind, answer.conversation_id, answer.agent_id) == ("conversation", "talk", "r1")
    assert json.loads(answer.body) == {"response": "the text", "task_id": second.fence.task_id}
    final = json.loads((await ledger.job("job-1")).final or "")
    assert (final["state"], final["result"]["text"], final["rehearsal"]) == ("completed", "the text", True)
    assert final["usage"] == {"tokens": 10, "cost_usd": 0.5}
    assert [(hop["hop"], hop["capability"], hop["agent_id"]) for hop in final["route"]] == [
        (1, "research", "r1"),
        (2, "writing", "r1"),
    ]
    assert all(hop["finished_at"].endswith("Z") for hop in final["route"])


async def test_a_repeated_finish_changes_nothing(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish("first"), "job-1")
    again = await ledger.finish(claim.fence, finish("second"), "job-1")
    assert again.verdict == "already"
    assert json.loads((await ledger.job("job-1")).final or "")["result"]["text"] == "first"


@pytest.mark.parametrize("which", ["token", "epoch"])
async def test_whoever_lacks_the_fence_changes_nothing(ledger: SteppedLedger, which: str) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    good = (await claim_one(ledger, incarnation)).fence
    stale = (
        Fence(good.task_id, good.epoch, "0" * 32)
        if which == "token"
        else Fence(good.task_id, good.epoch - 1, good.token)
    )
    failure = Failure(code="llm_error", message="x", retryable=False)
    for write in (
        ledger.finish(stale, finish(), "job-1"),
        ledger.fail(stale, failure),
        ledger.release(stale, "drain"),
        ledger.stop_task(stale, ""),
        ledger.checkpoint(stale, {}),
    ):
        assert (await write).verdict == "fenced"
    beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=3, held=(stale,))
    assert (await ledger.beat(beat)).tasks == {good.task_id: "lost"}
    assert (await ledger.job("job-1")).tasks[0].state is TaskState.IN_PROGRESS
    assert (await ledger.finish(good, finish(), "job-1")).verdict == "ok"


async def test_a_zombie_cannot_close_the_next_attempt(hasty: SteppedLedger) -> None:
    dead, alive = await join(hasty, "dead"), await join(hasty, "alive")
    await hasty.submit(new_job())
    zombie = await claim_one(hasty, dead)
    effects = await hasty.until(lambda: _reaped(hasty))
    assert [wake.epoch for wake in effects.wakes] == [1]
    fresh = await claim_one(hasty, alive)
    assert (fresh.fence.epoch, fresh.crashes, fresh.attempt) == (2, 1, 0)
    assert (await hasty.finish(zombie.fence, finish("late"), "job-1")).verdict == "fenced"
    assert (await hasty.finish(fresh.fence, finish("good"), "job-1")).verdict == "ok"
    detail = await hasty.job("job-1")
    assert json.loads(detail.final or "")["result"]["text"] == "good"
    assert "task.fenced" in [change.type for change in detail.changes]


async def _reaped(ledger: SteppedLedger) -> object:
    effects = await ledger.reap()
    return effects if effects.wakes or effects.changes else None


async def test_a_task_that_kills_three_owners_is_poison(hasty: SteppedLedger) -> None:
    incarnation = await join(hasty)
    await hasty.submit(new_job())
    for _ in range(3):
        await claim_one(hasty, incarnation)
        await hasty.until(lambda: _reaped(hasty))
    final = json.loads((await hasty.job("job-1")).final or "")
    assert final["state"] == "failed"
    assert "died 3 times" in final["error"]["message"]
    assert await hasty.claim_batch(incarnation, 1) == []


async def test_the_beat_extends_a_lease(hasty: SteppedLedger) -> None:
    incarnation = await join(hasty)
    await hasty.submit(new_job())
    claim = await claim_one(hasty, incarnation)
    end = hasty.time() + timedelta(seconds=3 * SHORT_LEASE)
    while hasty.time() < end:
        beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=3, held=(claim.fence,))
        assert (await hasty.beat(beat)).tasks == {claim.fence.task_id: "ok"}
        assert not (await hasty.reap()).wakes
        await hasty.advance(SHORT_LEASE / 4)
    assert (await hasty.finish(claim.fence, finish(), "job-1")).verdict == "ok"


async def test_failures_are_tried_again_and_end_the_job_at_last(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    failure = Failure(code="llm_error", message="the endpoint is away", retryable=True)
    for attempt in range(3):
        claims = await ledger.until(lambda: ledger.claim_batch(incarnation, 1), seconds=15)
        assert claims[0].attempt == attempt
        written = await ledger.fail(claims[0].fence, failure)
    assert (written.task_state, written.job_state) == (TaskState.DEAD, JobState.FAILED)
    final = json.loads((await ledger.job("job-1")).final or "")
    assert final["error"] == {"code": "llm_error", "message": "the endpoint is away"}


async def test_what_cannot_succeed_is_not_tried_again(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    failure = Failure(code="invalid_input", message="nonsense", retryable=False, partial="so far")
    assert (await ledger.fail(claim.fence, failure)).job_state is JobState.FAILED
    assert json.loads((await ledger.job("job-1")).final or "")["result"]["text"] == "so far"


async def test_a_released_task_burns_no_attempt(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    written = await ledger.release(claim.fence, "drain")
    assert (written.task_state, len(written.effects.wakes)) == (TaskState.QUEUED, 1)
    again = await claim_one(ledger, incarnation)
    assert (again.attempt, again.crashes, again.fence.epoch) == (0, 0, 2)


async def test_cancel_of_waiting_work_is_at_once(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    written = await ledger.cancel("job-1", "me")
    assert (written.verdict, written.job_state) == ("ok", JobState.CANCELLED)
    assert (await ledger.cancel("job-1", "me")).verdict == "already"
    with pytest.raises(NotFound):
        await ledger.cancel("nobody", "me")


async def test_cancel_of_owned_work_goes_through_the_owner(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    assert (await ledger.cancel("job-1", "me")).job_state is JobState.RUNNING
    beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=3, held=(claim.fence,))
    assert (await ledger.beat(beat)).tasks == {claim.fence.task_id: "cancel"}
    assert (await ledger.finish(claim.fence, finish("late"), "job-1")).verdict == "cancel"
    stopped = await ledger.stop_task(claim.fence, "half of it")
    assert stopped.job_state is JobState.CANCELLED


async def test_a_deadline_ends_waiting_work(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job(deadline=ledger.time() + timedelta(seconds=0.3)))
    await ledger.until(lambda: _reaped(ledger))
    assert json.loads((await ledger.job("job-1")).final or "")["state"] == "expired"


async def test_the_hop_limit_fails_the_job_with_a_reason(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job(max_hops=1))
    claim = await claim_one(ledger, incarnation)
    written = await ledger.finish(claim.fence, finish("x", NextTask(capability="research")), "job-1")
    assert written.job_state is JobState.FAILED
    assert "hop limit of 1" in json.loads((await ledger.job("job-1")).final or "")["error"]["message"]


async def test_the_board_shows_what_lasts_and_sends_each_version_once(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())

    async def open_row() -> object:
        await ledger.refresh_board()
        return await ledger.lease_board(10)

    rows = await ledger.until(open_row)
    assert [(row.kind, row.key[0]) for row in rows] == [("open", "research")]
    await ledger.board_sent(rows)
    assert await ledger.lease_board(10) == ()
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish(), "job-1")

    async def both() -> object:
        await ledger.refresh_board()
        found = await ledger.lease_board(10)
        return {row.kind: row for row in found} if found else None

    rows_by_kind = await ledger.until(both)
    assert json.loads(rows_by_kind["result"].payload)["job_id"] == "job-1"
    seen = set(rows_by_kind)
    if "open" not in seen:
        seen |= set(await ledger.until(both))
    assert seen == {"open", "result"}


async def test_a_state_too_short_to_see_never_reaches_the_board(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "me")
    await ledger.refresh_board()
    assert [row.kind for row in await ledger.lease_board(10)] == ["result"]


async def test_leftover_deliveries_are_taken_once(ledger: SteppedLedger) -> None:
    submitted = await ledger.submit(new_job())
    leftovers = await ledger.until(lambda: ledger.take_outbox(10))
    assert [row.id for row in leftovers] == [row.id for row in submitted.effects.deliveries]
    assert await ledger.take_outbox(10) == ()
    await ledger.outbox_sent([row.id for row in leftovers])


async def test_blobs_by_content(ledger: SteppedLedger) -> None:
    digest = await ledger.put_blob(b"content", "text/plain")
    assert digest == await ledger.put_blob(b"content", "text/plain")
    assert (await ledger.get_blob(digest)).content == b"content"
    assert await ledger.missing_blobs([digest, "f" * 64]) == ["f" * 64]
    with pytest.raises(NotFound):
        await ledger.get_blob("f" * 64)


async def test_a_refused_message_is_evidence_once(ledger: SteppedLedger) -> None:
    rejection = Rejection(topic="t", payload_sha256="x", size=1, code="malformed")
    assert await ledger.reject(rejection) is True
    assert await ledger.reject(rejection) is False


async def test_reads(ledger: SteppedLedger) -> None:
    await join(ledger, "r1", "research")
    for name in ("one", "two", "three"):
        await ledger.submit(new_job(name))
    assert [job.job_id for job in await ledger.jobs(limit=2)] == ["three", "two"]
    assert [job.job_id for job in await ledger.jobs(before="two")] == ["one"]
    assert list(await ledger.find_jobs("t")) == ["three", "two"]
    assert list(await ledger.find_jobs("@last")) == ["three"]
    pools = {pool.pool: pool for pool in await ledger.pools()}
    assert (pools["research"].queued, pools["research"].agents) == (3, 1)
    assert await ledger.job_counts() == {JobState.QUEUED: 3}
    with pytest.raises(NotFound):
        await ledger.job("nobody")


async def test_what_is_not_sent_is_counted_from_its_oldest(ledger: SteppedLedger) -> None:
    assert await ledger.unsent() == Unsent(pending=0, oldest_seconds=0.0)
    first = await ledger.submit(new_job("one"))
    await ledger.advance(0.2)
    second = await ledger.submit(new_job("two"))
    unsent = await ledger.unsent()
    assert (unsent.pending, unsent.oldest_seconds >= 0.2) == (2, True)
    await ledger.outbox_sent([row.id for row in first.effects.deliveries])
    assert (await ledger.unsent()).oldest_seconds < unsent.oldest_seconds
    await ledger.outbox_sent([row.id for row in second.effects.deliveries])
    assert (await ledger.unsent()).pending == 0


async def test_the_beat_tells_peers_backlog_and_late_chores(ledger: SteppedLedger) -> None:
    one, two = await join(ledger, "one"), await join(ledger, "two")
    reply = await ledger.beat(Beat(incarnation=one, state=AgentState.RUNNING, free_slots=4))
    assert reply.peers is not None
    assert set(reply.peers["research"]) == {one, two}
    assert "reap" in reply.due
    assert reply.ops_alive is False
    await ledger.submit(new_job())
    beat = Beat(incarnation=one, state=AgentState.RUNNING, free_slots=4, known_peers=reply.peers_digest)
    assert not (await ledger.beat(beat)).backlog, "what came this moment has its doorbell"
    await ledger.advance(1.1)
    again = await ledger.beat(beat)
    assert (again.peers, again.backlog) == (None, True)
    assert await ledger.take_chore("reap", 5.0) is True
    assert await ledger.take_chore("reap", 5.0) is False


async def test_stop_tells_whether_the_agent_id_is_gone(ledger: SteppedLedger) -> None:
    one = await join(ledger, "same")
    await ledger.submit(new_job())
    assert await ledger.stopped(one) is True
    assert await ledger.claim_batch(one, 1) == []
