"""Task, job and agent states and the one table of legal task transitions.

The SQL trigger is driven by a table generated from ``TRANSITIONS``; a test compares both.
"""

from enum import StrEnum


class TaskState(StrEnum):
    """Where a task stands. A retry is ``queued`` with a later ``run_after``."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    ACKED = "acked"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    VERIFIED = "verified"
    WAITING = "waiting"
    FORWARDED = "forwarded"
    ESCALATED = "escalated"
    CANCELLED = "cancelled"
    DEAD = "dead"
    EXPIRED = "expired"


class JobState(StrEnum):
    """Derived from a job's tasks."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class AgentState(StrEnum):
    """Lifecycle of one incarnation; ``lost`` is derived from a missing beat."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPED = "stopped"
    LOST = "lost"
    RESTARTING = "restarting"
    """Only ever asked for: drain, then let the supervisor start a new incarnation."""


OWNED = frozenset({TaskState.ASSIGNED, TaskState.ACKED, TaskState.IN_PROGRESS})
"""States with an owner, a lease and a token; all three are set exactly here."""

TERMINAL = frozenset(
    {TaskState.VERIFIED, TaskState.CANCELLED, TaskState.DEAD, TaskState.EXPIRED},
)
"""States no task ever leaves. ``completed`` joins them when no verification is asked."""

JOB_ENDED = frozenset(
    {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED},
)

_S = TaskState

TRANSITIONS: frozenset[tuple[TaskState, TaskState]] = frozenset(
    {
        # T5-T7 claim or assignment
        (_S.QUEUED, _S.ASSIGNED),
        (_S.ASSIGNED, _S.ACKED),
        (_S.ACKED, _S.IN_PROGRESS),
        (_S.QUEUED, _S.IN_PROGRESS),
        # T8, T9, T11, T12 back to the queue
        (_S.ASSIGNED, _S.QUEUED),
        (_S.ACKED, _S.QUEUED),
        (_S.IN_PROGRESS, _S.QUEUED),
        # T8, T13, T14, T28, T29, T30 a person is asked
        (_S.QUEUED, _S.ESCALATED),
        (_S.ASSIGNED, _S.ESCALATED),
        (_S.ACKED, _S.ESCALATED),
        (_S.IN_PROGRESS, _S.ESCALATED),
        (_S.WAITING, _S.ESCALATED),
        (_S.FORWARDED, _S.ESCALATED),
        (_S.COMPLETED, _S.ESCALATED),
        # T11, T13, T14 no more attempts
        (_S.QUEUED, _S.DEAD),
        (_S.ASSIGNED, _S.DEAD),
        (_S.ACKED, _S.DEAD),
        (_S.IN_PROGRESS, _S.DEAD),
        # T15-T17 results and verdicts
        (_S.IN_PROGRESS, _S.COMPLETED),
        (_S.COMPLETED, _S.VERIFIED),
        (_S.COMPLETED, _S.QUEUED),
        # T18-T20, T29 cancelled or out of time, from every state that is not terminal
        # (completed ones only while a verdict is awaited)
        *((state, _S.CANCELLED) for state in _S if state not in TERMINAL),
        *((state, _S.EXPIRED) for state in _S if state not in TERMINAL),
        # T21 a person answers
        (_S.ESCALATED, _S.QUEUED),
        (_S.ESCALATED, _S.COMPLETED),
        (_S.WAITING, _S.COMPLETED),
        # a join that can no longer be fulfilled
        (_S.WAITING, _S.DEAD),
        # T24-T27 timers, joins, foreign agents
        (_S.IN_PROGRESS, _S.WAITING),
        (_S.WAITING, _S.QUEUED),
        (_S.QUEUED, _S.FORWARDED),
        (_S.FORWARDED, _S.COMPLETED),
        (_S.FORWARDED, _S.QUEUED),
    },
)


def is_allowed(before: TaskState, after: TaskState) -> bool:
    """Whether the table knows the step; staying in a state is always allowed."""
    return before is after or (before, after) in TRANSITIONS
