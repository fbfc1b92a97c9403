"""Chores of the in-memory ledger: reap, ring, outbox, retention."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from agent2389.ledger.memory_parts import (
    ALIVE,
    Gathered,
    end_task,
    note_task,
    show_on_board,
    someone_lives,
    wake_of,
)
from agent2389.ledger.memory_reads import agent_row
from agent2389.ledger.memory_tables import LONG_AGO, Tables, TaskRecord
from agent2389.ledger.records import Delivery, Effects, Wake
from agent2389.ledger.states import AgentState, TaskState
from agent2389.ledger.views import AgentRow

LEASE = timedelta(seconds=10)
"""How long whoever took something to send has for it."""
UNSENT = timedelta(seconds=2)
NOBODY_CAME = timedelta(minutes=15)
RESULTS_STAY = timedelta(hours=1)
REJECTS_STAY = timedelta(days=7)
AGENTS_STAY = timedelta(days=1)
_UNOWNED = (TaskState.QUEUED, TaskState.WAITING, TaskState.FORWARDED)


def take_chore(tables: Tables, chore: str, interval_seconds: float) -> bool:
    """Whether this caller runs ``chore`` now."""
    if tables.chores.get(chore, LONG_AGO) > tables.now() - timedelta(seconds=interval_seconds):
        return False
    tables.chores[chore] = tables.now()
    return True


def reap(tables: Tables) -> Effects:
    """T11, T20, T30 for every tenant."""
    moment, gathered = tables.now(), Gathered()
    for task in sorted(tables.tasks.values(), key=lambda task: (task.tenant, task.job_id, task.task_id)):
        if task.lease_until is not None:
            if task.lease_until <= moment:
                _take_from_owner(tables, gathered, task)
        elif task.state in _UNOWNED and task.deadline <= moment:
            end_task(tables, gathered, task, TaskState.EXPIRED)
        elif task.state is TaskState.QUEUED and _nobody_came(tables, task, moment):
            message = f"no live agent serves {task.pool} for 15 minutes"
            task.move(TaskState.ESCALATED)
            task.error = {"code": "internal_error", "message": message}
            data = {"reason": "no_live_agent", "pool": task.pool}
            note_task(tables, gathered, task, "task.escalated", data=data)
    return gathered.effects()


def _nobody_came(tables: Tables, task: TaskRecord, moment: datetime) -> bool:
    due = max(task.run_after, task.queued_at)
    return due <= moment - NOBODY_CAME and not someone_lives(tables, task.tenant, task.pool)


def _take_from_owner(tables: Tables, gathered: Gathered, task: TaskRecord) -> None:
    """T11: the owner is gone. A third crash is poison."""
    if task.stop_requested == "cancel":
        end_task(tables, gathered, task, TaskState.CANCELLED)
    elif task.stop_requested == "expire" or task.deadline <= tables.now():
        end_task(tables, gathered, task, TaskState.EXPIRED)
    elif task.crashes + 1 >= task.max_crashes:
        task.crashes += 1
        message = f"the agents that worked on this task died {task.max_crashes} times"
        end_task(tables, gathered, task, TaskState.DEAD, {"code": "internal_error", "message": message})
    else:
        task.move(TaskState.QUEUED)
        task.crashes += 1
        task.run_after = tables.now()
        gathered.wakes.append(wake_of(task))
        data = {"crashes": task.crashes}
        note_task(tables, gathered, task, "task.lease_expired", agent_id=task.agent_id, data=data)


def ring_due(tables: Tables) -> Sequence[Wake]:
    """Wakes of tasks that became due since the last call."""
    due = [
        task
        for task in tables.tasks.values()
        if task.state is TaskState.QUEUED and not task.rung and task.run_after <= tables.now()
    ]
    for task in due:
        task.rung = True
    return tuple(wake_of(task) for task in sorted(due, key=lambda task: task.run_after))


def take_outbox(tables: Tables, limit: int) -> Sequence[Delivery]:
    """Deliveries that nobody sent for two seconds, leased for ten."""
    now = tables.now()
    free = [
        row
        for _, row in sorted(tables.outbox.items())
        if row.created_at < now - UNSENT and (row.lease_until is None or row.lease_until <= now)
    ][:limit]
    for row in free:
        row.lease_until = now + LEASE
    return tuple(row.delivery for row in free)


def outbox_sent(tables: Tables, ids: Sequence[int]) -> None:
    """Forget what was sent."""
    for number in ids:
        tables.outbox.pop(number, None)


def retire(tables: Tables) -> Sequence[AgentRow]:
    """Retention; the incarnations whose presence must be cleared from the broker."""
    now = tables.now()
    for (tenant, job_id), final in tables.finals.items():
        if final.at < now - RESULTS_STAY and (tenant, "result", (job_id,)) in tables.board:
            show_on_board(tables, tenant, "result", (job_id,), None)
    tables.rejects = {key: row for key, row in tables.rejects.items() if row.at >= now - REJECTS_STAY}
    gone = [
        entry
        for entry in tables.agents.values()
        if not entry.presence_cleared and (entry.state is AgentState.STOPPED or entry.last_beat < now - ALIVE)
    ]
    for entry in gone:
        entry.presence_cleared = True
    tables.agents = {
        key: entry
        for key, entry in tables.agents.items()
        if not entry.presence_cleared or entry.last_beat >= now - AGENTS_STAY
    }
    return tuple(agent_row(tables, entry, tasks_running=0) for entry in gone)
