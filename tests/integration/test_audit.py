"""The sealed chain as operators read and check it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from agent2389.ledger.postgres import PostgresLedger
from tests.support.jobs import new_job
from tests.support.mesh import clean_environ, command
from tests.support.postgres import Databases


async def run(folder: Path, dsn: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        env={**clean_environ(), "DATABASE_URL": dsn},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_acts_are_listed_and_what_was_changed_is_found(tmp_path: Path, databases: Databases) -> None:
    name = await databases.new()
    dsn = databases.login_dsn(name)
    assert await run(tmp_path, dsn, "audit", "verify") == (0, "nothing is sealed yet\n", "")
    ledger = await PostgresLedger.open(dsn)
    for number in range(3):
        await ledger.submit(new_job(f"job-{number}"))
        await ledger.cancel(f"job-{number}", f"person-{number}")
    await ledger.seal(100)
    await ledger.close()

    code, out, _ = await run(tmp_path, dsn, "audit", "list", "--json")
    links = json.loads(out)["data"]
    assert code == 0
    assert [link["number"] for link in links] == sorted(link["number"] for link in links)
    assert [link["data"]["actor"] for link in links if link["type"] == "job.cancel_requested"] == [
        f"person-{number}" for number in range(3)
    ]
    newest = links[-1]
    older = json.loads((await run(tmp_path, dsn, "audit", "list", "--limit", "2", "--json",
                                  "--before", str(newest["number"])))[1])["data"]  # fmt: skip
    assert older == links[-3:-1]
    code, out, _ = await run(tmp_path, dsn, "audit", "verify")
    assert (code, out) == (0, f"intact up to event {newest['number']}, {newest['hash']}\n")

    admin = await asyncpg.connect(databases.admin_dsn(name))
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        "UPDATE agent2389.events SET data = jsonb_set(data, '{actor}', '\"nobody\"') WHERE number = $1",
        links[0]["number"],
    )
    await admin.close()
    code, out, err = await run(tmp_path, dsn, "audit", "verify")
    assert (code, out) == (1, "")
    assert f"events {links[0]['number']} do not follow" in err


JOBS = 5
Chain = tuple[PostgresLedger, asyncpg.Connection, list[list[int]]]


@pytest.fixture
async def chain(databases: Databases) -> AsyncIterator[Chain]:
    """The superuser's connection to a chain of five jobs, and the numbers of their links. Retention took two."""
    name = await databases.new()
    admin = await asyncpg.connect(databases.admin_dsn(name))
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    for number in range(JOBS):
        await ledger.submit(new_job(f"job-{number}"))
        await ledger.cancel(f"job-{number}", "ann")
    await ledger.seal(100)
    links = [
        [row[0] for row in await admin.fetch(
            "SELECT number FROM agent2389.events WHERE hash IS NOT NULL AND job_id = $1 ORDER BY number",
            f"job-{number}")]
        for number in range(JOBS)
    ]  # fmt: skip
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        "UPDATE agent2389.jobs SET finished_at = finished_at - interval '8 days' WHERE job_id IN ('job-1', 'job-3')"
    )
    await ledger.retire(7)
    assert {row.job_id for row in await ledger.jobs()} == {"job-0", "job-2", "job-4"}
    yield ledger, admin, links
    await ledger.close()
    await admin.close()


@pytest.mark.parametrize("removed", range(JOBS))
async def test_what_retention_buried_is_no_alarm_and_what_a_hand_removed_is(
    chain: Chain, removed: int
) -> None:
    _, admin, links = chain
    broken = "SELECT agent2389_v1.broken_links(10)"
    assert await admin.fetchval(broken) == []
    for table in ("events", "buried_links"):
        await admin.execute(f"DELETE FROM agent2389.{table} WHERE number = ANY ($1)", links[removed])
    newest = removed == JOBS - 1
    assert await admin.fetchval(broken) == [links[-1][-1] if newest else links[removed + 1][0]]


async def test_retention_forgets_links_that_nothing_follows(chain: Chain) -> None:
    ledger, admin, links = chain
    left = "SELECT array_agg(number ORDER BY number) FROM agent2389.buried_links"
    assert await admin.fetchval(left) == links[1] + links[3]
    for number, kept in ((0, links[3]), (2, None), (4, None)):
        await admin.execute(
            "UPDATE agent2389.jobs SET finished_at = finished_at - interval '8 days' WHERE job_id = $1",
            f"job-{number}",
        )
        await ledger.retire(7)
        assert await admin.fetchval(left) == kept
        assert await admin.fetchval("SELECT agent2389_v1.broken_links(10)") == []
