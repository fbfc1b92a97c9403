"""A database that answers and takes no writes: its disk is full, or it is set read-only."""

import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from agent2389.errors import Unreachable
from agent2389.ledger import postgres_session
from agent2389.ledger.inspection import Inspector
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.states import JobState
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases

DISK = "32m"
JOBS = 20


@pytest.fixture
async def small_disk(databases: Databases) -> AsyncIterator[tuple[str, Path]]:
    """A database whose tables lie on a disk of their own, and the folder of that disk."""
    folder = Path("/var/tmp") / f"agent2389-disk-{secrets.token_hex(6)}"
    folder.mkdir()
    try:
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0777", "tmpfs", str(folder)]
        if shutil.which("mount") is None or os.geteuid() != 0:
            pytest.skip("only root can mount a disk that is small enough to be filled")
        if subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine lets nobody mount a disk that is small enough to be filled")
        try:
            tables = folder / "tables"
            tables.mkdir()
            admin = await asyncpg.connect(databases.superuser_dsn)
            os.chown(tables, 65534, 65534)
            name = await databases.new()
            await admin.execute(f"CREATE TABLESPACE {name} LOCATION '{tables}'")
            await admin.execute(f"ALTER DATABASE {name} SET TABLESPACE {name}")
            yield name, folder
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.execute(f"DROP TABLESPACE {name}")
            await admin.close()
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


async def submit_for_ever(ledger: PostgresLedger, accepted: list[str]) -> None:
    while True:
        job = new_job(f"more-{len(accepted)}", submission={"text": secrets.token_hex(4000)})
        await ledger.submit(job)
        accepted.append(job.job_id)


async def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space(
    databases: Databases, small_disk: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = small_disk
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    incarnation = await join(ledger)
    for number in range(JOBS):
        await ledger.submit(new_job(f"job-{number}"))
    fill(folder / "filler")
    accepted: list[str] = []
    with pytest.raises(Unreachable, match="the disk of the database is full") as refused:
        await submit_for_ever(ledger, accepted)
    assert "free space" in (refused.value.hint or "")
    with pytest.raises(Unreachable, match="the disk of the database is full"):
        await ledger.check()

    (folder / "filler").unlink()
    await ledger.submit(new_job("afterwards"))
    monkeypatch.setattr(postgres_session, "REFUSED_SECONDS", 0.0)
    await ledger.check()
    for _ in range(JOBS + len(accepted) + 1):
        claim = await claim_one(ledger, incarnation)
        await ledger.finish(claim.fence, finish(), claim.job_id)
    assert (await ledger.job_counts()).get(JobState.COMPLETED) == JOBS + len(accepted) + 1
    inspector = await Inspector.open(databases.login_dsn(name))
    assert [found for found in await inspector.problems() if not found.is_settling] == []
    await inspector.close()
    await ledger.close()


async def test_a_replica_is_not_healthy_and_says_what_to_do(databases: Databases) -> None:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    await ledger.check()
    await ledger.close()
    admin = await asyncpg.connect(databases.superuser_dsn)
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await admin.close()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    with pytest.raises(Unreachable, match="takes no writes") as refused:
        await ledger.submit(new_job())
    assert "primary" in (refused.value.hint or "")
    with pytest.raises(Unreachable, match="takes no writes"):
        await ledger.check()
    await ledger.close()
