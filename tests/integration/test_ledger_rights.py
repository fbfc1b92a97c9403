"""The database itself holds the line: rights, tenants, guards, the claim's plan."""

import secrets

import asyncpg
import pytest

from agent2389.errors import ConfigurationError, NotAllowed, NotFound
from agent2389.ledger.dossier import RequirementChange
from agent2389.ledger.migrate import migrate, provision_login, shipped, status
from agent2389.ledger.notices import Place
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.states import TRANSITIONS
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases

TABLES = (
    "jobs", "tasks", "results", "job_results", "blobs", "workspaces", "events", "board", "outbox",
    "agents", "intake_rejects", "tombstones", "principals", "meta", "transitions", "upkeep",
    "approvals", "commands", "pauses", "sources", "citations", "requirements",
    "messages", "transcript", "effects", "limits", "spend", "notices", "buried_links",
)  # fmt: skip


async def test_migrating_twice_changes_nothing(databases: Databases) -> None:
    name = await databases.new()
    assert await migrate(databases.admin_dsn(name)) == []
    applied, missing = await status(databases.admin_dsn(name))
    assert (applied, missing) == ([item.name for item in shipped()], [])


async def test_a_database_without_ledger_is_a_configuration_error(databases: Databases) -> None:
    with pytest.raises(ConfigurationError) as error:
        await PostgresLedger.open(databases.login_dsn("postgres"))
    assert "db migrate" in (error.value.hint or "")


async def test_a_login_without_tenant_is_not_allowed(databases: Databases) -> None:
    name, login = await databases.new(), f"stray_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(databases.admin_dsn(name))
    try:
        await admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE agent2389_agent")
        with pytest.raises(NotAllowed):
            await PostgresLedger.open(databases.login_dsn(name, login, "x"))
        await admin.execute(f"DROP ROLE {login}")
    finally:
        await admin.close()


async def test_logins_have_functions_and_no_tables(databases: Databases) -> None:
    name = await databases.new()
    connection = await asyncpg.connect(databases.login_dsn(name))
    try:
        for table in TABLES:
            for statement in (f"SELECT * FROM agent2389.{table}", f"DELETE FROM agent2389.{table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        for call in ("agent2389_v1.provision('a', 'b', true)", "agent2389.note('a','b',null,'c',null,null)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"SELECT {call}")
    finally:
        await connection.close()


async def test_an_operator_never_owns_a_task(databases: Databases) -> None:
    name, login = await databases.new(), "mesh_operator_only"
    await provision_login(databases.admin_dsn(name), login, "x", groups=("agent2389_operator",))
    ledger = await PostgresLedger.open(databases.login_dsn(name, login, "x"))
    try:
        await ledger.submit(new_job())
        with pytest.raises(NotAllowed):
            await ledger.claim_batch("somebody", 1)
    finally:
        await ledger.close()


async def test_an_agent_cannot_take_the_notifications_from_ops(databases: Databases) -> None:
    name, login = await databases.new(), "mesh_agent_only"
    await provision_login(databases.admin_dsn(name), login, "x", groups=("agent2389_agent",))
    ledger = await PostgresLedger.open(databases.login_dsn(name, login, "x"))
    try:
        with pytest.raises(NotAllowed):
            await ledger.notices.take("webhook", "me", ["job.failed"], limit=1, lease_seconds=1)
        with pytest.raises(NotAllowed):
            await ledger.notices.keep("webhook", "me", Place(number=9), seconds=1, ends=True)
        with pytest.raises(NotAllowed):
            await ledger.notices.standing("webhook", ["job.failed"])
    finally:
        await ledger.close()


async def test_owner_and_upkeep_are_ordinary_roles_under_forced_policies(databases: Databases) -> None:
    admin = await asyncpg.connect(databases.admin_dsn(await databases.new()))
    try:
        for role in ("agent2389_owner", "agent2389_upkeep"):
            row = await admin.fetchrow(
                "SELECT rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname=$1", role
            )
            assert row is not None
            assert tuple(row) == (False, False, False)
        rows = await admin.fetch(
            "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class "
            "WHERE relnamespace = 'agent2389'::regnamespace AND relkind = 'r' AND relname <> 'migrations'"
        )
        assert {row["relname"] for row in rows} == set(TABLES)
        assert all(row["forced"] for row in rows)
    finally:
        await admin.close()


async def test_tenants_see_nothing_of_each_other(databases: Databases) -> None:
    name = await databases.new()
    await provision_login(databases.admin_dsn(name), "mesh_blue", "x", tenant="blue")
    own = await PostgresLedger.open(databases.login_dsn(name))
    blue = await PostgresLedger.open(databases.login_dsn(name, "mesh_blue", "x"))
    try:
        await own.submit(new_job())
        digest = await own.put_blob(b"secret", "text/plain")
        intruder = await join(blue, "thief")
        assert await blue.claim_batch(intruder, 5) == []
        assert await blue.jobs() == ()
        assert await blue.find_jobs("job") == ()
        assert await blue.missing_blobs([digest]) == [digest]
        assert (await blue.submit(new_job())).verdict == "accepted", "ids of another tenant are free"
        assert [row.agent_id for row in await own.agents()] == []
        assert (await own.job("job-1")).job.state == "queued"
    finally:
        await own.close()
        await blue.close()


async def test_a_caller_cannot_choose_its_tenant(databases: Databases) -> None:
    connection = await asyncpg.connect(databases.login_dsn(await databases.new()))
    try:
        await connection.execute("SET agent2389.tenant = 'blue'")
        assert '"tenant": "default"' in await connection.fetchval("SELECT agent2389_v1.identity()")
    finally:
        await connection.close()


