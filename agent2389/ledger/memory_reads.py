"""What front doors read of the in-memory ledger."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from agent2389.errors import NotFound
from agent2389.ledger.memory_agents import history
from agent2389.ledger.memory_parts import ALIVE, job_state
from agent2389.ledger.memory_tables import AgentEntry, JobRecord, ResultRecord, Tables, TaskRecord
from agent2389.ledger.records import Change, Usage
from agent2389.ledger.states import OWNED, AgentState, JobState, TaskState
from agent2389.ledger.views import AgentRow, DecisionRow, JobDetail, JobRow, PoolRow, TaskRow, Unsent

DAY = timedelta(days=1)
INSTRUCTION_CHARACTERS = 500
ANSWER_CHARACTERS = 6000


def jobs(
    tables: Tables, tenant: str, *, state: JobState | None, limit: int, before: str | None
) -> Sequence[JobRow]:
    """Newest first, after ``before``; an unknown ``before`` has nothing after it."""
    found = _newest_first(tables, tenant)
    if before is not None:
        mark = tables.jobs.get((tenant, before))
        found = [job for job in found if mark is not None and job.seq < mark.seq]
    if state is not None:
        found = [job for job in found if job_state(tables, job) == state]
    return tuple(_job_row(tables, job) for job in found[:limit])


def find_jobs(tables: Tables, tenant: str, prefix: str, limit: int) -> Sequence[str]:
    """Ids that start with ``prefix``, an exact one first; ``@last`` is the newest."""
    names = [job.new.job_id for job in _newest_first(tables, tenant)]
    if prefix == "@last":
        return tuple(names[:1])
    return tuple(
        sorted((name for name in names if name.startswith(prefix)), key=lambda name: name != prefix)[:limit]
    )


def job(tables: Tables, tenant: str, job_id: str) -> JobDetail:
    """A job with its hops and events. Raises ``NotFound``."""
    found = tables.jobs.get((tenant, job_id))
    if found is None:
        raise NotFound(f"there is no job {job_id}", hint="list them: agent2389 job list")
    final = tables.finals.get((tenant, job_id))
    return JobDetail(
        job=_job_row(tables, found),
        submission=found.new.submission,
        deadline=found.deadline,
        budget=found.new.budget,
        conversation_id=found.new.conversation_id,
        tasks=tuple(_task_row(tables, task) for task in tables.tasks_of(tenant, job_id)),
        changes=tuple(change for _, change in changes(tables, tenant, job_id, 0)),
        final=final.payload if final else None,
    )


def changes(tables: Tables, tenant: str, job_id: str, after: int) -> Sequence[tuple[int, Change]]:
    """Events of a job with their numbers."""
    return tuple(
        (event.id, event.change)
        for event in tables.events
        if event.id > after and (event.change.tenant, event.change.job_id) == (tenant, job_id)
    )


def decisions(
    tables: Tables, tenant: str, age_seconds: float, *, limit: int, before: tuple[datetime, str] | None
) -> Sequence[DecisionRow]:
    """Routing decisions, newest first, with what was known when they were made."""
    since = tables.now() - timedelta(seconds=age_seconds)
    found = [
        (result, tables.tasks[tenant, result.task_id])
        for (owner, _), epochs in tables.results.items()
        for result in epochs.values()
        if owner == tenant and result.decision is not None and result.at > since
        if before is None or (result.at, result.task_id) < before
    ]
    found.sort(key=lambda item: (item[0].at, item[0].task_id), reverse=True)
    return tuple(_decision_row(tables, *item) for item in found[:limit])


def _decision_row(tables: Tables, result: ResultRecord, task: TaskRecord) -> DecisionRow:
    job = tables.job_of(task)
    assert result.decision is not None
    return DecisionRow(
        job_id=result.job_id,
        task_id=result.task_id,
        hop=task.hop,
        max_hops=job.new.max_hops,
        at=result.at,
        capability=task.name,
        agent_id=result.agent_id or "",
        instruction=task.instruction or job.new.instruction or "",
        answer=result.payload.text[:ANSWER_CHARACTERS],
        next=task.next,
        decision=result.decision,
        history=history(tables, task),
    )


def agents(tables: Tables, tenant: str) -> Sequence[AgentRow]:
    """Incarnations of the last day, running ones first."""
    seen = [
        entry
        for entry in tables.agents.values()
        if entry.tenant == tenant and entry.last_beat > tables.now() - DAY
    ]
    seen.sort(key=lambda e: (e.state is not AgentState.RUNNING, e.record.agent_id, e.started_at, e.seq))
    return tuple(agent_row(tables, entry, tasks_running=_running(tables, entry)) for entry in seen)


def agent_row(tables: Tables, entry: AgentEntry, *, tasks_running: int) -> AgentRow:
    """One incarnation; ``lost`` is derived from a missing beat."""
    is_lost = entry.state is not AgentState.STOPPED and entry.last_beat < tables.now() - ALIVE
    record = entry.record
    return AgentRow(
        agent_id=record.agent_id,
        incarnation=record.incarnation,
        role=record.role,
        state=AgentState.LOST if is_lost else entry.state,
        capabilities=record.capabilities,
        description=record.description,
        slots=record.slots,
        free_slots=entry.free_slots,
        version=record.version,
        config_sha256=record.config_sha256,
        started_at=entry.started_at,
        last_beat=entry.last_beat,
        tasks_running=tasks_running,
        tasks_total=entry.tasks_total,
        metadata=record.metadata,
    )


def pools(tables: Tables, tenant: str) -> Sequence[PoolRow]:
    """Counts of every pool that has agents or open tasks."""
    since = tables.now() - ALIVE
    live = [
        entry
        for entry in tables.agents.values()
        if entry.tenant == tenant and entry.state is AgentState.RUNNING and entry.last_beat > since
    ]
    work = [
        task
        for task in tables.tasks.values()
        if task.tenant == tenant and task.state in OWNED | {TaskState.QUEUED}
    ]
    names = {pool for entry in live for pool in entry.pools} | {task.pool for task in work}
    return tuple(
        _pool_row(
            tables,
            name,
            [entry for entry in live if name in entry.pools],
            [task for task in work if task.pool == name],
        )
        for name in sorted(names)
    )


def _pool_row(tables: Tables, name: str, live: list[AgentEntry], work: list[TaskRecord]) -> PoolRow:
    queued = [task for task in work if task.state is TaskState.QUEUED]
    ages = (
        (tables.now() - max(task.queued_at, task.run_after)).total_seconds()
        for task in queued
        if task.run_after <= tables.now()
    )
    return PoolRow(
        pool=name,
        queued=len(queued),
        running=len(work) - len(queued),
        agents=len(live),
        free_slots=sum(entry.free_slots for entry in live),
        oldest_seconds=max(ages, default=0.0),
    )


def job_counts(tables: Tables, tenant: str) -> dict[JobState, int]:
    """Jobs by state, ended ones of the last day."""
    since = tables.now() - DAY
    return dict(
        Counter(
            job_state(tables, job)
            for job in tables.jobs.values()
            if job.tenant == tenant and (job.finished_at is None or job.finished_at > since)
        )
    )


def _newest_first(tables: Tables, tenant: str) -> list[JobRecord]:
    mine = (job for job in tables.jobs.values() if job.tenant == tenant)
    return sorted(mine, key=lambda job: job.seq, reverse=True)


def _running(tables: Tables, entry: AgentEntry) -> int:
    return sum(
        task.tenant == entry.tenant and task.owner == entry.record.incarnation
        for task in tables.tasks.values()
    )


def _job_row(tables: Tables, job: JobRecord) -> JobRow:
    new = job.new
    return JobRow(
        job_id=new.job_id,
        state=job_state(tables, job),
        capability=new.capability or "",
        agent=new.agent,
        instruction=None if new.instruction is None else new.instruction[:INSTRUCTION_CHARACTERS],
        priority=new.priority,
        source=new.source,
        created_at=job.created_at,
        finished_at=job.finished_at,
        open_tasks=job.open_tasks,
        hops=job.hops,
        usage=job.used,
        note=job.note,
        retry_of=job.retry_of,
    )


def _task_row(tables: Tables, task: TaskRecord) -> TaskRow:
    result = tables.results.get((task.tenant, task.task_id), {}).get(task.epoch)
    return TaskRow(
        task_id=task.task_id,
        hop=task.hop,
        capability=task.name,
        bound_agent=task.bound_agent,
        state=task.state,
        priority=task.priority,
        attempt=task.attempt,
        crashes=task.crashes,
        epoch=task.epoch,
        agent_id=task.agent_id,
        reason=task.reason,
        queued_at=task.queued_at,
        run_after=task.run_after,
        claimed_at=task.claimed_at,
        finished_at=task.finished_at,
        result=result.payload if result else None,
        error=task.error,
        usage=result.usage if result else Usage(),
        decision=result.decision if result else None,
        waiting_for=task.waiting,
        feedback=task.feedback,
        verifies=task.verifies,
        branch_of=task.joins,
    )


def unsent(tables: Tables, tenant: str) -> Unsent:
    """What is not sent yet, and since when."""
    since = [row.created_at for row in tables.outbox.values() if row.delivery.tenant == tenant]
    oldest = (tables.now() - min(since)).total_seconds() if since else 0.0
    return Unsent(pending=len(since), oldest_seconds=oldest)
