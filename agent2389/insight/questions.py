"""What a job asks of people: which tasks wait for a word, why, and what they propose."""

import msgspec

from agent2389.ledger.records import TaskResult
from agent2389.ledger.states import TaskState
from agent2389.ledger.views import JobDetail, TaskRow

_ASKING = ("task.escalated", "task.waiting")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One task that waits for a person. ``kind``: ``escalated`` | ``person`` | ``approval``.

    ``draft`` is the result that ``accept`` would make the answer; without one only an ``answer``, a
    ``retry`` or a ``cancel`` is possible. An approval is decided on its own, see ``approval list``.
    """

    task_id: str
    hop: int
    capability: str
    kind: str
    why: str | None
    draft: TaskResult | None


def asked(detail: JobDetail) -> tuple[TaskRow, ...]:
    """The tasks of a job for which a person has the word, in the order of the route."""
    return tuple(
        task
        for task in detail.tasks
        if task.state is TaskState.ESCALATED or task.waiting_for in ("person", "approval")
    )


def questions(detail: JobDetail) -> tuple[Question, ...]:
    """The same, as people need them to decide."""
    return tuple(
        Question(
            task_id=task.task_id,
            hop=task.hop,
            capability=task.capability,
            kind=task.waiting_for or "escalated",
            why=_why(detail, task),
            draft=task.result,
        )
        for task in asked(detail)
    )


def _why(detail: JobDetail, task: TaskRow) -> str | None:
    for change in reversed(detail.changes):
        if change.task_id == task.task_id and change.type in _ASKING:
            return change.data.get("question") or change.data.get("message")
    return task.error["message"] if task.error else None
