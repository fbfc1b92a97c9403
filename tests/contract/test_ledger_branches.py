"""Branches, the task that joins them, and tasks sent to foreign agents, on every ledger."""

import json
from datetime import timedelta
from typing import Any

from agent2389.ledger.fleet import Beat
from agent2389.ledger.records import Claim, Failure, FileRef, Join, NextTask, Waiting
from agent2389.ledger.states import AgentState, JobState, TaskState
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger

WHO = "r1-incarnation"


async def _split(ledger: SteppedLedger, needed: int, branches: int = 3, **changes: Any) -> list[Claim]:
    await join(ledger, "r1", "research", "writing", "merging")
    await ledger.submit(new_job(**changes))
    first = await claim_one(ledger, WHO)
    items = tuple(NextTask(slot=slot, capability="writing") for slot in range(branches))
    meeting = Join(needed=needed, task=NextTask(slot=branches, capability="merging", instruction="merge"))
    written = await ledger.finish(first.fence, finish("plan", *items, join=meeting), "job-1")
    assert len(written.effects.wakes) == branches
    assert (await ledger.job("job-1")).job.state is JobState.RUNNING
    claims = await ledger.claim_batch(WHO, 10)
    assert [claim.capability for claim in claims] == ["writing"] * branches
    return list(claims)


async def _end(ledger: SteppedLedger, claim: Claim, text: str, **changes: Any) -> None:
    assert (await ledger.finish(claim.fence, finish(text, **changes), "job-1")).verdict == "ok"


async def _states(ledger: SteppedLedger) -> list[TaskState]:
    return [task.state for task in (await ledger.job("job-1")).tasks]


async def test_all_branches_meet_in_their_order(ledger: SteppedLedger) -> None:
    one, two, three = await _split(ledger, 3)
    for claim, text in ((three, "c"), (one, "a")):
        await _end(ledger, claim, text)
        assert await ledger.claim_batch(WHO, 1) == []
    await _end(ledger, two, "b")
    merge = await claim_one(ledger, WHO)
    assert (merge.capability, merge.instruction) == ("merging", "merge")
    assert [branch["text"] for branch in merge.input["branches"]] == ["a", "b", "c"]
    await _end(ledger, merge, "abc")
    final = json.loads((await ledger.job("job-1")).final or "")
    assert (final["state"], final["result"]["text"], len(final["route"])) == ("completed", "abc", 5)


async def test_the_first_branch_is_enough_and_the_others_are_called_off(ledger: SteppedLedger) -> None:
    one, two, three = await _split(ledger, 1)
    await _end(ledger, two, "fast")
    beat = Beat(incarnation=WHO, state=AgentState.RUNNING, free_slots=1, held=(one.fence,))
    assert (await ledger.beat(beat)).tasks == {one.fence.task_id: "cancel"}
    merge = await claim_one(ledger, WHO)
    assert [branch["text"] for branch in merge.input["branches"]] == ["fast"]
    await _end(ledger, merge, "done")
    assert (await ledger.job("job-1")).job.state is JobState.RUNNING
    for claim in (one, three):
        await ledger.stop_task(claim.fence, "")
    job = await ledger.job("job-1")
    assert job.job.state is JobState.COMPLETED
    assert json.loads(job.final or "")["result"]["text"] == "done"


async def test_a_failed_branch_is_forgiven_when_enough_come(ledger: SteppedLedger) -> None:
    one, two, three = await _split(ledger, 2)
    await ledger.fail(one.fence, Failure(code="llm_error", message="no", retryable=False))
    await _end(ledger, two, "b")
    await _end(ledger, three, "c")
    merge = await claim_one(ledger, WHO)
    assert len(merge.input["branches"]) == 2
    await _end(ledger, merge, "bc")
    assert (await ledger.job("job-1")).job.state is JobState.COMPLETED


