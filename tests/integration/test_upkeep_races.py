"""Upkeep on a real Postgres while somebody else works on the same rows."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from agent2389.broker.port import PublishRefused
from agent2389.errors import Conflict, NotFound
from agent2389.ledger.fleet import AgentRecord
from agent2389.ledger.migrate import provision_login
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import Effects
from agent2389.ledger.states import JobState
from agent2389.upkeep.chores import Chores
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases
from tests.support.waiting import until

TASKS = "agent2389.tasks"


class Lab:
    """A ledger, a second process on it, and the superuser's hand on its rows."""

    def __init__(
        self, databases: Databases, name: str, ledger: PostgresLedger, admin: asyncpg.Connection
    ) -> None:
        self.databases = databases
        self.name = name
        self.ledger = ledger
        self.admin = admin

    async def another(self) -> PostgresLedger:
        return await PostgresLedger.open(self.databases.login_dsn(self.name))

    async def force(self, statement: str, *arguments: object) -> None:
        await self.admin.execute("SET session_replication_role = replica")
        await self.admin.execute(statement, *arguments)
        await self.admin.execute("SET session_replication_role = DEFAULT")

    async def state(self, task_id: str) -> str:
        return str(await self.admin.fetchval(f"SELECT state FROM {TASKS} WHERE task_id = $1", task_id))

    async def age(self, job_id: str) -> None:
        """Make a job that ended old enough to be buried."""
        await self.ledger.seal(1000)
        old = "UPDATE agent2389.jobs SET finished_at = finished_at - interval '8 days' WHERE job_id = $1"
        await self.force(old, job_id)


@pytest.fixture
async def lab(databases: Databases) -> AsyncIterator[Lab]:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    admin = await asyncpg.connect(databases.admin_dsn(name))
    yield Lab(databases, name, ledger, admin)
    await ledger.close()
    await admin.close()


class Silent:
    """A dispatcher that sends nothing."""

    async def send_leftovers(self) -> None: ...

    async def flush(self) -> None: ...

    async def perform(self, effects: Effects) -> None: ...

    async def ring(self, wake: object) -> None: ...

    async def publish(self, message: object) -> None: ...


async def test_a_task_that_another_reaper_gave_back_is_not_asked_a_person_for(lab: Lab) -> None:
    await join(lab.ledger)
    for name in ("a", "b"):
        await lab.ledger.submit(new_job(name))
    claims = await lab.ledger.claim_batch("r1-incarnation", 2)
    task_of = {claim.job_id: claim.fence.task_id for claim in claims}
    await lab.force(f"UPDATE {TASKS} SET lease_until = now() - interval '1 minute'")
    other = await lab.another()
    async with lab.admin.transaction():
        # Whoever holds the first task makes the one reaper wait with its list in hand.
        await lab.admin.execute(f"SELECT FROM {TASKS} WHERE task_id = $1 FOR UPDATE", task_of["a"])
        slow = asyncio.create_task(lab.ledger.reap())
        await asyncio.sleep(0.5)
        await other.reap()
        assert not slow.done()
        assert (await other.job("b")).tasks[0].state == "queued"
    await slow
    assert [await lab.state(task_of[name]) for name in ("a", "b")] == ["queued", "queued"]
    await other.close()


async def test_a_task_that_cannot_be_reaped_holds_up_no_other(lab: Lab) -> None:
    await join(lab.ledger)
    for name in ("broken", "sound"):
        await lab.ledger.submit(new_job(name))
    claims = {claim.job_id: claim for claim in await lab.ledger.claim_batch("r1-incarnation", 2)}
    await lab.force(f"UPDATE {TASKS} SET lease_until = now() - interval '1 minute'")
    await lab.force(
        f"ALTER TABLE {TASKS} ADD CHECK (task_id <> '{claims['broken'].fence.task_id}' OR crashes = 0)"
    )
    effects = await lab.ledger.reap()
    assert [change.job_id for change in effects.changes] == ["sound"]
    assert await lab.state(claims["sound"].fence.task_id) == "queued"
    assert await lab.state(claims["broken"].fence.task_id) == "in_progress"


async def test_a_mountain_of_late_tasks_is_reaped_in_short_calls(lab: Lab) -> None:
    await join(lab.ledger)
    for number in range(25):
        await lab.ledger.submit(new_job(f"job-{number}"))
    await lab.force(f"UPDATE {TASKS} SET deadline = now() - interval '1 s'")
    assert len((await lab.ledger.reap(10)).changes) == 2 * 10, "each task and its job"
    await Chores(lab.ledger, Silent()).run_due(["reap"])  # type: ignore[arg-type]
    assert await lab.ledger.job_counts() == {JobState.EXPIRED: 25}


async def test_retention_takes_all_that_is_old_in_one_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.upkeep.chores.BURIED_AT_ONCE", 3)
    for number in range(10):
        await lab.ledger.submit(new_job(f"job-{number}"))
        await lab.ledger.cancel(f"job-{number}", "ann")
        await lab.age(f"job-{number}")
    await lab.admin.execute(
        "INSERT INTO agent2389.messages (tenant, sha256, body, at) VALUES "
        "('default', sha256('old'), 'old', now() - interval '2 hours'), ('default', sha256('new'), 'new', now())"
    )
    await Chores(lab.ledger, Silent()).run_due(["retention"])  # type: ignore[arg-type]
    assert await lab.ledger.jobs() == ()
    assert await lab.admin.fetchval("SELECT array_agg(body) FROM agent2389.messages") == ["new"]


