"""What the reaper takes from whom: on both ledgers under one steered clock, and in a race."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg

from agent2389.ledger.fleet import Beat
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.states import AgentState
from tests.support.jobs import claim_one, join, new_job
from tests.support.postgres import Databases
from tests.support.twins import Twins
from tests.support.waiting import until

WHO = "r1-incarnation"


def ready(twins: Twins, **job: Any) -> str:
    """One agent that lives, one job; the id of its task."""
    twins.both("one", lambda ledger, of: join(ledger))
    twins.both("one", lambda ledger, of: ledger.submit(new_job(**job)))
    return str(twins.both("one", lambda ledger, of: ledger.job("job-1")).memory.tasks[0].task_id)


def later(twins: Twins, seconds: float) -> None:
    """Time passes, and the agent still lives."""
    twins.step(timedelta(seconds=seconds))
    beat = Beat(incarnation=WHO, state=AgentState.RUNNING, free_slots=1)
    twins.both("one", lambda ledger, of: ledger.beat(beat))


def state(twins: Twins) -> str:
    return str(twins.both("one", lambda ledger, of: ledger.job("job-1")).memory.tasks[0].state)


def test_the_third_assignment_that_nobody_takes_asks_a_person(both: Twins) -> None:
    task_id = ready(both)
    states = []
    for _ in range(3):
        both.both("one", lambda ledger, of: ledger.assign(task_id, WHO, "ann"))
        later(both, 31)
        both.both("one", lambda ledger, of: ledger.reap())
        states.append(state(both))
        later(both, 9)
    assert states == ["queued", "queued", "escalated"]


def test_a_dead_owner_past_the_deadline_leaves_an_expired_task(both: Twins) -> None:
    ready(both, deadline=both.now + timedelta(seconds=20))
    both.both("one", lambda ledger, of: ledger.claim_batch(WHO, 1))
    later(both, 31)
    both.both("one", lambda ledger, of: ledger.reap())
    assert state(both) == "expired"


def test_the_third_crash_is_poison(both: Twins) -> None:
    ready(both)
    states = []
    for _ in range(3):
        both.both("one", lambda ledger, of: ledger.claim_batch(WHO, 1))
        later(both, 31)
        both.both("one", lambda ledger, of: ledger.reap())
        states.append(state(both))
    assert states == ["queued", "queued", "dead"]


async def test_a_lease_that_began_while_the_reaper_waited_is_left_alone(databases: Databases) -> None:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name), lease_seconds=0.1)
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    task_id = (await claim_one(ledger, incarnation)).fence.task_id
    somebody = await asyncpg.connect(databases.admin_dsn(name))
    over = "SELECT count(*) FROM agent2389.tasks WHERE lease_until <= clock_timestamp()"
    await until(lambda: somebody.fetchval(over))
    transaction = somebody.transaction()
    await transaction.start()
    await somebody.execute("SELECT FROM agent2389.tasks WHERE task_id = $1 FOR UPDATE", task_id)
    reaping = asyncio.create_task(ledger.reap())
    watch = await asyncpg.connect(databases.admin_dsn(name))
    await until(
        lambda: watch.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'", name
        )
    )
    renewed = "UPDATE agent2389.tasks SET epoch = epoch + 1, lease_until = now() + interval '1 hour'"
    await somebody.execute(renewed)
    await transaction.commit()
    await reaping
    row = await watch.fetchrow("SELECT state, epoch, crashes FROM agent2389.tasks")
    assert row is not None
    assert tuple(row) == ("in_progress", 2, 0)
    for connection in (somebody, watch):
        await connection.close()
    await ledger.close()