async def test_the_transition_table_is_that_of_the_code(databases: Databases) -> None:
    admin = await asyncpg.connect(databases.admin_dsn(await databases.new()))
    try:
        rows = await admin.fetch("SELECT before, after FROM agent2389.transitions")
    finally:
        await admin.close()
    assert {(row[0], row[1]) for row in rows} == {(a.value, b.value) for a, b in TRANSITIONS}


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("UPDATE agent2389.tasks SET epoch = epoch - 1 WHERE job_id = 'waits'", "A2902"),
        ("UPDATE agent2389.tasks SET state = 'in_progress' WHERE job_id = 'waits'", "A2902"),
        ("UPDATE agent2389.tasks SET state = 'verified' WHERE job_id = 'waits'", "A2901"),
        ("UPDATE agent2389.tasks SET hop = 9 WHERE job_id = 'waits'", "A2904"),
        ("UPDATE agent2389.tasks SET attempt = 99 WHERE job_id = 'waits'", "23514"),
        ("UPDATE agent2389.tasks SET owner_incarnation = 'me' WHERE job_id = 'waits'", "23514"),
        ("UPDATE agent2389.tasks SET reason = 'x' WHERE job_id = 'job-1'", "A2903"),
        ("UPDATE agent2389.jobs SET state = 'failed' WHERE job_id = 'job-1'", "A2903"),
        ("UPDATE agent2389.job_results SET payload = '{}'", "A2903"),
        ("UPDATE agent2389.results SET payload = '{}'", "A2903"),
        ("UPDATE agent2389.events SET type = 'x'", "A2903"),
        ("DELETE FROM agent2389.tasks", "A2903"),
        ("DELETE FROM agent2389.results", "A2903"),
        ("DELETE FROM agent2389.jobs WHERE job_id = 'waits'", "A2903"),
        (("INSERT INTO agent2389.tasks (tenant, task_id, job_id, hop, pool, capability, rank, deadline, state) "
         "VALUES ('default', 't', 'job-1', 1, 'a', 'a', 5, now(), 'completed')"), "A2901"),
    ],
)  # fmt: skip
async def test_not_even_a_superuser_by_hand_takes_a_wrong_step(
    databases: Databases, statement: str, sqlstate: str
) -> None:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish(), "job-1")
    await ledger.submit(new_job("waits"))
    await ledger.close()
    admin = await asyncpg.connect(databases.admin_dsn(name))
    try:
        with pytest.raises(asyncpg.PostgresError) as error:
            await admin.execute(statement)
        assert error.value.sqlstate == sqlstate
    finally:
        await admin.close()


CLAIM = (
    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT task_id FROM agent2389.tasks WHERE tenant = 'default' "
    "AND pool = 'research' AND state = 'queued' AND run_after <= clock_timestamp() "
    "AND deadline > clock_timestamp() ORDER BY rank, seq LIMIT 4 FOR UPDATE SKIP LOCKED"
)


@pytest.mark.parametrize(
    ("queued", "finished"), [(20_000, 0), (10, 60_000)], ids=["all queued", "all finished"]
)
async def test_a_claim_costs_the_same_however_long_the_history(
    databases: Databases, queued: int, finished: int
) -> None:
    import json

    admin = await asyncpg.connect(databases.admin_dsn(await databases.new()))
    fill = (
        "INSERT INTO agent2389.jobs (tenant, job_id, content_hash, state, capability, submission, source, priority, "
        "max_hops, budget, deadline, open_tasks, finished_at) SELECT 'default', $1 || i, 'h', $2, 'research', '{}', "
        "'mqtt', 5, 16, '{}', now() + interval '1 hour', $3::int, CASE WHEN $3::int = 0 THEN now() END "
        "FROM generate_series(1, $4::int) i"
    )
    tasks = (
        "INSERT INTO agent2389.tasks (tenant, task_id, job_id, hop, pool, capability, rank, deadline, state) "
        "SELECT tenant, job_id, job_id, 1, 'research', 'research', 4, deadline, "
        "CASE state WHEN 'open' THEN 'queued' ELSE 'completed' END FROM agent2389.jobs"
    )
    try:
        await admin.execute("ALTER TABLE agent2389.tasks DISABLE TRIGGER guard_new")
        await admin.execute(fill, "done", "completed", 0, finished)
        await admin.execute(fill, "open", "open", 1, queued)
        await admin.execute(tasks)
        await admin.execute("ANALYZE agent2389.tasks")
        plan = json.loads(await admin.fetchval(CLAIM))[0]["Plan"]
    finally:
        await admin.close()
    # With few queued rows any partial index will do; with many only the ordered one.
    assert "Seq Scan" not in json.dumps(plan)
    assert "tasks_pkey" not in json.dumps(plan)
    assert queued < 100 or "tasks_claimable" in json.dumps(plan)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 60


async def test_the_dossier_of_another_tenant_is_out_of_reach(databases: Databases) -> None:
    name = await databases.new()
    await provision_login(databases.admin_dsn(name), "mesh_green", "x", tenant="green")
    own = await PostgresLedger.open(databases.login_dsn(name))
    green = await PostgresLedger.open(databases.login_dsn(name, "mesh_green", "x"))
    try:
        await own.submit(new_job())
        claim = await claim_one(own, await join(own))
        await own.dossier.add_requirement(claim.fence, "It stays secret.")
        assert await green.dossier.requirements("job-1") == ()
        with pytest.raises(NotFound):
            await green.dossier.add_requirement(claim.fence, "It leaks.")
        with pytest.raises(NotFound):
            await green.dossier.edit_requirement(claim.fence, 1, 1, RequirementChange(status="met"))
        assert [row.version for row in await own.dossier.requirements("job-1")] == [1]
    finally:
        await own.close()
        await green.close()
