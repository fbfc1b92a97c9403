"""What the owner of a task writes into the in-memory ledger: every write presents the fence."""

from datetime import timedelta

import msgspec

from agent2389.errors import NotFound
from agent2389.ledger.memory_agents import holds
from agent2389.ledger.memory_parts import Gathered, close_job, job_state, keep_result, note_task, wake_of
from agent2389.ledger.memory_tables import JobRecord, Tables, TaskRecord
from agent2389.ledger.memory_what_follows import (
    ask_person,
    ask_verdict,
    check_next,
    end_task,
    go_on,
    judge,
    problem_of,
    reaches_too_far,
)
from agent2389.ledger.records import Failure, Fence, FileRef, Finish, TaskResult, Usage, Written
from agent2389.ledger.states import TaskState

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0
EVIDENCE_CHARACTERS = 2000


def judge_fence(tables: Tables, tenant: str, fence: Fence) -> tuple[TaskRecord, str]:
    """The task and ``ok`` | ``cancel`` (asked to stop) | ``already`` | ``fenced``."""
    task = tables.tasks.get((tenant, fence.task_id))
    if task is None:
        raise NotFound("there is no such task")
    if holds(tables, task, fence):
        return task, "ok" if task.stop_requested is None else "cancel"
    earlier = tables.results.get((tenant, fence.task_id), {}).get(fence.epoch)
    if earlier is not None and earlier.token == fence.token:
        return task, "already"
    return task, "fenced"


def written(tables: Tables, verdict: str, task: TaskRecord, gathered: Gathered | None = None) -> Written:
    """The answer to a write: its verdict and where things stand now."""
    return Written(
        verdict=verdict,
        task_state=task.state,
        job_state=job_state(tables, tables.job_of(task)),
        effects=(gathered or Gathered()).effects(),
    )


def refuse(tables: Tables, task: TaskRecord, fence: Fence, write: str, evidence: str = "") -> Written:
    """T23: refused, and kept with the beginning of what was to be written."""
    gathered = Gathered()
    data: dict[str, object] = {"write": write, "epoch": fence.epoch, "current_epoch": task.epoch}
    if evidence:
        data["evidence"] = evidence[:EVIDENCE_CHARACTERS]
    note_task(tables, gathered, task, "task.fenced", data=data)
    return written(tables, "fenced", task, gathered)


def checkpoint(tables: Tables, tenant: str, fence: Fence, manifest: dict[str, FileRef]) -> Written:
    """Keep the workspace for whoever resumes."""
    task, verdict = judge_fence(tables, tenant, fence)
    if verdict not in ("ok", "cancel"):
        return refuse(tables, task, fence, "checkpoint")
    tables.workspaces[tenant, task.task_id] = dict(manifest)
    return written(tables, "ok", task)


def finish(tables: Tables, tenant: str, fence: Fence, done: Finish) -> Written:
    """T15: the result and what follows from it, all or nothing."""
    task, verdict = judge_fence(tables, tenant, fence)
    if verdict == "fenced":
        return refuse(tables, task, fence, "finish", done.result.text)
    if verdict != "ok":
        return written(tables, verdict, task)
    check_next(done)
    job, gathered = tables.job_of(task), Gathered()
    too_far = reaches_too_far(tables, task, done)
    asks_verdict = done.verify is not None and task.verifies is None
    book(job, done.usage)
    job.rehearsal = job.rehearsal or done.rehearsal
    keep_result(
        tables,
        task,
        done.result,
        standing="proposed" if done.escalate or asks_verdict or too_far else "current",
        usage=done.usage,
        decision=done.decision,
    )
    owner = tables.agents.get((tenant, task.owner or ""))
    if owner is not None:
        owner.tasks_total += 1
    tables.workspaces[tenant, task.task_id] = dict(done.manifest)
    if too_far:
        message = f"the hop limit of {job.new.max_hops} is reached and the work is not complete"
        end_task(tables, gathered, task, TaskState.DEAD, problem_of("internal_error", message))
    elif done.escalate:
        problem = problem_of("internal_error", done.decision.reason)
        decision = msgspec.to_builtins(done.decision)
        ask_person(tables, gathered, task, problem, data=decision, agent_id=task.agent_id)
    else:
        _complete(tables, gathered, task, done, asks_verdict=asks_verdict)
    return written(tables, "ok", task, gathered)


