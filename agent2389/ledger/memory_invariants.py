"""What must hold in the in-memory ledger after every step."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from agent2389.ledger import memory_board
from agent2389.ledger.memory_tables import Key, RuleBroken, Tables, TaskRecord
from agent2389.ledger.states import OWNED, TRANSITIONS, TaskState


def check(tables: Tables, *, settled: bool = False) -> None:
    """Raise ``RuleBroken`` with every violation. ``settled`` also compares the board with the tasks."""
    found = [
        *_accepted_jobs_exist(tables),
        *_results(tables),
        *_numbers(tables),
        *_counters(tables),
        *(line for task in tables.tasks.values() for line in _task(tables, task)),
        *_board(tables, settled=settled),
    ]
    if found:
        raise RuleBroken("; ".join(found))


def _accepted_jobs_exist(tables: Tables) -> Iterator[str]:
    for key in tables.accepted - tables.jobs.keys():
        yield f"I1: the accepted job {key[1]} is gone"


def _results(tables: Tables) -> Iterator[str]:
    for key, job in tables.jobs.items():
        if (job.ended is not None) != (key in tables.finals):
            yield f"I3: job {key[1]} has a terminal payload exactly when it ended"
    for key, task in tables.tasks.items():
        standings = [row.standing for row in tables.results.get(key, {}).values()]
        done = task.state in (TaskState.COMPLETED, TaskState.VERIFIED) and task.held is None
        if standings.count("current") != done:
            yield f"I3: task {task.task_id} ({task.state}) has {standings.count('current')} current results"
        if "current" in standings and key in tables.told_to_cancel:
            yield f"I7: task {task.task_id} finished after its owner knew of the cancel"
    for key, by_epoch in tables.results.items():
        yield from _written_by_owner(tables, key, list(by_epoch))


def _written_by_owner(tables: Tables, key: Key, epochs: list[int]) -> Iterator[str]:
    for epoch in epochs:
        grant, row = tables.grants.get(key, {}).get(epoch), tables.results[key][epoch]
        if row.incarnation is None:
            continue
        if grant is None or (grant.incarnation, grant.token) != (row.incarnation, row.token):
            yield f"I4: epoch {epoch} of task {key[1]} was not granted to the writer of its result"


def _numbers(tables: Tables) -> Iterator[str]:
    numbers = [event.id for event in tables.events]
    if any(one >= other for one, other in pairwise(numbers)):
        yield "I5: event numbers do not rise"
    for key, grants in tables.grants.items():
        if list(grants) != sorted(set(grants)) or max(grants, default=0) > tables.tasks[key].epoch:
            yield f"I5: the epochs of task {key[1]} were {list(grants)}"


def _counters(tables: Tables) -> Iterator[str]:
    open_tasks = Counter((t.tenant, t.job_id) for t in tables.tasks.values() if t.is_open)
    hops = Counter((t.tenant, t.job_id) for t in tables.tasks.values())
    for key, job in tables.jobs.items():
        if job.open_tasks != open_tasks[key]:
            yield f"I8: job {key[1]} counts {job.open_tasks} open tasks and has {open_tasks[key]}"
        if job.hops != hops[key]:
            yield f"I8: job {key[1]} counts {job.hops} hops and has {hops[key]}"
    judged = {(t.tenant, t.verifies) for t in tables.tasks.values() if t.is_open}
    for key, task in tables.tasks.items():
        awaits = task.state is TaskState.COMPLETED and task.held is not None
        if awaits and key not in judged and task.deadline > tables.now():
            yield f"I2: task {task.task_id} awaits a verdict that nobody is to give"
    slots = Counter((t.tenant, t.job_id, t.parent_task, t.slot) for t in tables.tasks.values())
    for slot, count in slots.items():
        if count > 1:
            yield f"I8: {count} tasks in slot {slot[3]} after task {slot[2]}"


def _task(tables: Tables, task: TaskRecord) -> Iterator[str]:
    name, job = f"task {task.task_id}", tables.job_of(task)
    owned = task.state in OWNED
    if {owned} != {value is not None for value in (task.owner, task.lease_until, task.token)}:
        yield f"I6: {name} ({task.state}) needs owner, lease and token exactly when it is owned"
    if owned and job.ended is not None:
        yield f"I7: {name} is owned and its job ended"
    last_grant = tables.grants.get((task.tenant, task.task_id), {}).get(task.epoch)
    if last_grant and task.finished_at and last_grant.at > task.finished_at:
        yield f"I7: {name} was claimed after its end"
    steps = list(pairwise(task.states))
    first = TaskState.WAITING if task.join_needed else TaskState.QUEUED
    if task.states[0] is not first or task.states[-1] is not task.state:
        yield f"I9: {name} did not begin queued or did not pass through its state"
    if not set(steps) <= TRANSITIONS:
        yield f"I9: {name} took a step outside the table: {sorted(set(steps) - TRANSITIONS)}"
    # A verification is no hop of the way: it stands one beyond what it judges.
    most_hops = job.new.max_hops + (task.verifies is not None)
    if task.hop > most_hops or task.attempt > task.max_attempts or task.crashes > task.max_crashes:
        yield f"I11: {name} is beyond its limit of hops, attempts or crashes"


def _board(tables: Tables, *, settled: bool) -> Iterator[str]:
    shown = {key: row.payload for key, row in tables.board.items() if row.payload is not None}
    for (tenant, kind, ids), payload in shown.items():
        if kind == "approval":
            asked = tables.approvals.get((tenant, ids[0]))
            if asked is None or asked.state != "pending":
                yield f"I13: the board shows the approval {ids[0]}, which is not pending"
        elif kind == "result":
            final = tables.finals.get((tenant, ids[0]))
            if final is None or final.payload != payload:
                yield f"I13: the board shows another result of job {ids[0]} than the ledger"
        else:
            task_id, epoch = ids[-2:]
            task = tables.tasks.get((tenant, task_id))
            # A buried task's topic goes with the next refresh.
            buried = task is None and (tenant, msgspec.json.decode(payload)["job_id"]) in tables.tombstones
            if not buried and (task is None or int(epoch) > task.epoch):
                yield f"I13: the board shows {kind} {task_id}/{epoch}, which never was"
    if settled:
        derived = {key for key in shown if key[1] in memory_board.DERIVED}
        if derived != memory_board.derived(tables).keys():
            yield "I13: the board does not show the tasks that wait and are owned"
