"""What the owner of a task writes into the in-memory ledger: every write presents the fence."""

from datetime import timedelta

import msgspec

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger.memory_agents import holds
from agent2389.ledger.memory_parts import (
    Gathered,
    close_job,
    end_task,
    job_state,
    keep_result,
    note_task,
    pool_of,
    wake_of,
)
from agent2389.ledger.memory_tables import JobRecord, Tables, TaskRecord
from agent2389.ledger.records import Failure, Fence, FileRef, Finish, NextTask, TaskResult, Usage, Written
from agent2389.ledger.states import TaskState
from agent2389.wire.names import task_id_of

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0
MESSAGE_CHARACTERS = 500


def _judge(tables: Tables, tenant: str, fence: Fence) -> tuple[TaskRecord, str]:
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


def _written(tables: Tables, verdict: str, task: TaskRecord, gathered: Gathered | None = None) -> Written:
    return Written(
        verdict=verdict,
        task_state=task.state,
        job_state=job_state(tables, tables.job_of(task)),
        effects=(gathered or Gathered()).effects(),
    )


def _refuse(tables: Tables, task: TaskRecord, fence: Fence, write: str) -> Written:
    """T23: refused and kept as evidence."""
    gathered = Gathered()
    data = {"write": write, "epoch": fence.epoch, "current_epoch": task.epoch}
    note_task(tables, gathered, task, "task.fenced", data=data)
    return _written(tables, "fenced", task, gathered)


def checkpoint(tables: Tables, tenant: str, fence: Fence, manifest: dict[str, FileRef]) -> Written:
    """Keep the workspace for whoever resumes."""
    task, verdict = _judge(tables, tenant, fence)
    if verdict not in ("ok", "cancel"):
        return _refuse(tables, task, fence, "checkpoint")
    tables.workspaces[tenant, task.task_id] = dict(manifest)
    return _written(tables, "ok", task)


def finish(tables: Tables, tenant: str, fence: Fence, done: Finish) -> Written:
    """T15: the result and what follows from it, all or nothing."""
    task, verdict = _judge(tables, tenant, fence)
    if verdict == "fenced":
        return _refuse(tables, task, fence, "finish")
    if verdict != "ok":
        return _written(tables, verdict, task)
    _check_next(done.next)
    job, gathered = tables.job_of(task), Gathered()
    too_far = bool(done.next) and task.hop >= job.new.max_hops
    _book(job, done.usage)
    job.rehearsal = job.rehearsal or done.rehearsal
    keep_result(
        tables,
        task,
        done.result,
        standing="proposed" if done.escalate or too_far else "current",
        usage=done.usage,
        decision=done.decision,
    )
    owner = tables.agents.get((tenant, task.owner or ""))
    if owner is not None:
        owner.tasks_total += 1
    tables.workspaces[tenant, task.task_id] = dict(done.manifest)
    if too_far:
        message = f"the hop limit of {job.new.max_hops} is reached and the work is not complete"
        end_task(tables, gathered, task, TaskState.DEAD, _problem("internal_error", message))
    elif done.escalate:
        task.move(TaskState.ESCALATED)
        task.error = _problem("internal_error", done.decision.reason)
        decision = msgspec.to_builtins(done.decision)
        note_task(tables, gathered, task, "task.escalated", agent_id=task.agent_id, data=decision)
    else:
        _complete(tables, gathered, task, done)
    return _written(tables, "ok", task, gathered)


def _complete(tables: Tables, gathered: Gathered, task: TaskRecord, done: Finish) -> None:
    task.move(TaskState.COMPLETED)
    task.finished_at, task.error = tables.now(), None
    decision = done.decision
    told = {"outcome": decision.outcome, "chosen": decision.chosen, "reason": decision.reason}
    note_task(
        tables,
        gathered,
        task,
        "task.completed",
        agent_id=task.agent_id,
        data={"hop": task.hop, "decision": told},
    )
    for item in done.next:
        child = _child(tables, task, item)
        tables.tasks[task.tenant, child.task_id] = child
        tables.workspaces[task.tenant, child.task_id] = dict(done.manifest)
        gathered.wakes.append(wake_of(child))
        queued = {"pool": child.pool, "hop": child.hop, "reason": child.reason}
        note_task(tables, gathered, child, "task.queued", data=queued)
    close_job(tables, gathered, task, born=len(done.next))


