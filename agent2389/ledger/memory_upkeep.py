"""Chores of the in-memory ledger: reap, ring, outbox, retention."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from agent2389.ledger.memory_chain import bury_events
from agent2389.ledger.memory_parts import ALIVE, Gathered, show_on_board, someone_lives, wake_of
from agent2389.ledger.memory_reads import agent_row
from agent2389.ledger.memory_tables import LONG_AGO, Tables, TaskRecord, Tombstone
from agent2389.ledger.memory_waiting import forward_failed
from agent2389.ledger.memory_what_follows import (
    ask_person,
    end_task,
    problem_of,
    queue_again,
    waits_on_person,
)
from agent2389.ledger.records import Delivery, Effects, Wake
from agent2389.ledger.states import AgentState, TaskState
from agent2389.ledger.views import Retired

LEASE = timedelta(seconds=10)
"""How long whoever took something to send has for it."""
UNSENT = timedelta(seconds=2)
NOBODY_CAME = timedelta(minutes=15)
RESULTS_STAY = timedelta(hours=1)
REJECTS_STAY = timedelta(days=7)
AGENTS_STAY = timedelta(days=1)
TOMBSTONES_STAY = timedelta(days=30)
PEOPLE_HAVE = timedelta(days=7)
MOST_MISSES = 3
TAKEN = "a person took the task from its agent"


def take_chore(tables: Tables, tenant: str, chore: str, interval_seconds: float) -> bool:
    """Whether this caller runs ``chore`` now."""
    if tables.chores.get((tenant, chore), LONG_AGO) > tables.now() - timedelta(seconds=interval_seconds):
        return False
    tables.chores[tenant, chore] = tables.now()
    return True


def reap(tables: Tables, tenant: str, limit: int) -> Effects:
    """T8, T11, T20, T25, T27, T30."""
    moment, gathered = tables.now(), Gathered()
    own = [task for task in tables.tasks.values() if task.tenant == tenant]
    for task in sorted(own, key=lambda task: (task.job_id, task.task_id)):
        if len(gathered.changes) >= limit:
            break
        if task.lease_until is not None:
            if task.lease_until <= moment:
                _take_from_owner(tables, gathered, task)
        elif not task.is_open:
            continue
        elif _out_of_time(tables, task, moment):
            end_task(tables, gathered, task, TaskState.EXPIRED)
        elif task.waiting == "timer" and task.run_after <= moment:
            queue_again(tables, gathered, task, "task.resumed", data={})
        elif task.state is TaskState.FORWARDED and task.run_after <= moment:
            forward_failed(tables, gathered, task, "no answer came in time")
        elif task.state is TaskState.QUEUED and _nobody_came(tables, task, moment):
            problem = problem_of("internal_error", f"no live agent serves {task.pool} for 15 minutes")
            data = {"reason": "no_live_agent", "pool": task.pool}
            ask_person(tables, gathered, task, problem, data=data)
    return gathered.effects()


def _out_of_time(tables: Tables, task: TaskRecord, moment: datetime) -> bool:
    """Deadlines do not run while a person is asked; people have seven days."""
    if task.paused_at is not None:
        return task.paused_at <= moment - PEOPLE_HAVE
    passed = task.state is not TaskState.ESCALATED and task.deadline <= moment
    return passed and not waits_on_person(tables, task)


def _nobody_came(tables: Tables, task: TaskRecord, moment: datetime) -> bool:
    due = max(task.run_after, task.queued_at)
    lives = someone_lives(tables, task.tenant, task.pool, task.not_agent)
    return due <= moment - NOBODY_CAME and not lives


def _take_from_owner(tables: Tables, gathered: Gathered, task: TaskRecord) -> None:
    """T8: an assignment nobody acknowledged; T11: the owner is gone, and a third crash is poison."""
    unacknowledged = task.state is TaskState.ASSIGNED
    if task.stop_requested == "cancel":
        end_task(tables, gathered, task, TaskState.CANCELLED)
    elif task.stop_requested == "expire" or task.deadline <= tables.now():
        end_task(tables, gathered, task, TaskState.EXPIRED)
    elif task.stop_requested == "escalate" or (unacknowledged and task.misses + 1 >= MOST_MISSES):
        why = "three assignments were not acknowledged" if unacknowledged else TAKEN
        problem = problem_of("internal_error", why)
        ask_person(tables, gathered, task, problem, data={}, agent_id=task.agent_id)
    elif unacknowledged:
        task.misses += 1
        wait = 2.0 * 2 ** (task.misses - 1)
        data = {"misses": task.misses}
        queue_again(tables, gathered, task, "task.not_acknowledged", data=data, wait=wait)
    elif task.crashes + 1 >= task.max_crashes:
        task.crashes += 1
        message = f"the agents that worked on this task died {task.max_crashes} times"
        end_task(tables, gathered, task, TaskState.DEAD, problem_of("internal_error", message))
    else:
        task.crashes += 1
        queue_again(tables, gathered, task, "task.lease_expired", data={"crashes": task.crashes})


def ring_due(tables: Tables, tenant: str) -> Sequence[Wake]:
    """Wakes of tasks that became due since the last call."""
    due = [
        task
        for task in tables.tasks.values()
        if task.tenant == tenant and task.state is TaskState.QUEUED
        if not task.rung and task.run_after <= tables.now()
    ]
    for task in due:
        task.rung = True
    return tuple(wake_of(task) for task in sorted(due, key=lambda task: task.run_after))


def take_outbox(tables: Tables, tenant: str, limit: int) -> Sequence[Delivery]:
    """Deliveries that nobody sent for two seconds, leased for ten."""
    now = tables.now()
    free = [
        row
        for _, row in sorted(tables.outbox.items())
        if row.delivery.tenant == tenant
        if row.created_at < now - UNSENT and (row.lease_until is None or row.lease_until <= now)
    ][:limit]
    for row in free:
        row.lease_until = now + LEASE
    return tuple(row.delivery for row in free)


def outbox_sent(tables: Tables, tenant: str, ids: Sequence[int]) -> None:
    """Forget what was sent."""
    for number in ids:
        if number in tables.outbox and tables.outbox[number].delivery.tenant == tenant:
            del tables.outbox[number]


def _bury(tables: Tables, tenant: str, keep_days: float, limit: int) -> int:
    """Jobs that ended long ago, all of it sealed, leave a tombstone: a late repeat is still a repeat."""
    before = tables.now() - timedelta(days=keep_days)
    unsealed = {(event.change.tenant, event.change.job_id) for event in tables.unsealed}
    old = [
        (job.finished_at, key)
        for key, job in tables.jobs.items()
        if job.tenant == tenant and job.finished_at is not None and job.finished_at < before
        if key not in unsealed
    ]
    buried = [key for _, key in sorted(old)[:limit]]
    bury_events(tables, buried)
    for key in buried:
        job = tables.jobs.pop(key)
        assert job.ended is not None
        tables.tombstones.setdefault(key, Tombstone(job.new.content_hash, job.ended, tables.now()))
        tables.accepted.discard(key)
        tables.finals.pop(key, None)
        tables.dossiers.pop(key, None)
        if (key[0], "result", (key[1],)) in tables.board:
            show_on_board(tables, key[0], "result", (key[1],), None)
        tables.journal.forget(*key, {task.task_id for task in tables.tasks_of(*key)})
        for task in tables.tasks_of(*key):
            for rows in (tables.tasks, tables.results, tables.workspaces, tables.grants):
                rows.pop((task.tenant, task.task_id), None)
        tables.approvals = {
            name: row for name, row in tables.approvals.items() if (name[0], row.job_id) != key
        }
    return len(buried)


def retire(tables: Tables, tenant: str, keep_days: float, limit: int) -> Retired:
    """Retention; the incarnations whose presence must be cleared from the broker."""
    now = tables.now()
    for (whose, job_id), final in tables.finals.items():
        if whose == tenant and final.at < now - RESULTS_STAY and (whose, "result", (job_id,)) in tables.board:
            show_on_board(tables, whose, "result", (job_id,), None)
    jobs = _bury(tables, tenant, keep_days, limit)
    tables.tombstones = {
        key: row
        for key, row in tables.tombstones.items()
        if key[0] != tenant or row.at >= now - TOMBSTONES_STAY
    }
    tables.rejects = {
        key: row for key, row in tables.rejects.items() if key[0] != tenant or row.at >= now - REJECTS_STAY
    }
    gone = [
        entry
        for entry in tables.agents.values()
        if entry.tenant == tenant and not entry.presence_cleared
        if entry.state is AgentState.STOPPED or entry.last_beat < now - ALIVE
    ]
    for entry in gone:
        entry.presence_cleared = True
    tables.agents = {
        key: entry
        for key, entry in tables.agents.items()
        if key[0] != tenant or not entry.presence_cleared or entry.last_beat >= now - AGENTS_STAY
    }
    return Retired(agents=tuple(agent_row(tables, entry, tasks_running=0) for entry in gone), jobs=jobs)