async def test_a_repeat_that_meets_the_burial_of_its_job_is_still_a_repeat(lab: Lab) -> None:
    incarnation = await join(lab.ledger)
    await lab.ledger.submit(new_job())
    await lab.ledger.finish((await claim_one(lab.ledger, incarnation)).fence, finish("once"), "job-1")
    await lab.age("job-1")
    burying = await asyncpg.connect(lab.databases.login_dsn(lab.name))
    async with burying.transaction():
        await burying.execute("SELECT agent2389_v1.retire(7, 200)")
        late = asyncio.create_task(lab.ledger.submit(new_job()))
        await asyncio.sleep(0.5)
        assert not late.done()
    await burying.close()
    assert ((await late).verdict, (await late).state) == ("duplicate", JobState.COMPLETED)
    with pytest.raises(NotFound):
        await lab.ledger.job("job-1")
    assert not await lab.ledger.claim_batch(incarnation, 1)
    assert (await lab.ledger.submit(new_job(content_hash="other"))).verdict == "conflict"


async def test_a_clone_takes_no_id_that_a_buried_job_had(lab: Lab) -> None:
    for name in ("old", "source"):
        await lab.ledger.submit(new_job(name))
        await lab.ledger.cancel(name, "ann")
    await lab.age("old")
    assert (await lab.ledger.retire(7)).jobs == 1
    with pytest.raises(Conflict, match="another job had this id"):
        await lab.ledger.clone("source", "old", "ann")


async def test_of_two_singletons_that_start_in_one_moment_one_stays(lab: Lab) -> None:
    other = await lab.another()
    records = [
        AgentRecord(agent_id="solo", incarnation=name, capabilities=("research",), slots=1, singleton=True)
        for name in ("first", "second")
    ]
    async with lab.admin.transaction():
        await lab.admin.execute("LOCK TABLE agent2389.agents IN SHARE MODE")
        both = asyncio.gather(
            lab.ledger.register(records[0]), other.register(records[1]), return_exceptions=True
        )
        await asyncio.sleep(0.5)
    outcomes = await both
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1, outcomes
    assert sum(outcome is None for outcome in outcomes) == 1, outcomes
    await other.close()


async def test_a_chore_that_is_refused_does_not_end_the_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused:
        times = 0

        async def compare(self) -> None:
            self.times += 1
            raise PublishRefused("not authorised", may_pass=True)

    intervals = {"reconcile": 0.05, "reap": 0.05}
    monkeypatch.setattr("agent2389.upkeep.chores.INTERVALS", intervals)
    await lab.ledger.submit(new_job())
    refused = Refused()
    running = asyncio.create_task(Chores(lab.ledger, Silent(), reconciler=refused).run())  # type: ignore[arg-type]
    try:
        await until(lambda: refused.times > 1)
        await lab.force(f"UPDATE {TASKS} SET deadline = now() - interval '1 s'")
        await until(lab.ledger.job_counts, seconds=5)
        while await lab.ledger.job_counts() != {JobState.EXPIRED: 1}:
            await asyncio.sleep(0.05)
    finally:
        running.cancel()


async def test_upkeep_sees_and_moves_nothing_of_another_tenant(lab: Lab) -> None:
    """An agent login may run every chore, for its own tenant."""
    await provision_login(
        lab.databases.admin_dsn(lab.name), "agent_of_b", "x", tenant="b", groups=("agent2389_agent",)
    )
    stranger = await PostgresLedger.open(lab.databases.login_dsn(lab.name, "agent_of_b", "x"))
    incarnation = await join(lab.ledger)
    await lab.ledger.submit(new_job("secret"))
    claim = await claim_one(lab.ledger, incarnation)
    await lab.ledger.finish(claim.fence, finish("the secret"), "secret")
    await lab.ledger.submit(new_job("held"))
    await claim_one(lab.ledger, incarnation)
    await lab.force("UPDATE agent2389.outbox SET created_at = created_at - interval '5 seconds'")
    await lab.force(
        f"UPDATE {TASKS} SET lease_until = now() - interval '1 minute' WHERE lease_until IS NOT NULL"
    )
    await lab.force("UPDATE agent2389.agents SET last_beat = last_beat - interval '1 hour'")
    await lab.ledger.seal(1000)

    assert await stranger.take_outbox(10) == ()
    await stranger.refresh_board()
    assert await stranger.lease_board(10) == ()
    await stranger.board_reset()
    rows = await lab.ledger.take_outbox(10)
    await stranger.outbox_sent([row.id for row in rows])
    assert (await lab.ledger.unsent()).pending == len(rows) > 0
    assert await stranger.reap() == Effects()
    assert await stranger.ring_due() == ()
    done = await stranger.retire(-1)
    assert (done.agents, done.jobs) == ((), 0)
    assert {row.job_id for row in await lab.ledger.jobs()} == {"secret", "held"}
    assert await stranger.take_chore("reconcile", 60)
    assert await lab.ledger.take_chore("reconcile", 60), "each tenant has chores of its own"
    assert len((await lab.ledger.reap()).changes) == 1
    await stranger.close()
