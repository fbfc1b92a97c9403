"""The parts that every transaction of the in-memory ledger is made of."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from agent2389.ledger.memory_tables import (
    BoardRow,
    EventRecord,
    Final,
    JobRecord,
    OutboxRow,
    ResultRecord,
    Tables,
    TaskRecord,
)
from agent2389.ledger.records import Change, Delivery, Effects, Json, TaskResult, Usage, Wake
from agent2389.ledger.states import AgentState, JobState, TaskState

ALIVE = timedelta(seconds=30)
"""Without a beat for so long an incarnation is lost."""

_WORST_FIRST = (
    (TaskState.DEAD, JobState.FAILED),
    (TaskState.EXPIRED, JobState.EXPIRED),
    (TaskState.CANCELLED, JobState.CANCELLED),
)
_SPOKEN = {
    JobState.FAILED: ("internal_error", "the job failed"),
    JobState.EXPIRED: ("expired", "the deadline passed"),
    JobState.CANCELLED: ("cancelled", "the job was cancelled"),
}
_CONVERSATION_CODES = {
    "tool_execution_failed",
    "llm_error",
    "invalid_input",
    "pipeline_depth_exceeded",
}


class Gathered:
    """Effects of a transaction while it runs."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.wakes: list[Wake] = []
        self.changes: list[Change] = []

    def effects(self) -> Effects:
        """What the committing process does now."""
        return Effects(tuple(self.deliveries), tuple(self.wakes), tuple(self.changes))


