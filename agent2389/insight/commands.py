"""What people may do to jobs, whichever door they come through."""

from collections.abc import Iterable

from agent2389.errors import Conflict
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Change, Delivery, Effects, NextTask, Submitted, Wake, Written
from agent2389.ledger.states import JOB_ENDED, TaskState
from agent2389.ledger.views import JobDetail, TaskRow
from agent2389.wire.names import new_uuid7


def asked(detail: JobDetail) -> tuple[TaskRow, ...]:
    """The tasks of a job for which a person has the word, in the order of the route."""
    return tuple(
        task
        for task in detail.tasks
        if task.state is TaskState.ESCALATED or task.waiting_for in ("person", "approval")
    )


async def retry(ledger: Ledger, job_id: str, actor: str, *, words: str | None = None) -> Submitted | Written:
    """Run an ended job again as a clone; of an open one, let the tasks that wait for a person try again.

    Raises ``Conflict`` when the job is open and nothing of it waits for a person.
    """
    detail = await ledger.job(job_id)
    if detail.job.state in JOB_ENDED:
        return await ledger.clone(job_id, new_uuid7(), actor)
    return await decide(ledger, detail, "retry", actor, words=words)


async def override(ledger: Ledger, job_id: str, actor: str, text: str) -> Submitted | Written:
    """A person's text is the result: of the task that waits, or in a corrected clone of a completed job."""
    detail = await ledger.job(job_id)
    if detail.job.state in JOB_ENDED:
        return await ledger.clone(job_id, new_uuid7(), actor, correction=text)
    return await decide(ledger, detail, "answer", actor, words=text)


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
    chosen = [task.task_id for task in asked(detail)] if task_id is None else [task_id]
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


def _joined(parts: Iterable[Effects]) -> Effects:
    deliveries: list[Delivery] = []
    wakes: list[Wake] = []
    changes: list[Change] = []
    for part in parts:
        deliveries += part.deliveries
        wakes += part.wakes
        changes += part.changes
    return Effects(tuple(deliveries), tuple(wakes), tuple(changes))