async def test_too_many_failures_end_the_join_and_the_job(ledger: SteppedLedger) -> None:
    one, two, three = await _split(ledger, 3)
    await ledger.fail(one.fence, Failure(code="llm_error", message="no", retryable=False))
    assert (await _states(ledger)).count(TaskState.DEAD) == 2
    for claim in (two, three):
        await ledger.stop_task(claim.fence, "")
    job = await ledger.job("job-1")
    assert job.job.state is JobState.FAILED
    assert json.loads(job.final or "")["error"]["message"].startswith("1 of 3 branches failed")


async def test_a_branch_may_hand_on_before_it_ends(ledger: SteppedLedger) -> None:
    one, two = await _split(ledger, 2, 2)
    await _end(ledger, two, "b")
    onward = NextTask(capability="research")
    assert (await ledger.finish(one.fence, finish("half", onward), "job-1")).verdict == "ok"
    assert [c.capability for c in await ledger.claim_batch(WHO, 5)] == ["research"]
    longer = next(
        task for task in (await ledger.job("job-1")).tasks if task.hop == 3 and task.state != "waiting"
    )
    assert longer.capability == "research"


async def test_files_of_branches_meet_and_differences_are_kept(ledger: SteppedLedger) -> None:
    one, two = await _split(ledger, 2, 2)
    ref = {name: FileRef(sha256=name * 64, size=1, media_type="text/plain", name="x") for name in "abc"}
    await _end(ledger, one, "a", manifest={"same.md": ref["a"], "both.md": ref["b"]})
    await _end(ledger, two, "b", manifest={"same.md": ref["a"], "both.md": ref["c"]})
    merge = await claim_one(ledger, WHO)
    assert {path: file.sha256[0] for path, file in merge.manifest.items()} == {
        "same.md": "a",
        "both.md": "b",
        "branch-1/both.md": "c",
    }


async def test_cancel_ends_branches_and_join(ledger: SteppedLedger) -> None:
    claims = await _split(ledger, 3)
    await ledger.cancel("job-1", "ann")
    for claim in claims:
        await ledger.stop_task(claim.fence, "")
    assert (await ledger.job("job-1")).job.state is JobState.CANCELLED


async def test_a_join_does_not_expire_while_a_person_has_a_branch(ledger: SteppedLedger) -> None:
    one, two = await _split(ledger, 2, 2, deadline=ledger.time() + timedelta(seconds=1.5))
    await _end(ledger, one, "a")
    await _end(ledger, two, "b", escalate=True)
    await ledger.advance(1.6)
    await ledger.reap()
    assert (await ledger.job("job-1")).job.state is JobState.WAITING
    await ledger.decide(two.fence.task_id, "accept", job_id="job-1", actor="ann")
    await ledger.reap()
    assert [branch["text"] for branch in (await claim_one(ledger, WHO)).input["branches"]] == ["a", "b"]


async def test_a_join_waits_for_the_verification_of_a_branch(ledger: SteppedLedger) -> None:
    one, two = await _split(ledger, 2, 2, deadline=ledger.time() + timedelta(seconds=1.5))
    await join(ledger, "j1", "judging")
    await _end(ledger, one, "a")
    await _end(ledger, two, "b", verify=NextTask(capability="judging"))
    verdict = await claim_one(ledger, "j1-incarnation")
    await _end(ledger, verdict, "who knows", escalate=True)
    await ledger.advance(1.6)
    await ledger.reap()
    await ledger.decide(verdict.fence.task_id, "accept", job_id="job-1", actor="ann")
    await ledger.reap()
    assert (await claim_one(ledger, WHO)).capability == "merging"


async def test_branches_count_against_the_hop_limit(ledger: SteppedLedger) -> None:
    await join(ledger, "r1", "research", "writing")
    await ledger.submit(new_job(max_hops=2))
    first = await claim_one(ledger, WHO)
    meeting = Join(needed=1, task=NextTask(slot=1, capability="writing"))
    written = await ledger.finish(
        first.fence, finish("x", NextTask(capability="writing"), join=meeting), "job-1"
    )
    assert written.task_state is TaskState.DEAD


# foreign agents ---------------------------------------------------------------------------------


