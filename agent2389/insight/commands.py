"""What people may do to jobs, whichever door they come through."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence

from agent2389.broker.port import Message
from agent2389.errors import Conflict, InputRefused, NotFound
from agent2389.insight.questions import asked
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Change, Delivery, Effects, NextTask, Submitted, Wake, Written
from agent2389.ledger.states import JOB_ENDED, TERMINAL, AgentState
from agent2389.ledger.views import AgentRow, ApprovalRow, JobDetail, TaskRow
from agent2389.wire.mesh import Control, encode
from agent2389.wire.names import derived_uuid, new_uuid7
from agent2389.wire.topics import MeshTopics

OF_THE_AGENT = ("pause", "resume")
"""Commands that belong to an agent id, not to one of its processes."""
MANY = 10_000
_GONE = frozenset({AgentState.STOPPED, AgentState.LOST})


def version_of(detail: JobDetail) -> str:
    """Changes whenever a task of the job does: what ``If-Match`` compares before a decision."""
    stand = [
        (task.task_id, task.epoch, task.attempt, task.state.value, task.waiting_for) for task in detail.tasks
    ]
    return hashlib.sha256(repr((detail.job.state.value, stand)).encode()).hexdigest()[:32]


async def retry(
    ledger: Ledger, job_id: str, actor: str, *, words: str | None = None, key: str | None = None
) -> Submitted | Written:
    """Run an ended job again as a clone; of an open one, let the tasks that wait for a person try again.

    Raises ``Conflict`` when the job is open and nothing of it waits for a person, ``InputRefused``
    for ``words`` that nobody would read.
    """
    detail = await ledger.job(job_id)
    if detail.job.state not in JOB_ENDED:
        return await decide(ledger, detail, "retry", actor, words=words)
    if words:
        raise InputRefused(
            "invalid",
            f"job {job_id} has ended and runs again unchanged, so nobody would read the words",
            hint="submit a new job with the better instruction",
        )
    return await clone(ledger, job_id, actor, key=key)


async def override(
    ledger: Ledger, job_id: str, actor: str, text: str, *, key: str | None = None
) -> Submitted | Written:
    """A person's text is the result: of the task that waits, or in a corrected clone of a completed job."""
    detail = await ledger.job(job_id)
    if detail.job.state in JOB_ENDED:
        return await clone(ledger, job_id, actor, correction=text, key=key)
    return await decide(ledger, detail, "answer", actor, words=text)


async def clone(
    ledger: Ledger, job_id: str, actor: str, *, correction: str | None = None, key: str | None = None
) -> Submitted:
    """An ended job again as a new one; the same ``key`` (of a repeated request) makes one clone only.

    Raises ``Conflict`` for an open job, and for a correction of one that did not complete.
    """
    new_id = new_uuid7() if key is None else derived_uuid("clone", job_id, correction or "", key)
    if key is not None:
        with contextlib.suppress(NotFound):
            made = (await ledger.job(new_id)).job
            return Submitted(job_id=new_id, verdict="duplicate", state=made.state)
    return await ledger.clone(job_id, new_id, actor, correction=correction)


async def escalate(
    ledger: Ledger, job_id: str, actor: str, *, task_id: str | None = None, reason: str
) -> Written:
    """Take the open tasks of a job, or the named one, to a person. Raises ``NotFound``, ``Conflict``."""
    detail = await ledger.job(job_id)
    if task_id is not None:
        task = task_of(detail, task_id)
        if task.state in TERMINAL:
            raise Conflict(f"the task is {task.state} already", hint=f"see agent2389 job show {job_id}")
        task_id = task.task_id
    return await ledger.escalate(job_id, actor, task_id=task_id, reason=reason)


async def decide(
    ledger: Ledger,
    detail: JobDetail,
    action: str,
    actor: str,
    *,
    task_id: str | None = None,
    words: str | None = None,
    next_task: NextTask | None = None,
) -> Written:
    """Decide the named task or, when it is the only question, the one that waits.

    A retry or cancel without a name concerns every task that waits. Raises ``Conflict``.
    """
    job_id = detail.job.job_id
    if task_id is not None:
        chosen = [task_of(detail, task_id).task_id]
    else:
        chosen = [task.task_id for task in asked(detail)]
    if not chosen:
        raise Conflict(
            f"nothing of job {job_id} waits for a person",
            hint=f"see agent2389 job show {job_id}; take it with agent2389 job escalate {job_id}",
        )
    if len(chosen) > 1 and action in ("accept", "answer"):
        raise Conflict(
            f"{len(chosen)} tasks of job {job_id} wait for a person", hint="name one: --task " + chosen[0]
        )
    written = [
        await ledger.decide(one, action, job_id=job_id, actor=actor, words=words, next=next_task)
        for one in chosen
    ]
    last = written[-1]
    return Written(
        verdict=last.verdict,
        task_state=last.task_state,
        job_state=last.job_state,
        effects=_joined(item.effects for item in written),
    )