def zulu(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and ``Z``."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_text(document: Json) -> str:
    """JSON as it is stored: rendered once, sent as it is."""
    return msgspec.json.encode(document).decode()


def pool_of(capability: str | None, agent: str | None) -> str:
    """The pool whose agents may claim."""
    return capability if capability is not None else f"agent.{agent}"


def wake_of(task: TaskRecord) -> Wake:
    """The doorbell of a task that waits."""
    return Wake(task.tenant, task.pool, task.task_id, task.job_id, task.epoch, task.priority)


def note_job(tables: Tables, gathered: Gathered, job: JobRecord, kind: str, **fields: Any) -> None:
    """Write an event of a job; the committing process publishes it, too."""
    _note(
        tables,
        gathered,
        Change(tenant=job.tenant, job_id=job.new.job_id, type=kind, at=tables.now(), **fields),
    )


def note_task(tables: Tables, gathered: Gathered, task: TaskRecord, kind: str, **fields: Any) -> None:
    """Write an event of a task."""
    change = Change(
        tenant=task.tenant, job_id=task.job_id, task_id=task.task_id, type=kind, at=tables.now(), **fields
    )
    _note(tables, gathered, change)


def _note(tables: Tables, gathered: Gathered, change: Change) -> None:
    event = EventRecord(id=tables.number(), change=change)
    tables.events.append(event)
    tables.unsealed.append(event)
    gathered.changes.append(change)


def deliver(tables: Tables, gathered: Gathered, tenant: str, body: Json, **fields: Any) -> None:
    """Write an outbox row; the committing process sends it from memory."""
    delivery = Delivery(id=tables.number(), tenant=tenant, body=as_text(body), **fields)
    tables.outbox[delivery.id] = OutboxRow(delivery=delivery, created_at=tables.now())
    gathered.deliveries.append(delivery)


def show_on_board(tables: Tables, tenant: str, kind: str, key: tuple[str, ...], payload: str | None) -> None:
    """Set or clear a retained topic: a new version only when something changes."""
    row = tables.board.get((tenant, kind, key))
    if row is None:
        tables.board[tenant, kind, key] = BoardRow(payload=payload, version=1, changed_at=tables.now())
    elif row.payload != payload:
        row.payload, row.version, row.changed_at = payload, row.version + 1, tables.now()


def someone_lives(tables: Tables, tenant: str, pool: str, but_agent: str | None = None) -> bool:
    """Whether an agent of the pool has beaten lately; a paused one counts, it will come back."""
    return any(
        entry.tenant == tenant
        and pool in entry.pools
        and entry.record.agent_id != but_agent
        and entry.state in (AgentState.RUNNING, AgentState.PAUSED)
        and entry.last_beat > tables.now() - ALIVE
        for entry in tables.agents.values()
    )


def job_state(tables: Tables, job: JobRecord) -> JobState:
    """The state people see: derived from the tasks while the job is open."""
    if job.ended is not None:
        return job.ended
    tasks = tables.tasks_of(job.tenant, job.new.job_id)
    if any(task.state is TaskState.ESCALATED or task.waiting not in (None, "join") for task in tasks):
        return JobState.WAITING
    if job.hops > 1 or any(task.epoch > 0 for task in tasks):
        return JobState.RUNNING
    return JobState.QUEUED


def keep_result(
    tables: Tables,
    task: TaskRecord,
    payload: TaskResult,
    *,
    standing: str,
    usage: Usage,
    decision: Any = None,
) -> None:
    """Keep what this epoch answered. The caller has checked the fence."""
    tables.results.setdefault((task.tenant, task.task_id), {})[task.epoch] = ResultRecord(
        task_id=task.task_id,
        job_id=task.job_id,
        epoch=task.epoch,
        standing=standing,
        payload=payload,
        decision=decision,
        usage=usage,
        agent_id=task.agent_id,
        incarnation=task.owner,
        token=task.token or "",
        at=tables.now(),
    )


def close_job(tables: Tables, gathered: Gathered, last: TaskRecord, *, born: int) -> None:
    """Count one task less and ``born`` more; with none left the job ends: state, payload, board, answer."""
    job = tables.job_of(last)
    job.open_tasks += born - 1
    if job.open_tasks > 0:
        job.hops += born
        return
    tasks = [task for task in tables.tasks_of(job.tenant, last.job_id) if _counts(tables, task)]
    states = {task.state for task in tasks}
    job.ended = next((ended for state, ended in _WORST_FIRST if state in states), JobState.COMPLETED)
    job.finished_at = tables.now()
    if job.ended is JobState.COMPLETED:
        # The answer is the last hop's, not that of whichever task happened to end last.
        done = [task for task in tasks if task.state in (TaskState.COMPLETED, TaskState.VERIFIED)]
        last = max(done, key=lambda task: (task.hop, -task.branch, -task.slot))
    problem = _problem_of(job.ended, tasks)
    answer = _answer_of(tables, job, last)
    payload = as_text(_final(tables, job, answer, problem))
    tables.finals[job.tenant, last.job_id] = Final(job.ended, payload, job.finished_at)
    show_on_board(tables, job.tenant, "result", (last.job_id,), payload)
    note_job(tables, gathered, job, f"job.{job.ended}", agent_id=last.agent_id, data=dict(problem or {}))
    if job.new.conversation_id is not None:
        deliver(
            tables,
            gathered,
            job.tenant,
            {**_said(answer, problem), "task_id": last.wire_task_id or last.task_id},
            kind="conversation",
            job_id=last.job_id,
            agent_id=last.agent_id or last.bound_agent or "mesh",
            conversation_id=job.new.conversation_id,
        )


def _counts(tables: Tables, task: TaskRecord) -> bool:
    """Whether a task decides how its job ended: verifications do not, nor do spare branches of a join."""
    if task.verifies is not None:
        return False
    while task.joins is not None:
        task = tables.tasks[task.tenant, task.joins]
        if task.join_done >= (task.join_needed or 0):
            return False
    return True


def _problem_of(ended: JobState, tasks: list[TaskRecord]) -> dict[str, str] | None:
    if ended is JobState.COMPLETED:
        return None
    latest = sorted(tasks, key=lambda task: (-task.hop, task.branch, task.slot))
    known = next((task.error for task in latest if task.error), {})
    code, message = _SPOKEN[ended]
    return {"code": known.get("code", code), "message": known.get("message", message)}


def _answer_of(tables: Tables, job: JobRecord, last: TaskRecord) -> TaskResult | None:
    """The last hop's result; of a job that did not complete, what was answered before the end."""
    if job.ended is JobState.COMPLETED:
        current = tables.current_result(last)
        return current.payload if current else None
    # What a person or a judge did not want is not kept.
    stand = (
        row for row in tables.results_of(job.tenant, last.job_id) if row.standing in ("current", "proposed")
    )
    newest = max(stand, key=lambda row: row.at, default=None)
    return newest.payload if newest else None


def _said(answer: TaskResult | None, problem: dict[str, str] | None) -> dict[str, Json]:
    if problem is None:
        return {"response": answer.text if answer else ""}
    code = problem["code"] if problem["code"] in _CONVERSATION_CODES else "internal_error"
    return {"error": {"code": code, "message": problem["message"][:500]}}


def _final(
    tables: Tables, job: JobRecord, answer: TaskResult | None, problem: dict[str, str] | None
) -> dict[str, Json]:
    route = [
        {
            "task_id": task.task_id,
            "hop": task.hop,
            "capability": task.name,
            "agent_id": task.agent_id,
            "reason": task.reason,
            "started_at": zulu(task.claimed_at),
            "finished_at": zulu(task.finished_at),
        }
        for task in tables.tasks_of(job.tenant, job.new.job_id)
    ]
    tokens = job.used.input_tokens + job.used.output_tokens
    return {
        "job_id": job.new.job_id,
        "state": job.ended,
        **({"result": answer} if answer else {}),
        **({"error": problem} if problem else {}),
        "route": route,
        "usage": {"tokens": tokens, "cost_usd": job.used.cost_usd},
        **({"rehearsal": True} if job.rehearsal else {}),
        "finished_at": zulu(job.finished_at),
    }