async def _foreign(ledger: SteppedLedger, **changes: Any) -> str:
    await ledger.submit(new_job(capability=None, agent="stranger", **changes))
    (task,) = await ledger.foreign_tasks(10)
    assert (task.agent_id, task.attempt, task.state) == ("stranger", 0, TaskState.QUEUED)
    return task.task_id


async def test_the_answer_of_a_stranger_completes_the_hop_once(ledger: SteppedLedger) -> None:
    task_id = await _foreign(ledger)
    until = ledger.time() + timedelta(seconds=60)
    sent = await ledger.forward(task_id, until)
    assert sent is not None
    assert sent.task_state is TaskState.FORWARDED
    assert await ledger.forward(task_id, until) is None
    assert (await ledger.forward_ended(task_id, 0, finish("hello"), "job-1")).verdict == "ok"
    assert (await ledger.forward_ended(task_id, 0, finish("again"), "job-1")).verdict == "already"
    assert json.loads((await ledger.job("job-1")).final or "")["result"]["text"] == "hello"


async def test_a_stranger_who_would_go_too_far_is_stopped_for_a_person(ledger: SteppedLedger) -> None:
    task_id = await _foreign(ledger, max_hops=1)
    await ledger.forward(task_id, ledger.time() + timedelta(seconds=60))
    onward = NextTask(agent="stranger")
    written = await ledger.forward_ended(task_id, 0, finish("so far", onward), "job-1")
    assert (written.task_state, written.job_state) == (TaskState.ESCALATED, JobState.WAITING)
    assert (await ledger.forward_ended(task_id, 0, finish("again"), "job-1")).verdict == "already"
    await ledger.decide(task_id, "accept", job_id="job-1", actor="ann")
    job = await ledger.job("job-1")
    assert (job.job.state, len(job.tasks)) == (JobState.COMPLETED, 1)
    assert json.loads(job.final or "")["result"]["text"] == "so far"


async def test_a_silent_stranger_is_tried_again_then_a_person_is_asked(ledger: SteppedLedger) -> None:
    task_id = await _foreign(ledger)
    for attempt in range(3):
        await ledger.until(lambda: _due(ledger))
        assert await ledger.forward(task_id, ledger.time() + timedelta(seconds=0.2)) is not None
        await ledger.advance(0.3)
        await ledger.reap()
        late = await ledger.forward_ended(task_id, attempt, finish("late"), "job-1")
        assert late.verdict == "already"
    assert (await ledger.job("job-1")).tasks[0].state is TaskState.ESCALATED


async def test_a_person_sends_a_stranger_another_attempt_and_not_the_old_one_again(
    ledger: SteppedLedger,
) -> None:
    await _foreign(ledger)
    until = ledger.time() + timedelta(seconds=60)
    seen = []
    for words in ("Do it differently.", ""):
        (task,) = await ledger.foreign_tasks(10)
        await ledger.forward(task.task_id, until)
        (sent,) = await ledger.foreign_tasks(10)
        assert (sent.state, sent.attempt) == (TaskState.FORWARDED, task.attempt)
        seen.append(task.attempt)
        await ledger.escalate("job-1", "ann", reason="stop that")
        await ledger.decide(task.task_id, "retry", job_id="job-1", actor="ann", words=words)
    (task,) = await ledger.foreign_tasks(10)
    await ledger.forward(task.task_id, until)
    for attempt in seen:
        late = await ledger.forward_ended(task.task_id, attempt, finish("of old"), "job-1")
        assert late.verdict == "already"
    assert [*seen, task.attempt] == [0, 1, 2]
    assert (await ledger.forward_ended(task.task_id, 2, finish("new"), "job-1")).verdict == "ok"


async def _due(ledger: SteppedLedger) -> bool:
    return bool(await ledger.foreign_tasks(10))


