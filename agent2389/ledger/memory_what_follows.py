"""What follows from a task in the in-memory ledger: the next ones, a join, a verdict, a person, the end."""

from datetime import timedelta

import msgspec

from agent2389.errors import InputRefused
from agent2389.ledger.memory_parts import (
    Gathered,
    close_job,
    note_task,
    pool_of,
    show_on_board,
    wake_of,
)
from agent2389.ledger.memory_tables import ResultRecord, Tables, TaskRecord
from agent2389.ledger.records import FIRST_VERIFICATION_SLOT, FileRef, Finish, Json, NextTask
from agent2389.ledger.states import TaskState
from agent2389.wire.names import task_id_of

BRANCH_CHARACTERS = 32_000
FEEDBACK_CHARACTERS = 8000
MESSAGE_CHARACTERS = 500
NO_VERDICT = "the verification ended without a verdict"


def problem_of(code: str, message: str) -> dict[str, str]:
    """An error as a task keeps it."""
    return {"code": code, "message": message[:MESSAGE_CHARACTERS]}


# ends and steps ----------------------------------------------------------------------


def end_task(
    tables: Tables,
    gathered: Gathered,
    task: TaskRecord,
    state: TaskState,
    problem: dict[str, str] | None = None,
) -> None:
    """End one task without a result that counts and, with the last one, its job."""
    if state is not TaskState.EXPIRED:
        give_time_back(tables, task)
    task.move(state)
    task.error = problem or task.error
    task.held = task.paused_at = None
    task.finished_at = tables.now()
    note_task(tables, gathered, task, f"task.{state}", agent_id=task.agent_id, data=dict(problem or {}))
    withdraw_approvals(tables, task)
    if task.join_needed is not None:
        _call_off_branches(tables, gathered, task)
    if task.joins is not None:
        _branch_ended(tables, gathered, task, well=False)
    elif task.verifies is not None and _leaves_a_question(tables, task):
        judge(tables, gathered, task, None, NO_VERDICT)
    close_job(tables, gathered, task, born=0)


def _leaves_a_question(tables: Tables, verification: TaskRecord) -> bool:
    """A result that has time left goes to a person when its verification took too long."""
    judged = tables.tasks[verification.tenant, verification.verifies or ""]
    if verification.state is TaskState.EXPIRED:
        return judged.deadline > tables.now()
    return verification.state is TaskState.DEAD


def call_off(tables: Tables, gathered: Gathered, task: TaskRecord) -> None:
    """T18, T19: ended when nobody owns it, else asked of its owner at the next beat."""
    if not task.is_open:
        return
    if task.owner is None:
        end_task(tables, gathered, task, TaskState.CANCELLED)
    else:
        task.stop_requested = "cancel"


def waits_on_person(tables: Tables, task: TaskRecord) -> bool:
    """Whether a person has the word about something that the task waits for."""
    return any(
        other.is_open
        and task.task_id in (other.joins, other.verifies)
        and (other.paused_at is not None or waits_on_person(tables, other))
        for other in tables.tasks_of(task.tenant, task.job_id)
    )


def give_time_back(tables: Tables, task: TaskRecord) -> None:
    """End a pause: the deadline moves by it, and whatever waits for the task has at least as long."""
    if task.paused_at is None:
        return
    task.deadline += tables.now() - task.paused_at
    task.paused_at = None
    above = tables.tasks.get((task.tenant, task.verifies or task.joins or ""))
    while above is not None:
        if above.is_open:
            above.deadline = max(above.deadline, task.deadline)
        above = tables.tasks.get((above.tenant, above.verifies or above.joins or ""))


def queue_again(
    tables: Tables,
    gathered: Gathered,
    task: TaskRecord,
    kind: str,
    *,
    data: dict[str, Json],
    wait: float = 0.0,
) -> None:
    """Back to the queue, at once or after ``wait`` seconds; a person's time is added to the deadline."""
    now = tables.now()
    give_time_back(tables, task)
    task.move(TaskState.QUEUED)
    task.held = task.finished_at = None
    task.run_after, task.rung = now + timedelta(seconds=wait), wait <= 0
    if wait <= 0:
        gathered.wakes.append(wake_of(task))
    note_task(tables, gathered, task, kind, agent_id=task.agent_id, data=data)


def ask_person(
    tables: Tables,
    gathered: Gathered,
    task: TaskRecord,
    problem: dict[str, str],
    *,
    data: dict[str, Json],
    agent_id: str | None = None,
) -> None:
    """A person has the word; deadlines do not run meanwhile."""
    task.move(TaskState.ESCALATED)
    task.stop_requested = task.finished_at = None
    task.error = problem
    task.paused_at = task.paused_at or tables.now()
    told = {**data, "message": problem["message"]}
    note_task(tables, gathered, task, "task.escalated", agent_id=agent_id, data=told)


