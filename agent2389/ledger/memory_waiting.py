"""What tasks of the in-memory ledger wait for: timers, people, approvals, foreign agents."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from agent2389.errors import Conflict, InputRefused, NotFound
from agent2389.ledger.memory_owners import book, judge_fence, refuse, written
from agent2389.ledger.memory_parts import Gathered, as_text, note_task, show_on_board, zulu
from agent2389.ledger.memory_tables import ResultRecord, Tables, TaskRecord
from agent2389.ledger.memory_what_follows import ask_person, go_on, problem_of, queue_again, reaches_too_far
from agent2389.ledger.records import ApprovalRequest, Failure, Fence, Finish, Waiting, Written
from agent2389.ledger.states import TaskState
from agent2389.ledger.views import ApprovalRow, ForeignTask

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0
QUESTION_CHARACTERS = 2000
PERSON = "person:"
"""Before the name of whoever answered in an agent's place."""


def wait(tables: Tables, tenant: str, fence: Fence, waiting: Waiting) -> Written:
    """T24: the lease is given up. Nothing left to wait for answers ``already``."""
    task, verdict = judge_fence(tables, tenant, fence)
    if verdict == "cancel":
        return written(tables, "cancel", task)
    if verdict != "ok":
        return refuse(tables, task, fence, "wait")
    for request in waiting.approvals:
        _ask(tables, task, request)
    if waiting.reason == "approval" and not _pending(tables, task):
        return written(tables, "already", task)
    gathered = Gathered()
    book(tables.job_of(task), waiting.usage)
    task.move(TaskState.WAITING)
    task.waiting = waiting.reason
    if waiting.reason == "timer":
        task.run_after = waiting.until or tables.now()
    else:
        task.paused_at = tables.now()
    question = waiting.question[:QUESTION_CHARACTERS] if waiting.question else None
    data = {"for": waiting.reason, "question": question}
    note_task(tables, gathered, task, "task.waiting", agent_id=task.agent_id, data=data)
    return written(tables, "ok", task, gathered)


def _ask(tables: Tables, task: TaskRecord, request: ApprovalRequest) -> None:
    wanted = (task.tenant, task.task_id, request.tool, request.arguments_sha256)
    known = next(
        (
            row
            for (tenant, _), row in tables.approvals.items()
            if (tenant, row.task_id, row.tool, row.arguments_sha256) == wanted
        ),
        None,
    )
    if known is not None:
        if known.state != "withdrawn":
            return
        # A question that was withdrawn is asked again under its old id.
        request = msgspec.structs.replace(request, approval_id=known.approval_id)
    asked = ApprovalRow(
        **{**msgspec.structs.asdict(request), "question": request.question[:QUESTION_CHARACTERS]},
        job_id=task.job_id,
        task_id=task.task_id,
        state="pending",
        actor=None,
        reason=None,
        asked_at=tables.now(),
        decided_at=None,
    )
    tables.approvals[task.tenant, asked.approval_id] = asked
    shown = {
        **msgspec.structs.asdict(request),
        "job_id": task.job_id,
        "task_id": task.task_id,
        "asked_at": zulu(asked.asked_at),
    }
    show_on_board(tables, task.tenant, "approval", (asked.approval_id,), as_text(shown))


def _pending(tables: Tables, task: TaskRecord) -> bool:
    return any(
        (tenant, row.task_id, row.state) == (task.tenant, task.task_id, "pending")
        for (tenant, _), row in tables.approvals.items()
    )


def approvals(tables: Tables, tenant: str, *, state: str | None, limit: int) -> Sequence[ApprovalRow]:
    """Newest first."""
    mine = [row for key, row in tables.approvals.items() if key[0] == tenant and state in (None, row.state)]
    return tuple(sorted(mine, key=lambda row: row.asked_at, reverse=True)[:limit])


def decide_approval(
    tables: Tables, tenant: str, approval_id: str, decision: str, *, sha256: str, actor: str, reason: str
) -> Written:
    """A person decides about the exact arguments that were shown; the last decision wakes the task."""
    asked = tables.approvals.get((tenant, approval_id))
    if asked is None:
        raise NotFound("there is no such approval")
    if decision not in ("approved", "rejected"):
        raise InputRefused("invalid", "a decision is approved or rejected")
    if asked.arguments_sha256 != sha256:
        raise InputRefused("mismatch", "the decision is about other arguments than the question")
    task = tables.tasks[tenant, asked.task_id]
    if asked.state == decision:
        return written(tables, "already", task)
    if asked.state != "pending":
        raise Conflict(f"the approval is {asked.state} already")
    gathered = Gathered()
    tables.approvals[tenant, approval_id] = msgspec.structs.replace(
        asked, state=decision, actor=actor, reason=reason[:QUESTION_CHARACTERS], decided_at=tables.now()
    )
    show_on_board(tables, tenant, "approval", (approval_id,), None)
    data = {
        "approval_id": approval_id,
        "tool": asked.tool,
        "arguments_sha256": sha256,
        "actor": actor,
        "reason": reason,
    }
    note_task(tables, gathered, task, f"approval.{decision}", data=data)
    if task.waiting == "approval" and not _pending(tables, task):
        queue_again(tables, gathered, task, "task.resumed", data={})
    return written(tables, "ok", task, gathered)


# foreign agents ---------------------------------------------------------------------------