async def test_the_backlog_of_a_stranger_that_is_away_hides_nobody_else(ledger: SteppedLedger) -> None:
    names = {"away": 3, "near": 2, "busy": 2}
    for agent, count in names.items():
        for number in range(count):
            await ledger.submit(new_job(f"{agent}-{number}", capability=None, agent=agent))
    for number in range(names["busy"]):
        task_id = (await ledger.job(f"busy-{number}")).tasks[0].task_id
        assert await ledger.forward(task_id, ledger.time() + timedelta(seconds=60)) is not None
    seen = {limit: [task.job_id for task in await ledger.foreign_tasks(limit)] for limit in (1, 2, 3, 9)}
    assert seen == {
        1: ["away-0", "busy-0"],
        2: ["away-0", "near-0", "busy-0", "busy-1"],
        3: ["away-0", "away-1", "near-0", "busy-0", "busy-1"],
        9: [f"{agent}-{number}" for agent, count in names.items() for number in range(count)],
    }


async def test_our_own_agents_are_not_foreign(ledger: SteppedLedger) -> None:
    await join(ledger, "r1")
    await ledger.submit(new_job(capability=None, agent="r1"))
    assert await ledger.foreign_tasks(10) == ()


async def test_a_joined_task_that_waits_for_a_person_is_left_alone_by_its_branches(
    ledger: SteppedLedger,
) -> None:
    one, two, three = await _split(ledger, 1)
    await _end(ledger, two, "fast")
    merge = await claim_one(ledger, WHO)
    await ledger.wait(merge.fence, Waiting(reason="person", question="which one?"))
    assert (await ledger.stop_task(one.fence, "")).verdict == "ok"
    assert (await ledger.fail(three.fence, Failure(code="llm_error", message="m", retryable=False))).verdict
    states = await _states(ledger)
    assert states[-1] is TaskState.WAITING
    assert states.count(TaskState.CANCELLED) == 2
    await ledger.decide(merge.fence.task_id, "answer", job_id="job-1", actor="ann", words="the first")
    assert (await ledger.job("job-1")).job.state is JobState.COMPLETED


async def _nested(ledger: SteppedLedger, needed: int) -> tuple[Claim, list[Claim]]:
    """Two branches of which the first splits again into two that are both needed: the plain one, the inner."""
    await join(ledger, "r1", "research", "writing", "inner", "outer")
    await ledger.submit(new_job())
    first = await claim_one(ledger, WHO)
    items = tuple(NextTask(slot=slot, capability="writing") for slot in range(2))
    meeting = Join(needed=needed, task=NextTask(slot=2, capability="outer"))
    await ledger.finish(first.fence, finish("plan", *items, join=meeting), "job-1")
    again, plain = await ledger.claim_batch(WHO, 2)
    meeting = Join(needed=2, task=NextTask(slot=2, capability="inner"))
    await ledger.finish(again.fence, finish("plan", *items, join=meeting), "job-1")
    return plain, list(await ledger.claim_batch(WHO, 2))


async def test_a_spare_branch_that_split_again_does_not_spoil_the_job(ledger: SteppedLedger) -> None:
    plain, spare = await _nested(ledger, 1)
    await _end(ledger, plain, "enough")
    outer = await claim_one(ledger, WHO)
    assert outer.capability == "outer"
    await _end(ledger, outer, "all is well")
    for claim in spare:
        await ledger.stop_task(claim.fence, "")
    assert (await ledger.job("job-1")).job.state is JobState.COMPLETED


async def test_a_dead_inner_branch_of_a_spare_one_does_not_fail_the_job(ledger: SteppedLedger) -> None:
    plain, (one, two) = await _nested(ledger, 1)
    await ledger.fail(one.fence, Failure(code="llm_error", message="m", retryable=False))
    await ledger.stop_task(two.fence, "")
    await _end(ledger, plain, "enough")
    await _end(ledger, await claim_one(ledger, WHO), "all is well")
    assert (await ledger.job("job-1")).job.state is JobState.COMPLETED


async def test_a_cancelled_job_of_nested_joins_ends_as_cancelled(ledger: SteppedLedger) -> None:
    plain, inner = await _nested(ledger, 2)
    await ledger.cancel("job-1", "ann")
    for claim in (plain, *inner):
        await ledger.stop_task(claim.fence, "")
    assert (await ledger.job("job-1")).job.state is JobState.CANCELLED
