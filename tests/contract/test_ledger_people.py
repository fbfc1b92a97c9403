"""What people, judges, timers and approvals do to a task, on every ledger."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from agent2389.errors import Conflict, InputRefused, NotFound
from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.records import ApprovalRequest, Claim, Failure, Fence, NextTask, Waiting
from agent2389.ledger.states import AgentState, JobState, TaskState
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger

JUDGE = NextTask(capability="judging", instruction="Is it right?")


async def _escalated(ledger: SteppedLedger, *, answer: str = "a draft") -> Claim:
    incarnation = await join(ledger, "r1", "research", "writing")
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    written = await ledger.finish(claim.fence, finish(answer, escalate=True), "job-1")
    assert (written.task_state, written.job_state) == (TaskState.ESCALATED, JobState.WAITING)
    return claim


async def _state(ledger: SteppedLedger, job_id: str = "job-1") -> JobState:
    return (await ledger.job(job_id)).job.state


async def _final(ledger: SteppedLedger, job_id: str = "job-1") -> str:
    final = json.loads((await ledger.job(job_id)).final or "{}")
    return str(final.get("result", {}).get("text"))


# T21: a person is asked -----------------------------------------------------------


async def test_an_accepted_draft_is_the_result(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    written = await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert (written.verdict, written.job_state) == ("ok", JobState.COMPLETED)
    assert await _final(ledger) == "a draft"


async def test_an_answer_of_a_person_is_the_result(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    await ledger.decide(claim.fence.task_id, "answer", job_id="job-1", actor="ann", words="mine")
    assert await _final(ledger) == "mine"
    changes = (await ledger.job("job-1")).changes
    assert [c.data["actor"] for c in changes if c.type == "task.answer_by_person"] == ["ann"]


async def test_a_retry_brings_the_guidance_to_the_next_owner(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    written = await ledger.decide(
        claim.fence.task_id, "retry", job_id="job-1", actor="ann", words="shorter, please"
    )
    assert [wake.task_id for wake in written.effects.wakes] == [claim.fence.task_id]
    again = await claim_one(ledger, "r1-incarnation")
    assert (again.feedback, again.attempt, again.fence.epoch) == ("shorter, please", 0, 2)


async def test_a_draft_that_was_sent_back_is_not_what_a_failed_job_leaves(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    await ledger.decide(claim.fence.task_id, "retry", job_id="job-1", actor="ann")
    again = await claim_one(ledger, "r1-incarnation")
    await ledger.fail(again.fence, Failure(code="llm_error", message="no", retryable=False))
    assert await _state(ledger) is JobState.FAILED
    assert "result" not in json.loads((await ledger.job("job-1")).final or "{}")


async def test_a_person_may_hand_on(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    onward = NextTask(capability="writing", reason="ann wants prose")
    await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann", next=onward)
    assert (await claim_one(ledger, "r1-incarnation")).capability == "writing"


async def test_a_person_may_cancel(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    await ledger.decide(claim.fence.task_id, "cancel", job_id="job-1", actor="ann")
    assert await _state(ledger) is JobState.CANCELLED


async def test_nobody_decides_where_nobody_is_asked(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    with pytest.raises(Conflict, match="does not wait for a person"):
        await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann")
    with pytest.raises(NotFound):
        await ledger.decide("no-such-task", "accept", job_id="job-1", actor="ann")


async def test_words_are_needed_for_an_answer_and_a_known_action(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    for action in ("answer", "shout"):
        with pytest.raises(InputRefused):
            await ledger.decide(claim.fence.task_id, action, job_id="job-1", actor="ann")
    assert await _state(ledger) is JobState.WAITING


async def test_deadlines_do_not_run_while_a_person_is_asked(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job(deadline=ledger.time() + timedelta(seconds=1)))
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish(escalate=True), "job-1")
    await ledger.advance(1.2)
    await ledger.reap()
    assert await _state(ledger) is JobState.WAITING
    await ledger.decide(claim.fence.task_id, "retry", job_id="job-1", actor="ann")
    assert (await claim_one(ledger, incarnation)).fence.epoch == 2


async def test_an_exhausted_task_may_ask_a_person_instead_of_dying(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    failure = Failure(code="llm_error", message="no", retryable=False, escalate=True)
    assert (await ledger.fail(claim.fence, failure)).task_state is TaskState.ESCALATED


# T28, T29: people take work away ----------------------------------------------------


async def test_a_person_takes_waiting_work(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    written = await ledger.escalate("job-1", "ann", reason="let me see")
    assert (written.verdict, written.job_state) == ("ok", JobState.WAITING)


async def test_a_person_takes_owned_work_through_the_beat(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.escalate("job-1", "ann", reason="let me see")
    beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=3, held=(claim.fence,))
    assert (await ledger.beat(beat)).tasks == {claim.fence.task_id: "escalate"}
    assert (await ledger.finish(claim.fence, finish(), "job-1")).verdict == "cancel"
    assert (await ledger.stop_task(claim.fence, "half")).task_state is TaskState.ESCALATED
    await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert await _final(ledger) == "half"


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_failure_goes_to_the_person_who_took_the_task(ledger: SteppedLedger, retryable: bool) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.escalate("job-1", "ann", reason="let me see")
    failure = Failure(code="llm_error", message="no", retryable=retryable, partial="half")
    written = await ledger.fail(claim.fence, failure)
    assert (written.task_state, written.job_state) == (TaskState.ESCALATED, JobState.WAITING)
    await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert await _final(ledger) == "half"


async def test_escalated_work_can_still_be_cancelled(ledger: SteppedLedger) -> None:
    await _escalated(ledger)
    assert (await ledger.cancel("job-1", "ann")).job_state is JobState.CANCELLED


# T22: clones ------------------------------------------------------------------------


async def test_an_ended_job_runs_again_as_a_clone(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    with pytest.raises(Conflict, match="open"):
        await ledger.clone("job-1", "job-2", "ann")
    await ledger.cancel("job-1", "ann")
    made = await ledger.clone("job-1", "job-2", "ann")
    assert (made.job_id, made.state, len(made.effects.wakes)) == ("job-2", JobState.QUEUED, 1)
    claim = await claim_one(ledger, incarnation)
    assert (claim.job_id, claim.instruction) == ("job-2", "do it")
    assert await _state(ledger) is JobState.CANCELLED


async def test_a_clone_takes_no_id_that_is_taken(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.submit(new_job("job-2"))
    await ledger.cancel("job-1", "ann")
    with pytest.raises(Conflict, match="another job has this id") as refused:
        await ledger.clone("job-1", "job-2", "ann")
    assert refused.value.hint is None, "only a singleton agent has another one to stop"


async def test_a_correction_is_a_completed_clone(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish("wrong"), "job-1")
    made = await ledger.clone("job-1", "job-2", "ann", correction="right")
    assert made.state is JobState.COMPLETED
    assert (await _final(ledger), await _final(ledger, "job-2")) == ("wrong", "right")


# T16, T17, T31: verdicts --------------------------------------------------------------


async def _judged(ledger: SteppedLedger, *next_: NextTask, **changes: Any) -> tuple[Claim, Claim]:
    await join(ledger, "r1", "research", "writing", "judging")
    await join(ledger, "j1", "judging")
    await ledger.submit(new_job(**changes))
    made = await claim_one(ledger, "r1-incarnation")
    written = await ledger.finish(made.fence, finish("42", *next_, verify=JUDGE), "job-1")
    assert (written.task_state, written.job_state) == (TaskState.COMPLETED, JobState.RUNNING)
    assert await ledger.claim_batch("r1-incarnation", 5) == []
    verdict = await claim_one(ledger, "j1-incarnation")
    assert (verdict.verifies, verdict.input["answer"]) == (made.fence.task_id, "42")
    return made, verdict


async def test_an_approved_result_counts_and_the_work_goes_on(ledger: SteppedLedger) -> None:
    made, verdict = await _judged(ledger, NextTask(capability="writing"))
    written = await ledger.finish(verdict.fence, finish("yes", verdict="approved"), "job-1")
    assert [wake.pool for wake in written.effects.wakes] == ["writing"]
    rows = {task.task_id: task.state for task in (await ledger.job("job-1")).tasks}
    assert rows[made.fence.task_id] is TaskState.VERIFIED
    last = await claim_one(ledger, "r1-incarnation")
    await ledger.finish(last.fence, finish("the end"), "job-1")
    assert await _final(ledger) == "the end"


async def test_a_refused_result_is_made_again_with_the_reason(ledger: SteppedLedger) -> None:
    made, verdict = await _judged(ledger)
    await ledger.finish(verdict.fence, finish("the sum is wrong", verdict="refused"), "job-1")
    again = await claim_one(ledger, "r1-incarnation")
    assert (again.fence.task_id, again.feedback, again.attempt) == (
        made.fence.task_id,
        "the sum is wrong",
        1,
    )
    await ledger.finish(again.fence, finish("43", verify=JUDGE), "job-1")
    second = await claim_one(ledger, "j1-incarnation")
    await ledger.finish(second.fence, finish("yes", verdict="approved"), "job-1")
    assert await _final(ledger) == "43"


async def test_a_result_refused_too_often_goes_to_a_person(ledger: SteppedLedger) -> None:
    _, verdict = await _judged(ledger)
    for _ in range(2):
        await ledger.finish(verdict.fence, finish("no", verdict="refused"), "job-1")
        again = await claim_one(ledger, "r1-incarnation")
        await ledger.finish(again.fence, finish("42", verify=JUDGE), "job-1")
        verdict = await claim_one(ledger, "j1-incarnation")
    await ledger.finish(verdict.fence, finish("no", verdict="refused"), "job-1")
    assert await _state(ledger) is JobState.WAITING


async def test_no_verdict_goes_to_a_person_and_fails_nothing(ledger: SteppedLedger) -> None:
    made, verdict = await _judged(ledger)
    await ledger.fail(verdict.fence, Failure(code="llm_error", message="cannot", retryable=False))
    assert await _state(ledger) is JobState.WAITING
    await ledger.decide(made.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert (await _state(ledger), await _final(ledger)) == (JobState.COMPLETED, "42")


async def _judge_asks_a_person(
    ledger: SteppedLedger, *next_: NextTask, **changes: Any
) -> tuple[Claim, Claim]:
    made, verdict = await _judged(ledger, *next_, **changes)
    await ledger.finish(verdict.fence, finish("I cannot tell", escalate=True), "job-1")
    return made, verdict


@pytest.mark.parametrize("action", ["accept", "answer"])
async def test_a_person_in_the_judges_place_lets_the_result_stand(ledger: SteppedLedger, action: str) -> None:
    made, verdict = await _judge_asks_a_person(ledger, NextTask(capability="writing"))
    written = await ledger.decide(verdict.fence.task_id, action, job_id="job-1", actor="ann", words="it is")
    assert (written.task_state, [wake.pool for wake in written.effects.wakes]) == (
        TaskState.COMPLETED,
        ["writing"],
    )
    detail = await ledger.job("job-1")
    assert {t.task_id: t.state for t in detail.tasks}[made.fence.task_id] is TaskState.VERIFIED
    (change,) = [c for c in detail.changes if c.type == "task.verified"]
    assert (change.agent_id, change.data["by"]) == (None, "person:ann")
    last = await claim_one(ledger, "r1-incarnation")
    await ledger.finish(last.fence, finish("the end"), "job-1")
    assert (await _state(ledger), await _final(ledger)) == (JobState.COMPLETED, "the end")


async def test_a_verification_that_a_person_ends_leaves_its_question(ledger: SteppedLedger) -> None:
    made, verdict = await _judge_asks_a_person(ledger)
    written = await ledger.decide(verdict.fence.task_id, "cancel", job_id="job-1", actor="ann")
    assert (written.task_state, written.job_state) == (TaskState.CANCELLED, JobState.WAITING)
    await ledger.decide(made.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert (await _state(ledger), await _final(ledger)) == (JobState.COMPLETED, "42")


async def test_a_result_does_not_expire_while_a_person_has_its_verification(ledger: SteppedLedger) -> None:
    deadline = ledger.time() + timedelta(seconds=1.5)
    made, verdict = await _judge_asks_a_person(ledger, NextTask(capability="writing"), deadline=deadline)
    await ledger.advance(1.6)
    await ledger.reap()
    assert await _state(ledger) is JobState.WAITING
    await ledger.decide(verdict.fence.task_id, "cancel", job_id="job-1", actor="ann")
    await ledger.decide(made.fence.task_id, "accept", job_id="job-1", actor="ann")
    await ledger.reap()
    assert (await claim_one(ledger, "r1-incarnation")).capability == "writing"


async def test_what_a_person_hands_on_has_the_time_that_the_person_took(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger, "r1", "research", "writing")
    await ledger.submit(new_job(deadline=ledger.time() + timedelta(seconds=1)))
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish(escalate=True), "job-1")
    await ledger.advance(1.2)
    onward = NextTask(capability="writing")
    await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann", next=onward)
    assert (await claim_one(ledger, incarnation)).capability == "writing"


async def test_nothing_else_follows_a_verification(ledger: SteppedLedger) -> None:
    _, verdict = await _judge_asks_a_person(ledger)
    onward = NextTask(capability="writing")
    with pytest.raises(InputRefused):
        await ledger.decide(verdict.fence.task_id, "accept", job_id="job-1", actor="ann", next=onward)
    assert await _state(ledger) is JobState.WAITING


async def test_a_person_may_speak_before_the_judge(ledger: SteppedLedger) -> None:
    await join(ledger, "r1", "research")
    await ledger.submit(new_job())
    made = await claim_one(ledger, "r1-incarnation")
    await ledger.finish(made.fence, finish("42", verify=JUDGE), "job-1")
    written = await ledger.decide(made.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert written.job_state is JobState.COMPLETED


async def test_cancel_reaches_a_result_that_waits_for_its_verdict(ledger: SteppedLedger) -> None:
    await join(ledger, "r1", "research")
    await ledger.submit(new_job())
    made = await claim_one(ledger, "r1-incarnation")
    await ledger.finish(made.fence, finish("42", verify=JUDGE), "job-1")
    assert (await ledger.cancel("job-1", "ann")).job_state is JobState.CANCELLED


# T24, T25: waiting ----------------------------------------------------------------------


async def test_a_timer_wakes_its_task(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    waiting = Waiting(reason="timer", until=ledger.time() + timedelta(seconds=0.3))
    assert (await ledger.wait(claim.fence, waiting)).task_state is TaskState.WAITING
    assert await ledger.claim_batch(incarnation, 1) == []
    await ledger.advance(0.4)
    assert [wake.task_id for wake in (await ledger.reap()).wakes] == [claim.fence.task_id]
    again = await claim_one(ledger, incarnation)
    assert (again.attempt, again.crashes) == (0, 0)


async def test_a_waiting_task_has_no_owner_any_more(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.wait(claim.fence, Waiting(reason="person", question="which one?"))
    assert (await ledger.finish(claim.fence, finish(), "job-1")).verdict == "fenced"
    await ledger.decide(claim.fence.task_id, "retry", job_id="job-1", actor="ann", words="the second")
    assert (await claim_one(ledger, incarnation)).feedback == "the second"


def _request(arguments: str = '{"path":"/"}', name: str = "a-1") -> ApprovalRequest:
    return ApprovalRequest(
        approval_id=name,
        tool="delete",
        arguments=arguments,
        arguments_sha256=hashlib.sha256(arguments.encode()).hexdigest(),
        question="May it be deleted?",
    )


async def _asking(ledger: SteppedLedger, *requests: ApprovalRequest) -> Fence:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    written = await ledger.wait(claim.fence, Waiting(reason="approval", approvals=requests))
    assert (written.verdict, written.job_state) == ("ok", JobState.WAITING)
    return claim.fence


async def test_an_approval_is_shown_and_wakes_the_task(ledger: SteppedLedger) -> None:
    asked = _request()
    fence = await _asking(ledger, asked)
    shown = [row for row in await ledger.lease_board(50) if row.kind == "approval"]
    assert [json.loads(row.payload or "{}")["arguments_sha256"] for row in shown] == [asked.arguments_sha256]
    await ledger.board_sent(shown)
    written = await ledger.decide_approval("a-1", "approved", asked.arguments_sha256, "ann")
    assert [wake.task_id for wake in written.effects.wakes] == [fence.task_id]
    assert [row.payload for row in await ledger.lease_board(50) if row.kind == "approval"] == [None]
    again = await claim_one(ledger, "r1-incarnation")
    assert again.approvals == {f"{asked.tool}:{asked.arguments_sha256}": "approved"}
    assert (
        await ledger.wait(again.fence, Waiting(reason="approval", approvals=(asked,)))
    ).verdict == "already"


async def test_a_decision_about_other_arguments_is_refused(ledger: SteppedLedger) -> None:
    await _asking(ledger, _request())
    with pytest.raises(InputRefused, match="other arguments"):
        await ledger.decide_approval("a-1", "approved", hashlib.sha256(b"else").hexdigest(), "mallory")
    assert [row.state for row in await ledger.approvals()] == ["pending"]


async def test_an_approval_is_decided_once(ledger: SteppedLedger) -> None:
    asked = _request()
    await _asking(ledger, asked)
    await ledger.decide_approval("a-1", "rejected", asked.arguments_sha256, "ann", reason="too much")
    assert (
        await ledger.decide_approval("a-1", "rejected", asked.arguments_sha256, "bob")
    ).verdict == "already"
    with pytest.raises(Conflict):
        await ledger.decide_approval("a-1", "approved", asked.arguments_sha256, "bob")
    row = (await ledger.approvals(state="rejected"))[0]
    assert (row.actor, row.reason) == ("ann", "too much")


async def test_all_questions_are_answered_before_the_task_goes_on(ledger: SteppedLedger) -> None:
    one, two = _request(), _request('{"path":"/etc"}', "a-2")
    await _asking(ledger, one, two)
    first = await ledger.decide_approval("a-1", "approved", one.arguments_sha256, "ann")
    assert first.effects.wakes == ()
    second = await ledger.decide_approval("a-2", "approved", two.arguments_sha256, "ann")
    assert len(second.effects.wakes) == 1


async def test_the_end_of_a_task_withdraws_its_questions(ledger: SteppedLedger) -> None:
    await _asking(ledger, _request())
    await ledger.cancel("job-1", "ann")
    assert [row.state for row in await ledger.approvals()] == ["withdrawn"]


async def test_a_withdrawn_question_is_asked_again(ledger: SteppedLedger) -> None:
    asked = _request()
    fence = await _asking(ledger, asked)
    await ledger.decide(fence.task_id, "retry", job_id="job-1", actor="ann", words="look again")
    claim = await claim_one(ledger, "r1-incarnation")
    assert list(claim.approvals.values()) == ["withdrawn"]
    written = await ledger.wait(claim.fence, Waiting(reason="approval", approvals=(_request(name="a-2"),)))
    assert (written.verdict, written.job_state) == ("ok", JobState.WAITING)
    (row,) = await ledger.approvals()
    assert (row.approval_id, row.state, row.decided_at) == ("a-1", "pending", None)
    (shown,) = [row for row in await ledger.lease_board(50) if row.kind == "approval"]
    assert shown.payload is not None
    decided = await ledger.decide_approval("a-1", "approved", asked.arguments_sha256, "ann")
    assert [wake.task_id for wake in decided.effects.wakes] == [fence.task_id]


# T5, T8: assignment -----------------------------------------------------------------------


async def test_an_assigned_task_is_taken_by_the_named_one(ledger: SteppedLedger) -> None:
    one, two = await join(ledger, "r1"), await join(ledger, "r2")
    await ledger.submit(new_job())
    task_id = (await ledger.job("job-1")).tasks[0].task_id
    written = await ledger.assign(task_id, two, "ann")
    assert [wake.pool for wake in written.effects.wakes] == ["agent.r2"]
    assert await ledger.claim(task_id, one) is None
    claim = await ledger.claim(task_id, two)
    assert claim is not None
    assert claim.fence.epoch == 1
    assert (await ledger.finish(claim.fence, finish(), "job-1")).verdict == "ok"


async def test_only_queued_work_of_the_pool_is_assigned(ledger: SteppedLedger) -> None:
    writer = await join(ledger, "w1", "writing")
    await ledger.submit(new_job())
    task_id = (await ledger.job("job-1")).tasks[0].task_id
    with pytest.raises(Conflict):
        await ledger.assign(task_id, writer, "ann")
    with pytest.raises(NotFound):
        await ledger.assign(task_id, "nobody", "ann")


# commands ---------------------------------------------------------------------------------


async def _wish(
    ledger: SteppedLedger, incarnation: str, state: AgentState = AgentState.RUNNING
) -> str | None:
    beat = Beat(incarnation=incarnation, state=state, free_slots=4)
    return (await ledger.beat(beat)).desired_state


def _record(incarnation: str) -> AgentRecord:
    return AgentRecord(agent_id="r1", incarnation=incarnation, capabilities=("research",))


async def test_a_pause_belongs_to_the_agent_and_outlives_its_process(ledger: SteppedLedger) -> None:
    one = await join(ledger)
    assert await ledger.command("c-1", "r1", "pause", "ann") == (one,)
    assert await _wish(ledger, one) == AgentState.PAUSED
    await ledger.stopped(one)
    again = "r1-again"
    await ledger.register(_record(again))
    assert await _wish(ledger, again) == AgentState.PAUSED
    await ledger.command("c-2", "r1", "resume", "ann")
    assert await _wish(ledger, again, AgentState.PAUSED) == AgentState.RUNNING
    assert await _wish(ledger, again) is None


async def test_a_drain_concerns_the_processes_of_now(ledger: SteppedLedger) -> None:
    one, two = await join(ledger, "r1"), "r1-two"
    await ledger.register(_record(two))
    assert await ledger.command("c-1", "r1", "drain", "ann", incarnation=one) == (one,)
    assert await _wish(ledger, one) == AgentState.DRAINING
    assert await _wish(ledger, two) is None
    await ledger.command("c-2", "r1", "restart", "ann")
    assert await _wish(ledger, two) == AgentState.RESTARTING


async def test_commands_for_nobody_and_unknown_ones_are_refused(ledger: SteppedLedger) -> None:
    await join(ledger)
    with pytest.raises(NotFound):
        await ledger.command("c-1", "ghost", "pause", "ann")
    with pytest.raises(InputRefused):
        await ledger.command("c-1", "r1", "explode", "ann")


# numbers and retention -----------------------------------------------------------------------


async def test_sealed_events_are_dense_and_their_chain_verifies(ledger: SteppedLedger) -> None:
    claim = await _escalated(ledger)
    await ledger.decide(claim.fence.task_id, "accept", job_id="job-1", actor="ann")
    assert await ledger.seal(3) == 3
    while await ledger.seal(3):
        pass
    numbers = [number for number, _ in await ledger.sealed_changes(0)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [number for number, _ in await ledger.sealed_changes(numbers[-2])] == numbers[-1:]
    assert list(await ledger.broken_links()) == []


async def test_retention_leaves_a_chain_that_verifies(ledger: SteppedLedger) -> None:
    """The links of the two that are buried stand between those of jobs that are kept."""
    for name in ("kept", "first", "second"):
        await ledger.submit(new_job(name))
    await ledger.escalate("kept", "ann", reason="look at it")
    await ledger.cancel("first", "ann")
    await ledger.cancel("second", "ann")
    await ledger.advance(2.1)
    await ledger.cancel("kept", "ann")
    await ledger.seal(100)
    await ledger.retire(2.0 / 86400)
    assert [row.job_id for row in await ledger.jobs()] == ["kept"]
    assert list(await ledger.broken_links()) == []

    await ledger.submit(new_job("later"))
    await ledger.cancel("later", "ann")
    await ledger.seal(100)
    await ledger.advance(0.2)
    await ledger.retire(0.1 / 86400)
    assert list(await ledger.jobs()) == []
    assert list(await ledger.broken_links()) == []
    await ledger.submit(new_job("last"))
    await ledger.cancel("last", "ann")
    await ledger.seal(100)
    assert list(await ledger.broken_links()) == []


async def test_a_job_stays_until_its_events_are_sealed(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "ann")
    await ledger.advance(0.2)
    await ledger.retire(0.1 / 86400)
    assert (await ledger.job("job-1")).job.state is JobState.CANCELLED
    await ledger.seal(100)
    await ledger.retire(0.1 / 86400)
    with pytest.raises(NotFound):
        await ledger.job("job-1")
    assert list(await ledger.sealed_changes(0)) == []


async def test_an_old_job_leaves_a_tombstone_that_still_knows_its_content(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    await ledger.cancel("job-1", "ann")
    await ledger.seal(100)
    await ledger.advance(0.2)
    await ledger.retire(0.1 / 86400)
    with pytest.raises(NotFound):
        await ledger.job("job-1")
    again = await ledger.submit(new_job())
    assert (again.verdict, again.state) == ("duplicate", JobState.CANCELLED)
    assert (await ledger.submit(new_job(content_hash="other"))).verdict == "conflict"
