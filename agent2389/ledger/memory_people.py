"""What people may do to work and to agents of the in-memory ledger."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from agent2389.errors import Conflict, InputRefused, NotFound
from agent2389.ledger.memory_owners import written
from agent2389.ledger.memory_parts import ALIVE, Gathered, close_job, job_state, note_job, note_task, wake_of
from agent2389.ledger.memory_tables import JobRecord, Tables, TaskRecord, digest
from agent2389.ledger.memory_waiting import PERSON, keep_unowned
from agent2389.ledger.memory_what_follows import (
    FEEDBACK_CHARACTERS,
    NO_VERDICT,
    ask_person,
    call_off,
    end_task,
    give_time_back,
    go_on,
    judge,
    problem_of,
    proposed_result,
    queue_again,
    reaches_too_far,
    restand,
    withdraw_approvals,
)
from agent2389.ledger.records import Finish, NextTask, RouteDecision, Submitted, TaskResult, Usage, Written
from agent2389.ledger.states import AgentState, JobState, TaskState
from agent2389.wire.names import task_id_of

WORDS_CHARACTERS = 2000
ACKNOWLEDGE_SECONDS = 30.0
ACTIONS = ("retry", "accept", "answer", "cancel")
_WISHES = {"drain": AgentState.DRAINING, "stop": AgentState.STOPPED, "restart": AgentState.RESTARTING}


def decide(
    tables: Tables,
    tenant: str,
    task_id: str,
    action: str,
    *,
    actor: str,
    words: str | None,
    onward: NextTask | None,
) -> Written:
    """T21, and a person's word in place of a judge's."""
    task = tables.tasks.get((tenant, task_id))
    if task is None:
        raise NotFound("there is no such task")
    if not _asks_a_person(task):
        raise Conflict(f"the task is {task.state} and does not wait for a person")
    proposed = proposed_result(tables, task)
    if action not in ACTIONS:
        raise InputRefused("invalid", "an action is retry, accept, answer or cancel")
    if action == "accept" and proposed is None:
        raise Conflict("the task proposed no result that could be accepted")
    if action == "answer" and not words:
        raise InputRefused("invalid", "an answer needs words")
    if action in ("accept", "answer") and task.verifies is not None and onward is not None:
        raise InputRefused("invalid", "nothing follows a verification but what it judges")
    if action in ("accept", "answer") and onward is not None:
        _check_reach(tables, task, onward)
    gathered = Gathered()
    told = {} if words is None else {"words": words[:WORDS_CHARACTERS]}
    data: dict[str, object] = {"actor": actor, **told}
    note_task(tables, gathered, task, f"task.{action}_by_person", data=data)
    withdraw_approvals(tables, task)
    _call_off_verdict(tables, gathered, task)
    give_time_back(tables, task)
    match action:
        case "cancel":
            end_task(tables, gathered, task, TaskState.CANCELLED)
            if task.verifies is not None:
                judge(tables, gathered, task, None, words or NO_VERDICT, person=f"{PERSON}{actor}")
        case "retry":
            restand(tables, task, current=None)
            task.begin_anew(0, words[:FEEDBACK_CHARACTERS] if words else None)
            task.crashes = task.misses = 0
            task.error = task.stop_requested = None
            queue_again(tables, gathered, task, "task.retry", data=data)
        case _:
            _settle(tables, gathered, task, data, words=words if action == "answer" else None, onward=onward)
    return written(tables, "ok", task, gathered)


def _check_reach(tables: Tables, task: TaskRecord, onward: NextTask) -> None:
    done = msgspec.structs.replace(_nothing_more(tables, task, ""), next=(onward,))
    if reaches_too_far(tables, task, done):
        most = tables.job_of(task).new.max_hops
        raise Conflict(f"the hop limit of {most} is reached: nothing can follow the task")


def _asks_a_person(task: TaskRecord) -> bool:
    return (
        task.state is TaskState.ESCALATED
        or (task.state is TaskState.COMPLETED and task.held is not None)
        or task.waiting in ("person", "approval")
    )


def _settle(
    tables: Tables,
    gathered: Gathered,
    task: TaskRecord,
    data: dict[str, object],
    *,
    words: str | None,
    onward: NextTask | None,
) -> None:
    """The proposed result stands, or ``words`` are the result; then the way on.

    Of a verification it is the verdict that the judged result stands.
    """
    held = task.held or _nothing_more(tables, task, words or "")
    proposed = proposed_result(tables, task)
    restand(tables, task, current=proposed.epoch if proposed and words is None else None)
    task.move(TaskState.VERIFIED if task.state is TaskState.COMPLETED else TaskState.COMPLETED)
    if words is not None:
        task.epoch += 1
        answer = msgspec.structs.replace(held, result=TaskResult(text=words), usage=Usage())
        keep_unowned(tables, task, answer, agent_id=f"{PERSON}{data['actor']}")
    task.held = task.paused_at = task.error = task.stop_requested = None
    task.finished_at = tables.now()
    note_task(tables, gathered, task, "task.completed", data={**data, "hop": task.hop})
    if task.verifies is not None:
        said = words if words is not None or proposed is None else proposed.payload.text
        judge(tables, gathered, task, "approved", said or "", person=f"{PERSON}{data['actor']}")
        close_job(tables, gathered, task, born=0)
        return
    if onward is not None:
        held = msgspec.structs.replace(held, next=(onward,), join=None)
    go_on(tables, gathered, task, held)


def _nothing_more(tables: Tables, task: TaskRecord, text: str) -> Finish:
    decision = RouteDecision(strategy="person", outcome="done", reason="a person decided")
    files = dict(tables.workspaces.get((task.tenant, task.task_id), {}))
    return Finish(result=TaskResult(text=text), usage=Usage(), decision=decision, manifest=files)


def _call_off_verdict(tables: Tables, gathered: Gathered, task: TaskRecord) -> None:
    """The verification that runs meanwhile has nothing to judge any more."""
    for other in tables.tasks_of(task.tenant, task.job_id):
        if other.verifies == task.task_id:
            call_off(tables, gathered, other)


def escalate(
    tables: Tables, tenant: str, job_id: str, *, task_id: str | None, actor: str, reason: str
) -> Written:
    """T28 for one task or every open one; owned ones through the beat."""
    job = _job(tables, tenant, job_id)
    if job.ended is not None:
        return Written(verdict="already", job_state=job.ended)
    gathered = Gathered()
    data = {"actor": actor, "reason": reason}
    note_job(tables, gathered, job, "job.escalation_requested", task_id=task_id, data=data)
    for task in sorted(tables.tasks_of(tenant, job_id), key=lambda task: task.task_id):
        if (
            task_id not in (None, task.task_id)
            or not task.is_open
            or task.state is TaskState.ESCALATED
            or task.waiting == "join"
            or task.verifies is not None
        ):
            continue
        if task.owner is not None:
            task.stop_requested = task.stop_requested or "escalate"
        else:
            _call_off_verdict(tables, gathered, task)
            ask_person(tables, gathered, task, problem_of("internal_error", reason), data={"actor": actor})
    return Written(verdict="ok", job_state=job_state(tables, job), effects=gathered.effects())


def clone(
    tables: Tables, tenant: str, job_id: str, new_id: str, *, actor: str, correction: str | None
) -> Submitted:
    """T22: a new job with the same submission, or one that is complete with the corrected result."""
    source = _job(tables, tenant, job_id)
    if source.ended is None:
        raise Conflict("the job is still open")
    if correction is not None and source.ended is not JobState.COMPLETED:
        raise Conflict("only a completed result can be corrected")
    if (tenant, new_id) in tables.jobs:
        raise Conflict("another job has this id")
    if (tenant, new_id) in tables.tombstones:
        raise Conflict("another job had this id")
    now, gathered = tables.now(), Gathered()
    origin = tables.tasks[tenant, task_id_of(job_id, "", 0)]
    new = msgspec.structs.replace(
        source.new,
        job_id=new_id,
        content_hash=digest((source.new.content_hash + new_id).encode()),
        source="clone",
        conversation_id=None,
        wire_task_id=None,
        reply_to=None,
        correlation=None,
    )
    job = JobRecord(
        tenant=tenant,
        new=new,
        seq=tables.number(),
        deadline=now + (source.deadline - source.created_at),
        note=None,
        created_at=now,
        last_seen=now,
        retry_of=job_id,
    )
    task = TaskRecord(
        tenant=tenant,
        task_id=task_id_of(new_id, "", 0),
        job_id=new_id,
        seq=tables.number(),
        hop=1,
        pool=origin.pool,
        capability=origin.capability,
        bound_agent=origin.bound_agent,
        instruction=origin.instruction,
        input=origin.input,
        next=origin.next,
        reason=f"clone of {job_id}",
        priority=origin.priority,
        run_after=now,
        deadline=job.deadline,
        wire_task_id=None,
        queued_at=now,
    )
    tables.jobs[tenant, new_id] = job
    tables.tasks[tenant, task.task_id] = task
    tables.workspaces[tenant, task.task_id] = {file.name: file for file in new.files}
    data = {"pool": task.pool, "source": "clone", "retry_of": job_id, "actor": actor}
    note_task(tables, gathered, task, "job.accepted", data=data)
    if correction is None:
        gathered.wakes.append(wake_of(task))
    else:
        problem = problem_of("internal_error", "a person corrects the result")
        ask_person(tables, gathered, task, problem, data={})
        said: dict[str, object] = {"actor": actor, "words": correction[:WORDS_CHARACTERS]}
        note_task(tables, gathered, task, "task.answer_by_person", data=said)
        _settle(tables, gathered, task, said, words=correction, onward=None)
    return Submitted(
        job_id=new_id, verdict="accepted", state=job_state(tables, job), effects=gathered.effects()
    )


def assign(tables: Tables, tenant: str, task_id: str, incarnation: str, *, actor: str) -> Written:
    """T5 by an operator: the named incarnation has thirty seconds to take it."""
    entry = tables.agents.get((tenant, incarnation))
    now = tables.now()
    if entry is None or entry.state is not AgentState.RUNNING or entry.last_beat <= now - ALIVE:
        raise NotFound("no such incarnation is running")
    task = tables.tasks.get((tenant, task_id))
    if (
        task is None
        or task.state is not TaskState.QUEUED
        or task.pool not in entry.pools
        or task.not_agent == entry.record.agent_id
    ):
        raise Conflict("the task is not queued for that agent")
    gathered = Gathered()
    task.move(TaskState.ASSIGNED)
    task.epoch += 1
    task.owner, task.agent_id, task.token = incarnation, entry.record.agent_id, tables.token()
    task.lease_seconds, task.lease_until = ACKNOWLEDGE_SECONDS, now + timedelta(seconds=ACKNOWLEDGE_SECONDS)
    task.claimed_at, task.rung = now, True
    wake = msgspec.structs.replace(wake_of(task), pool=f"agent.{entry.record.agent_id}")
    gathered.wakes.append(wake)
    data = {"actor": actor, "incarnation": incarnation, "epoch": task.epoch}
    note_task(tables, gathered, task, "task.assigned", agent_id=task.agent_id, data=data)
    return written(tables, "ok", task, gathered)


def command(
    tables: Tables, tenant: str, agent_id: str, action: str, *, incarnation: str | None
) -> Sequence[str]:
    """Pause, resume, drain, stop or restart; the incarnations that it concerns."""
    if action not in ("pause", "resume", *_WISHES):
        raise InputRefused("invalid", "an action is pause, resume, drain, stop or restart")
    mine = [
        entry
        for entry in tables.agents.values()
        if (entry.tenant, entry.record.agent_id) == (tenant, agent_id)
    ]
    if not mine:
        raise NotFound("there is no such agent")
    live = [
        entry
        for entry in mine
        if entry.state is not AgentState.STOPPED and incarnation in (None, entry.record.incarnation)
    ]
    if action == "pause":
        tables.pauses.add((tenant, agent_id))
    elif action == "resume":
        tables.pauses.discard((tenant, agent_id))
    else:
        for entry in live:
            entry.desired_state = _WISHES[action]
    since = tables.now() - ALIVE
    concerned = sorted((entry for entry in live if entry.last_beat > since), key=lambda e: e.started_at)
    return tuple(entry.record.incarnation for entry in concerned)


def _job(tables: Tables, tenant: str, job_id: str) -> JobRecord:
    job = tables.jobs.get((tenant, job_id))
    if job is None:
        raise NotFound("there is no such job")
    return job
