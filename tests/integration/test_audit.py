"""The sealed chain as operators read and check it."""

import asyncio
import json
from pathlib import Path

import asyncpg

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