def withdraw_approvals(tables: Tables, task: TaskRecord) -> None:
    """Questions of a task that goes on without them."""
    for key, asked in tables.approvals.items():
        if (key[0], asked.task_id, asked.state) == (task.tenant, task.task_id, "pending"):
            gone = msgspec.structs.replace(asked, state="withdrawn", decided_at=tables.now())
            tables.approvals[key] = gone
            show_on_board(tables, task.tenant, "approval", (asked.approval_id,), None)


# the way on ---------------------------------------------------------------------------


def reaches_too_far(tables: Tables, task: TaskRecord, done: Finish) -> bool:
    """Whether a hand-off would pass the hop limit; a branch leaves one hop for its join."""
    needed = 1 + (done.join is not None) + (task.joins is not None)
    return bool(done.next) and task.hop + needed > tables.job_of(task).new.max_hops


def check_next(done: Finish) -> None:
    """One task for each slot, each for a capability or for an agent: refused before anything is written."""
    items = [*done.next, *([done.join.task] if done.join else [])]
    slots = {item.slot for item in items}
    if len(slots) < len(items) or any((item.capability is None) == (item.agent is None) for item in items):
        raise InputRefused("invalid", "the ledger refuses a value that no rule of it allows")


def go_on(tables: Tables, gathered: Gathered, task: TaskRecord, done: Finish) -> None:
    """Hand-offs, branches with their join, or the end."""
    if not done.next:
        if task.joins is not None:
            _branch_ended(tables, gathered, task, well=True)
        close_job(tables, gathered, task, born=0)
        return
    joins = task.joins
    if done.join is not None:
        meeting = child_of(tables, task, done.join.task)
        meeting.hop, meeting.joins, meeting.branch = task.hop + 2, task.joins, task.branch
        meeting.state, meeting.states, meeting.waiting = TaskState.WAITING, [TaskState.WAITING], "join"
        meeting.join_needed, meeting.join_total = done.join.needed, len(done.next)
        tables.tasks[task.tenant, meeting.task_id] = meeting
        joins = meeting.task_id
    elif joins is not None and len(done.next) > 1:
        _more_branches(tables.tasks[task.tenant, joins], len(done.next) - 1)
    for item in done.next:
        child = child_of(tables, task, item)
        child.joins = joins
        child.branch = task.branch if done.join is None and len(done.next) == 1 else item.slot
        _announce(tables, gathered, child, done.manifest)
    close_job(tables, gathered, task, born=len(done.next) + (done.join is not None))