def _check_next(items: tuple[NextTask, ...]) -> None:
    """One child per slot, each for a capability or for an agent: refused before anything is written."""
    slots = {item.slot for item in items}
    if len(slots) < len(items) or any((item.capability is None) == (item.agent is None) for item in items):
        raise InputRefused("invalid", "the ledger refuses a value that no rule of it allows")


def _child(tables: Tables, parent: TaskRecord, item: NextTask) -> TaskRecord:
    now = tables.now()
    return TaskRecord(
        tenant=parent.tenant,
        # The same parent and slot give the same id: a repeated hand-off collides with itself.
        task_id=task_id_of(parent.job_id, parent.task_id, item.slot),
        job_id=parent.job_id,
        seq=tables.number(),
        parent_task=parent.task_id,
        slot=item.slot,
        hop=parent.hop + 1,
        pool=pool_of(item.capability, item.agent),
        capability=item.capability,
        bound_agent=item.agent,
        instruction=item.instruction,
        input=item.input,
        next=item.next,
        reason=item.reason,
        priority=parent.priority,
        run_after=now,
        deadline=parent.deadline,
        wire_task_id=parent.wire_task_id,
        queued_at=now,
    )


def fail(tables: Tables, tenant: str, fence: Fence, failure: Failure) -> Written:
    """T12 to T14: another attempt after full-jitter back-off, else dead."""
    task, verdict = _judge(tables, tenant, fence)
    if verdict not in ("ok", "cancel"):
        return _refuse(tables, task, fence, "fail")
    gathered = Gathered()
    problem = _problem(failure.code, failure.message)
    _book(tables.job_of(task), failure.usage)
    if failure.partial:
        keep_result(tables, task, TaskResult(text=failure.partial), standing="proposed", usage=failure.usage)
    if task.stop_requested == "cancel":
        end_task(tables, gathered, task, TaskState.CANCELLED)
    elif failure.retryable and task.attempt + 1 < task.max_attempts:
        _try_again(tables, gathered, task, problem, failure.retry_after or 0.0)
    else:
        task.attempt = min(task.attempt + 1, task.max_attempts)
        end_task(tables, gathered, task, TaskState.DEAD, problem)
    return _written(tables, "ok", task, gathered)


def _try_again(
    tables: Tables, gathered: Gathered, task: TaskRecord, problem: dict[str, str], at_least: float
) -> None:
    ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**task.attempt)
    wait = max(at_least, ceiling * tables.chance.random())
    task.move(TaskState.QUEUED)
    task.attempt += 1
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
    task, verdict = _judge(tables, tenant, fence)
    if verdict == "cancel":
        return stop_task(tables, tenant, fence, "")
    if verdict != "ok":
        return _refuse(tables, task, fence, "release")
    gathered = Gathered()
    task.move(TaskState.QUEUED)
    task.run_after = tables.now()
    gathered.wakes.append(wake_of(task))
    note_task(tables, gathered, task, "task.released", agent_id=task.agent_id, data={"reason": reason})
    return _written(tables, "ok", task, gathered)


def stop_task(tables: Tables, tenant: str, fence: Fence, partial: str) -> Written:
    """T29: what the owner was asked for decides the state; asked for nothing, the task waits again."""
    task, verdict = _judge(tables, tenant, fence)
    if verdict not in ("ok", "cancel"):
        return _refuse(tables, task, fence, "stop")
    gathered = Gathered()
    if partial:
        keep_result(tables, task, TaskResult(text=partial), standing="proposed", usage=Usage())
    if task.stop_requested == "cancel":
        end_task(tables, gathered, task, TaskState.CANCELLED)
    elif task.stop_requested == "expire" or task.deadline <= tables.now():
        end_task(tables, gathered, task, TaskState.EXPIRED)
    else:
        task.move(TaskState.ESCALATED if task.stop_requested == "escalate" else TaskState.QUEUED)
        task.stop_requested = None
        note_task(tables, gathered, task, f"task.{task.state}", agent_id=task.agent_id)
    return _written(tables, "ok", task, gathered)


def _book(job: JobRecord, usage: Usage) -> None:
    """One call of unknown price makes the sum unknown."""
    job.used = job.used + usage


def _problem(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message[:MESSAGE_CHARACTERS]}