async def assign(
    ledger: Ledger, task_id: str, actor: str, *, incarnation: str | None = None, agent_id: str | None = None
) -> Written:
    """Give a queued task to one incarnation, or to that of ``agent_id`` with the most free slots.

    Raises ``InputRefused`` unless exactly one is named, ``NotFound``, ``Conflict`` (not queued for it).
    """
    if (incarnation is None) == (agent_id is None):
        raise InputRefused("invalid", "name an incarnation or an agent, one of them")
    if agent_id is not None:
        running = [row for row in await processes_of(ledger, agent_id) if row.state is AgentState.RUNNING]
        if not running:
            raise NotFound(f"no process of {agent_id} is running", hint="see agent2389 agent list")
        incarnation = max(running, key=lambda row: row.free_slots).incarnation
    return await ledger.assign(task_id, incarnation or "", actor)


async def processes_of(ledger: Ledger, agent_id: str) -> list[AgentRow]:
    """The incarnations of an agent id that were seen within the last day."""
    return [row for row in await ledger.agents() if row.role == "agent" and row.agent_id == agent_id]


async def command(
    ledger: Ledger, command_id: str, agent_id: str, action: str, actor: str, *, incarnation: str | None = None
) -> Sequence[str]:
    """Pause, resume, drain, stop or restart; the live incarnations that it concerns.

    Raises ``NotFound`` for an agent or incarnation that is not there, ``InputRefused`` for one that
    cannot be named alone: a pause belongs to the agent id.
    """
    if incarnation is not None:
        if action in OF_THE_AGENT:
            raise InputRefused(
                "invalid",
                f"{action} concerns every process of {agent_id}",
                hint="leave the incarnation out, or drain that one",
            )
        live = {row.incarnation for row in await processes_of(ledger, agent_id) if row.state not in _GONE}
        if incarnation not in live:
            raise NotFound(
                f"no process {incarnation} of {agent_id} is running",
                hint=f"see agent2389 agent show {agent_id}",
            )
    return await ledger.command(command_id, agent_id, action, actor, incarnation=incarnation)


def hint(
    ledger: Ledger, command_id: str, agent_id: str, action: str, *, incarnation: str | None = None
) -> Message:
    """Makes the processes of an agent id look at once; without it they see the command at their next beat."""
    control = Control(action=action, command_id=command_id, incarnation=incarnation)
    return Message(MeshTopics(ledger.tenant).control(agent_id), encode(control))


async def approval(ledger: Ledger, wanted: str) -> ApprovalRow:
    """The approval with this id or unique beginning of one. Raises ``NotFound``, ``InputRefused``."""
    for state in ("pending", None):
        rows = await ledger.approvals(state=state, limit=MANY)
        found = {row.approval_id: row for row in rows if row.approval_id.startswith(wanted)}
        if wanted in found:
            return found[wanted]
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise InputRefused(
                "invalid", f"{wanted} is the beginning of several approvals", hint="write more of the id"
            )
    raise NotFound(f"there is no approval {wanted}", hint="list them: agent2389 approval list")


def task_of(detail: JobDetail, wanted: str) -> TaskRow:
    """The task of a job with this id or unique beginning of one. Raises ``NotFound``, ``InputRefused``."""
    found = [task for task in detail.tasks if task.task_id.startswith(wanted)]
    exact = [task for task in found if task.task_id == wanted]
    if not found or not wanted:
        raise NotFound(
            f"job {detail.job.job_id} has no task {wanted}",
            hint=f"see agent2389 job show {detail.job.job_id}",
        )
    if len(found) > 1 and not exact:
        raise InputRefused(
            "invalid", f"{wanted} is the beginning of several tasks", hint="write more of the id"
        )
    return (exact or found)[0]


def _joined(parts: Iterable[Effects]) -> Effects:
    deliveries: list[Delivery] = []
    wakes: list[Wake] = []
    changes: list[Change] = []
    for part in parts:
        deliveries += part.deliveries
        wakes += part.wakes
        changes += part.changes
    return Effects(tuple(deliveries), tuple(wakes), tuple(changes))