def _complete(
    tables: Tables, gathered: Gathered, task: TaskRecord, done: Finish, *, asks_verdict: bool
) -> None:
    task.move(TaskState.COMPLETED)
    task.finished_at, task.error = tables.now(), None
    task.held = done if asks_verdict else None
    decision = done.decision
    told = {"outcome": decision.outcome, "chosen": decision.chosen, "reason": decision.reason}
    data = {"hop": task.hop, "decision": told}
    note_task(tables, gathered, task, "task.completed", agent_id=task.agent_id, data=data)
    if asks_verdict:
        ask_verdict(tables, gathered, task, done)
    elif task.verifies is not None:
        judge(tables, gathered, task, done.verdict, done.result.text)
        close_job(tables, gathered, task, born=0)
    else:
        go_on(tables, gathered, task, done)


def fail(tables: Tables, tenant: str, fence: Fence, failure: Failure) -> Written:
    """T12 to T14: another attempt after full-jitter back-off, else dead; what a person took goes there."""
    task, verdict = judge_fence(tables, tenant, fence)
    if verdict not in ("ok", "cancel"):
        return refuse(tables, task, fence, "fail", failure.message)
    gathered = Gathered()
    problem = problem_of(failure.code, failure.message)
    book(tables.job_of(task), failure.usage)
    if failure.partial:
        keep_result(tables, task, TaskResult(text=failure.partial), standing="proposed", usage=failure.usage)
    taken = task.stop_requested == "escalate"
    if task.stop_requested == "cancel":
        end_task(tables, gathered, task, TaskState.CANCELLED)
    elif not taken and failure.retryable and task.attempt + 1 < task.max_attempts:
        _try_again(tables, gathered, task, problem, failure.retry_after or 0.0)
    else:
        task.begin_anew(min(task.attempt + 1, task.max_attempts))
        if taken or failure.escalate:
            ask_person(tables, gathered, task, problem, data=dict(problem), agent_id=task.agent_id)
        else:
            end_task(tables, gathered, task, TaskState.DEAD, problem)
    return written(tables, "ok", task, gathered)


def _try_again(
    tables: Tables, gathered: Gathered, task: TaskRecord, problem: dict[str, str], at_least: float
) -> None:
    ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**task.attempt)
    wait = max(at_least, ceiling * tables.chance.random())
    task.move(TaskState.QUEUED)
    task.begin_anew(task.attempt + 1)
    task.error, task.rung = problem, False
    task.run_after = tables.now() + timedelta(seconds=wait)
    note_task(
        tables,
        gathered,
        task,
        "task.retry",
        agent_id=task.agent_id,
        data={**problem, "attempt": task.attempt, "wait_seconds": round(wait, 3)},
    )


def release(tables: Tables, tenant: str, fence: Fence, reason: str) -> Written:
    """T9: back to the queue at once, attempt unchanged."""
    task, verdict = judge_fence(tables, tenant, fence)
    if verdict == "cancel":
        return stop_task(tables, tenant, fence, "")
    if verdict != "ok":
        return refuse(tables, task, fence, "release")
    gathered = Gathered()
    task.move(TaskState.QUEUED)
    task.run_after = tables.now()
    gathered.wakes.append(wake_of(task))
    note_task(tables, gathered, task, "task.released", agent_id=task.agent_id, data={"reason": reason})
    return written(tables, "ok", task, gathered)


def stop_task(tables: Tables, tenant: str, fence: Fence, partial: str) -> Written:
    """T29: what the owner was asked for decides the state; asked for nothing, the task waits again."""
    task, verdict = judge_fence(tables, tenant, fence)
    if verdict not in ("ok", "cancel"):
        return refuse(tables, task, fence, "stop", partial)
    gathered = Gathered()
    if partial:
        keep_result(tables, task, TaskResult(text=partial), standing="proposed", usage=Usage())
    if task.stop_requested == "cancel":
        end_task(tables, gathered, task, TaskState.CANCELLED)
    elif task.stop_requested == "expire" or task.deadline <= tables.now():
        end_task(tables, gathered, task, TaskState.EXPIRED)
    elif task.stop_requested == "escalate":
        problem = problem_of("internal_error", "a person took the task from its agent")
        ask_person(tables, gathered, task, problem, data={}, agent_id=task.agent_id)
    else:
        task.move(TaskState.QUEUED)
        gathered.wakes.append(wake_of(task))
        note_task(tables, gathered, task, "task.queued", agent_id=task.agent_id)
    return written(tables, "ok", task, gathered)


def book(job: JobRecord, usage: Usage) -> None:
    """Add what an attempt consumed; one call of unknown price makes the sum unknown."""
    job.used = job.used + usage