def foreign_tasks(tables: Tables, tenant: str, limit: int) -> Sequence[ForeignTask]:
    """Tasks bound to agents that never registered here, due or forwarded; the agents take turns."""
    ours = {entry.record.agent_id for key, entry in tables.agents.items() if key[0] == tenant}
    now = tables.now()
    found = [
        task
        for task in tables.tasks.values()
        if task.tenant == tenant
        and task.bound_agent is not None
        and task.bound_agent not in ours
        and (task.state is TaskState.FORWARDED or (task.state is TaskState.QUEUED and task.run_after <= now))
    ]
    chosen = [
        task
        for state in (TaskState.QUEUED, TaskState.FORWARDED)
        for task in _in_turns([task for task in found if task.state is state])[:limit]
    ]
    return tuple(_foreign(tables, task) for task in sorted(chosen, key=lambda task: task.claim_order))


def _in_turns(tasks: Sequence[TaskRecord]) -> list[TaskRecord]:
    """The first task of every agent, then the second of every agent, and so on."""
    turns: Counter[str | None] = Counter()
    places: list[tuple[int, tuple[int, int], TaskRecord]] = []
    for task in sorted(tasks, key=lambda task: task.claim_order):
        places.append((turns[task.bound_agent], task.claim_order, task))
        turns[task.bound_agent] += 1
    return [task for _, _, task in sorted(places, key=lambda place: place[:2])]


def _foreign(tables: Tables, task: TaskRecord) -> ForeignTask:
    new = tables.job_of(task).new
    return ForeignTask(
        task_id=task.task_id,
        job_id=task.job_id,
        agent_id=task.bound_agent or "",
        state=task.state,
        attempt=task.forwards - (task.state is TaskState.FORWARDED),
        instruction=task.instruction if task.instruction is not None else new.instruction,
        input=task.input,
        next=task.next,
        deadline=task.deadline,
        wire_task_id=task.wire_task_id,
        conversation_id=new.conversation_id,
        hop=task.hop,
    )


def forward(tables: Tables, tenant: str, task_id: str, until: datetime) -> Written | None:
    """T26: it is being sent; ``None`` when somebody else did."""
    task = tables.tasks.get((tenant, task_id))
    now = tables.now()
    if task is None or task.state is not TaskState.QUEUED or task.bound_agent is None or task.run_after > now:
        return None
    gathered = Gathered()
    task.move(TaskState.FORWARDED)
    task.run_after, task.claimed_at, task.rung = min(until, task.deadline), now, True
    task.agent_id = task.bound_agent
    task.forwards += 1
    data = {"attempt": task.attempt}
    note_task(tables, gathered, task, "task.forwarded", agent_id=task.bound_agent, data=data)
    return written(tables, "ok", task, gathered)


def forward_ended(
    tables: Tables, tenant: str, task_id: str, attempt: int, outcome: Finish | Failure
) -> Written:
    """T27: a repeat, or an answer after another sending, answers ``already``.

    An answer that would go on beyond the hop limit is kept for a person.
    """
    task = tables.tasks.get((tenant, task_id))
    if task is None:
        raise NotFound("there is no such task")
    if task.state is not TaskState.FORWARDED or task.forwards - 1 != attempt:
        return written(tables, "already", task)
    gathered = Gathered()
    if isinstance(outcome, Failure):
        forward_failed(tables, gathered, task, outcome.message)
        return written(tables, "ok", task, gathered)
    task.epoch += 1
    if reaches_too_far(tables, task, outcome):
        keep_unowned(tables, task, outcome, agent_id=task.agent_id or "", standing="proposed")
        most = tables.job_of(task).new.max_hops
        message = f"the hop limit of {most} is reached and the work is not complete"
        problem = problem_of("internal_error", message)
        ask_person(tables, gathered, task, problem, data={}, agent_id=task.agent_id)
        return written(tables, "ok", task, gathered)
    task.move(TaskState.COMPLETED)
    task.finished_at, task.error = tables.now(), None
    keep_unowned(tables, task, outcome, agent_id=task.agent_id or "")
    data = {"hop": task.hop, "foreign": True}
    note_task(tables, gathered, task, "task.completed", agent_id=task.agent_id, data=data)
    files = dict(tables.workspaces.get((tenant, task_id), {}))
    go_on(tables, gathered, task, msgspec.structs.replace(outcome, manifest=files))
    return written(tables, "ok", task, gathered)


def keep_unowned(
    tables: Tables, task: TaskRecord, done: Finish, *, agent_id: str, standing: str = "current"
) -> None:
    """The result of somebody who never claimed: a foreign agent, a person. People route nothing."""
    tables.results.setdefault((task.tenant, task.task_id), {})[task.epoch] = ResultRecord(
        task_id=task.task_id,
        job_id=task.job_id,
        epoch=task.epoch,
        standing=standing,
        payload=done.result,
        decision=None if agent_id.startswith(PERSON) else done.decision,
        usage=done.usage,
        agent_id=agent_id,
        incarnation=None,
        token=tables.token(),
        at=tables.now(),
    )


def forward_failed(tables: Tables, gathered: Gathered, task: TaskRecord, message: str) -> None:
    """Another attempt after back-off; with the attempts used up a person is asked."""
    problem = problem_of("internal_error", message)
    task.begin_anew(task.attempt + 1)
    task.error = problem
    if task.attempt < task.max_attempts:
        ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (task.attempt - 1))
        wait_seconds = ceiling * tables.chance.random()
        data = {**problem, "attempt": task.attempt}
        queue_again(tables, gathered, task, "task.retry", data=data, wait=wait_seconds)
    else:
        ask_person(tables, gathered, task, problem, data=dict(problem), agent_id=task.bound_agent)