def child_of(tables: Tables, parent: TaskRecord, item: NextTask) -> TaskRecord:
    """A task after ``parent``; the same parent and slot give the same id, so repeats collide."""
    now = tables.now()
    return TaskRecord(
        tenant=parent.tenant,
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


def _announce(tables: Tables, gathered: Gathered, child: TaskRecord, files: dict[str, FileRef]) -> None:
    tables.tasks[child.tenant, child.task_id] = child
    tables.workspaces[child.tenant, child.task_id] = dict(files)
    gathered.wakes.append(wake_of(child))
    queued = {"pool": child.pool, "hop": child.hop, "reason": child.reason}
    note_task(tables, gathered, child, "task.queued", data=queued)


# branches ------------------------------------------------------------------------------


def _more_branches(meeting: TaskRecord, more: int) -> None:
    """A branch split without a join of its own: each part is a branch of the same join."""
    if meeting.join_needed == meeting.join_total:
        meeting.join_needed += more
    meeting.join_total += more


def _branch_ended(tables: Tables, gathered: Gathered, task: TaskRecord, *, well: bool) -> None:
    meeting = tables.tasks[task.tenant, task.joins or ""]
    # A task that waits for something else has all that it needed of its branches.
    if meeting.waiting != "join":
        return
    needed = meeting.join_needed or 0
    meeting.join_done += well
    meeting.join_failed += not well
    if meeting.join_done >= needed:
        _meet(tables, meeting)
        queue_again(tables, gathered, meeting, "task.joined", data={"branches": meeting.join_done})
        _call_off_branches(tables, gathered, meeting)
    elif meeting.join_total - meeting.join_failed < needed:
        message = f"{meeting.join_failed} of {meeting.join_total} branches failed and {needed} were needed"
        end_task(tables, gathered, meeting, TaskState.DEAD, problem_of("internal_error", message))


def _meet(tables: Tables, meeting: TaskRecord) -> None:
    """Give the joining task what the branches that count brought."""
    ends = _branch_ends(tables, meeting)
    told = []
    files: dict[str, FileRef] = {}
    for branch in ends:
        result = tables.current_result(branch)
        payload = result.payload if result else None
        entry = {
            "task_id": branch.task_id,
            "capability": branch.name,
            "agent_id": branch.agent_id,
            "text": payload.text[:BRANCH_CHARACTERS] if payload else None,
            "data": payload.data if payload else None,
        }
        told.append({key: value for key, value in entry.items() if value is not None})
        for path, file in sorted(tables.workspaces.get((branch.tenant, branch.task_id), {}).items()):
            same = path not in files or files[path].sha256 == file.sha256
            files[path if same else f"branch-{branch.branch}/{path}"] = file
    given = {} if meeting.input is None else {"input": meeting.input}
    meeting.input = {"branches": told, **given}
    meeting.hop = max(meeting.hop, 1 + max(branch.hop for branch in ends))
    tables.workspaces[meeting.tenant, meeting.task_id] = files


def _branch_ends(tables: Tables, meeting: TaskRecord) -> list[TaskRecord]:
    """The ends of the branches that count, in the order of the branches."""
    tasks = tables.tasks_of(meeting.tenant, meeting.job_id)
    went_on = {task.parent_task for task in tasks if task.verifies is None}
    ends = [
        task
        for task in tasks
        if task.joins == meeting.task_id
        and task.state in (TaskState.COMPLETED, TaskState.VERIFIED)
        and task.held is None
        and task.task_id not in went_on
    ]
    return sorted(ends, key=lambda task: (task.branch, task.hop, task.slot))


def _call_off_branches(tables: Tables, gathered: Gathered, meeting: TaskRecord) -> None:
    tasks = sorted(tables.tasks_of(meeting.tenant, meeting.job_id), key=lambda task: task.task_id)
    branches = {task.task_id for task in tasks if task.joins == meeting.task_id}
    for task in tasks:
        if task.task_id in branches or task.verifies in branches:
            call_off(tables, gathered, task)


# verdicts -------------------------------------------------------------------------------


def ask_verdict(tables: Tables, gathered: Gathered, task: TaskRecord, done: Finish) -> None:
    """T16, T17: a task of its own judges the result; never the agent that made it."""
    assert done.verify is not None
    slot = FIRST_VERIFICATION_SLOT + task.epoch
    judge_task = child_of(tables, task, msgspec.structs.replace(done.verify, slot=slot))
    given = {
        "instruction": task.instruction or tables.job_of(task).new.instruction,
        "answer": done.result.text,
        "data": done.result.data,
        "input": task.input,
    }
    judge_task.input = {key: value for key, value in given.items() if value is not None}
    judge_task.verifies, judge_task.not_agent = task.task_id, task.agent_id
    judge_task.reason = "verification"
    _announce(tables, gathered, judge_task, done.manifest)
    job = tables.job_of(task)
    job.open_tasks += 1
    job.hops += 1


def judge(
    tables: Tables,
    gathered: Gathered,
    by: TaskRecord,
    verdict: str | None,
    said: str,
    *,
    person: str | None = None,
) -> None:
    """``verdict`` is approved, refused, or ``None``: none was reached and a person is asked (T31).

    ``person`` ended the verification in place of the agent that had it.
    """
    task = tables.tasks[by.tenant, by.verifies or ""]
    if task.state is not TaskState.COMPLETED or task.held is None:
        return
    problem = problem_of("internal_error", said or "the result was refused")
    agent_id = None if person else by.agent_id
    data = {"verdict": verdict, "by": person or agent_id, "message": problem["message"]}
    if verdict == "approved":
        done = task.held
        restand(tables, task, current=task.epoch)
        task.move(TaskState.VERIFIED)
        task.held, task.finished_at = None, tables.now()
        note_task(tables, gathered, task, "task.verified", agent_id=agent_id, data=data)
        go_on(tables, gathered, task, done)
        return
    if verdict == "refused":
        restand(tables, task, current=None)
        if task.attempt + 1 < task.max_attempts:
            task.begin_anew(task.attempt + 1, said[:FEEDBACK_CHARACTERS])
            task.error = problem
            queue_again(tables, gathered, task, "task.refused", data=data)
            return
    ask_person(tables, gathered, task, problem, data=data, agent_id=agent_id)


def restand(tables: Tables, task: TaskRecord, *, current: int | None) -> None:
    """Of the proposed results that of epoch ``current`` counts from now on, the others never will."""
    rows = tables.results.get((task.tenant, task.task_id), {})
    for epoch, row in rows.items():
        if row.standing == "proposed":
            standing = "current" if epoch == current else "superseded"
            rows[epoch] = msgspec.structs.replace(row, standing=standing)


def proposed_result(tables: Tables, task: TaskRecord) -> ResultRecord | None:
    """The newest result that nobody has decided about."""
    rows = tables.results.get((task.tenant, task.task_id), {}).values()
    return max((row for row in rows if row.standing == "proposed"), key=lambda row: row.epoch, default=None)
