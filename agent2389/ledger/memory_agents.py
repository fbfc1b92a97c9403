"""What agents ask of the in-memory ledger before they work: register, beat, claim."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec

from agent2389.errors import Conflict
from agent2389.ledger.fleet import AgentRecord, Beat, BeatReply
from agent2389.ledger.memory_parts import ALIVE, Gathered, note_task
from agent2389.ledger.memory_tables import LONG_AGO, AgentEntry, Grant, Tables, TaskRecord, digest
from agent2389.ledger.records import Claim, Fence, StepSummary
from agent2389.ledger.states import AgentState, TaskState

PASSED_OVER = timedelta(seconds=1)
"""What waits shorter has its doorbell: no beat calls it backlog."""
MOST_PEERS = 256
SUMMARY_CHARACTERS = 2000


def register(tables: Tables, tenant: str, record: AgentRecord) -> None:
    """Enter or refresh an incarnation; a singleton that lives already is a ``Conflict``."""
    now = tables.now()
    if record.singleton and any(
        entry.record.agent_id == record.agent_id
        and entry.record.incarnation != record.incarnation
        and entry.state is not AgentState.STOPPED
        and entry.last_beat > now - ALIVE
        for entry in _of_tenant(tables, tenant)
    ):
        raise Conflict(
            "another incarnation of this singleton agent lives",
            hint="stop the other one or wait 30 s after it died",
        )
    entry = tables.agents.get((tenant, record.incarnation))
    if entry is not None:
        entry.last_beat, entry.presence_cleared = now, False
        return
    tables.agents[tenant, record.incarnation] = AgentEntry(
        tenant=tenant,
        record=record,
        seq=tables.number(),
        state=AgentState.STARTING,
        free_slots=record.slots,
        started_at=now,
        last_beat=now,
    )


def stopped(tables: Tables, tenant: str, incarnation: str) -> bool:
    """The process ends; true when nobody else runs under its agent id."""
    entry = tables.agents.get((tenant, incarnation))
    if entry is None:
        return True
    entry.state, entry.free_slots, entry.last_beat = AgentState.STOPPED, 0, tables.now()
    return not any(
        other is not entry
        and other.record.agent_id == entry.record.agent_id
        and other.state in (AgentState.RUNNING, AgentState.PAUSED)
        and other.last_beat > tables.now() - ALIVE
        for other in _of_tenant(tables, tenant)
    )


def beat(tables: Tables, tenant: str, told: Beat, chores: Mapping[str, float]) -> BeatReply:
    """Extend the leases of the held tasks and tell all that an agent needs to know."""
    now = tables.now()
    entry = tables.agents.get((tenant, told.incarnation))
    if entry is not None and entry.state is AgentState.STOPPED:
        entry = None
    if entry is not None:
        entry.state, entry.free_slots = told.state, told.free_slots
        entry.last_beat, entry.presence_cleared = now, False
    pools = entry.pools if entry else ()
    peers = _peers(tables, tenant, pools)
    peers_digest = digest(msgspec.json.encode(peers, order="deterministic"))
    waiting = [
        task
        for task in tables.tasks.values()
        if task.tenant == tenant and task.state is TaskState.QUEUED and task.pool in pools
    ]
    return BeatReply(
        tasks={fence.task_id: _hold(tables, tenant, fence) for fence in told.held},
        desired_state=_wish(tables, entry) if entry else None,
        known=entry is not None,
        peers_digest=peers_digest,
        peers=None if peers_digest == told.known_peers else peers,
        backlog=any(
            max(task.run_after, task.queued_at) <= now - PASSED_OVER
            and entry is not None
            and task.not_agent != entry.record.agent_id
            for task in waiting
        ),
        due=tuple(
            name
            for name, seconds in chores.items()
            if tables.chores.get((tenant, name), LONG_AGO) < now - timedelta(seconds=2 * seconds)
        ),
        ops_alive=any(
            other.record.role == "ops" and other.state is AgentState.RUNNING and other.last_beat > now - ALIVE
            for other in _of_tenant(tables, tenant)
        ),
        next_due_seconds=min(
            ((task.run_after - now).total_seconds() for task in waiting if not task.rung), default=None
        ),
    )


def _wish(tables: Tables, entry: AgentEntry) -> AgentState | None:
    if entry.desired_state is not None:
        return entry.desired_state
    if (entry.tenant, entry.record.agent_id) in tables.pauses:
        return AgentState.PAUSED
    return AgentState.RUNNING if entry.state is AgentState.PAUSED else None


def _hold(tables: Tables, tenant: str, fence: Fence) -> str:
    """T10: a live lease is extended whatever the answer, so that the owner can stop in peace."""
    task = tables.tasks.get((tenant, fence.task_id))
    if task is None or not holds(tables, task, fence):
        return "lost"
    task.lease_until = tables.now() + timedelta(seconds=task.lease_seconds)
    if task.stop_requested is not None:
        if task.stop_requested == "cancel":
            tables.told_to_cancel.add((tenant, task.task_id))
        return task.stop_requested
    return "expire" if task.deadline <= tables.now() else "ok"


def holds(tables: Tables, task: TaskRecord, fence: Fence) -> bool:
    """The fence: this epoch, its token, its lease."""
    return (
        task.epoch == fence.epoch
        and task.token == fence.token
        and task.lease_until is not None
        and task.lease_until > tables.now()
    )


def _peers(tables: Tables, tenant: str, pools: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    since = tables.now() - ALIVE
    able = [
        entry
        for entry in _of_tenant(tables, tenant)
        if entry.state is AgentState.RUNNING and entry.free_slots > 0 and entry.last_beat > since
    ]
    found = {
        pool: tuple(sorted(entry.record.incarnation for entry in able if pool in entry.pools)[:MOST_PEERS])
        for pool in pools
    }
    return {pool: members for pool, members in found.items() if members}


def claim(
    tables: Tables,
    tenant: str,
    incarnation: str,
    *,
    wanted: Callable[[TaskRecord], bool],
    limit: int,
    lease_seconds: float,
) -> list[Claim]:
    """T5 to T7: up to ``limit`` tasks of the agent's pools, urgent first, then old."""
    entry = tables.agents.get((tenant, incarnation))
    if entry is None or entry.state is not AgentState.RUNNING:
        return []
    now = tables.now()
    claimable = [
        task
        for task in tables.tasks.values()
        if task.tenant == tenant
        and task.state is TaskState.QUEUED
        and task.pool in entry.pools
        and task.run_after <= now < task.deadline
        and task.not_agent != entry.record.agent_id
        and wanted(task)
    ]
    claimable.sort(key=lambda task: task.claim_order)
    assigned = [
        task
        for task in tables.tasks.values()
        if (task.tenant, task.owner, task.state) == (tenant, incarnation, TaskState.ASSIGNED)
        and task.lease_until is not None
        and task.lease_until > now
        and wanted(task)
    ]
    return [_win(tables, entry, task, lease_seconds) for task in [*assigned, *claimable][:limit]]


def _win(tables: Tables, entry: AgentEntry, task: TaskRecord, lease_seconds: float) -> Claim:
    now, token = tables.now(), tables.token()
    if task.state is TaskState.ASSIGNED:
        task.move(TaskState.ACKED)
    else:
        task.epoch += 1
    task.move(TaskState.IN_PROGRESS)
    task.owner, task.agent_id, task.token = entry.record.incarnation, entry.record.agent_id, token
    task.lease_seconds, task.lease_until = lease_seconds, now + timedelta(seconds=lease_seconds)
    task.claimed_at, task.rung = now, True
    grants = tables.grants.setdefault((task.tenant, task.task_id), {})
    grants[task.epoch] = Grant(entry.record.incarnation, token, now)
    note_task(
        tables,
        Gathered(),
        task,
        "task.claimed",
        agent_id=entry.record.agent_id,
        data={"epoch": task.epoch, "hop": task.hop},
    )
    return _claim_record(tables, task, token)


def _claim_record(tables: Tables, task: TaskRecord, token: str) -> Claim:
    job = tables.job_of(task)
    new = job.new
    return Claim(
        fence=Fence(task.task_id, task.epoch, token),
        tenant=task.tenant,
        job_id=task.job_id,
        capability=task.name,
        bound_agent=task.bound_agent,
        hop=task.hop,
        max_hops=new.max_hops,
        attempt=task.attempt,
        crashes=task.crashes,
        priority=new.priority,
        instruction=task.instruction if task.instruction is not None else new.instruction,
        input=task.input,
        next=task.next,
        submission=new.submission,
        manifest=dict(tables.workspaces.get((task.tenant, task.task_id), {})),
        history=history(tables, task),
        budget=new.budget,
        used=job.used,
        lease_seconds=task.lease_seconds,
        queued_at=task.queued_at,
        deadline=task.deadline,
        conversation_id=new.conversation_id,
        wire_task_id=task.wire_task_id,
        traceparent=new.traceparent,
        source=new.source,
        feedback=task.feedback,
        verifies=task.verifies,
        branch_of=task.joins,
        approvals={
            f"{row.tool}:{row.arguments_sha256}": row.state
            for key, row in tables.approvals.items()
            if (key[0], row.task_id) == (task.tenant, task.task_id)
        },
    )


def history(tables: Tables, task: TaskRecord) -> tuple[StepSummary, ...]:
    """What every earlier hop answered, shortened for the next model."""
    earlier = [other for other in tables.tasks_of(task.tenant, task.job_id) if other.hop < task.hop]
    answered = [(step, tables.current_result(step)) for step in earlier]
    return tuple(
        StepSummary(
            hop=step.hop,
            capability=step.name,
            agent_id=step.agent_id or "",
            text=result.payload.text[:SUMMARY_CHARACTERS],
        )
        for step, result in answered
        if result is not None
    )


def _of_tenant(tables: Tables, tenant: str) -> list[AgentEntry]:
    return [entry for entry in tables.agents.values() if entry.tenant == tenant]
