"""The server below a data folder: it starts, stops, survives and never outlives its owner."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from agent2389.ledger.embedded import embedded_postgres
from agent2389.telemetry.children import command_line
from tests.support.structure import ROOT
from tests.support.waiting import until

OWNER = """
import asyncio, sys
from pathlib import Path
from agent2389.ledger.embedded import embedded_postgres
from agent2389.telemetry import children

if "orphan" in sys.argv:
    # As on a system that does not end the children of a killed process.
    children.die_with_parent = lambda *_: None

async def main():
    async with embedded_postgres(Path(sys.argv[1])) as server:
        print(server.pid, server.dsn, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder; what belongs to it elsewhere goes with it."""
    yield tmp_path / "data"
    for location in tmp_path.rglob("postgres.location"):
        shutil.rmtree(location.read_text().strip(), ignore_errors=True)


async def _ask(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def _owner(data: Path, *words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, str]]:
    """Another process that runs the server: itself, the server's pid, its DSN. Killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(data), *words, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        pid, dsn = line.decode().split()
        yield process, int(pid), dsn
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_starts_on_loopback_and_leaves_nothing_running(data: Path) -> None:
    async with embedded_postgres(data) as server:
        assert await _ask(server.dsn, "SELECT current_setting('listen_addresses')") == "127.0.0.1"
        assert await _ask(server.dsn, "SELECT current_setting('unix_socket_directories')") == ""
        assert await _ask(server.dsn, "SELECT current_setting('fsync')") == "on"
        wrong = server.dsn.replace("postgres:", "postgres:wrong-", 1)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _ask(wrong, "SELECT 1")
        if os.geteuid() == 0:
            assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
    assert command_line(server.pid) == ""
    assert (data / "postgres.password").stat().st_mode & 0o777 == 0o600
    folder = Path((data / "postgres.location").read_text().strip())
    assert list(folder.glob("initial.*")) == [], "the password file of initdb is gone"


async def test_a_restart_keeps_the_data(data: Path) -> None:
    async with embedded_postgres(data) as server:
        await _ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    async with embedded_postgres(data) as server:
        assert await _ask(server.dsn, "SELECT n FROM kept") == 7


async def test_a_killed_server_recovers(data: Path) -> None:
    async with embedded_postgres(data) as server:
        await _ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        os.kill(server.pid, signal.SIGKILL)
    async with embedded_postgres(data) as again:
        assert again.pid != server.pid
        assert await _ask(again.dsn, "SELECT n FROM kept") == 7


async def test_a_killed_server_comes_back_on_its_port_with_its_data(data: Path) -> None:
    async with embedded_postgres(data) as server:
        await _ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        os.kill(server.pid, signal.SIGKILL)

        async def answer() -> object:
            try:
                return await _ask(server.dsn, "SELECT n FROM kept")
            except (OSError, asyncpg.PostgresError):
                return None

        assert await until(answer, 30) == 7
        again = server.kept.process.pid
        assert again != server.pid
    assert command_line(again) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
async def test_it_dies_with_its_owner(data: Path) -> None:
    async with _owner(data) as (process, pid, _):
        process.kill()
        await process.wait()
        await until(lambda: command_line(pid) == "")


@pytest.mark.skipif(sys.platform != "linux", reason="command lines are read from /proc")
async def test_a_leftover_is_ended_and_its_data_kept(data: Path) -> None:
    async with _owner(data, "orphan") as (process, pid, dsn):
        await _ask(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        process.kill()
        await process.wait()
    assert await _ask(dsn, "SELECT 1") == 1, "the orphan lives on"
    async with embedded_postgres(data) as server:
        assert command_line(pid) == ""
        assert await _ask(server.dsn, "SELECT n FROM kept") == 7


@pytest.mark.skipif(sys.platform != "linux", reason="command lines are read from /proc")
async def test_a_pid_that_is_somebody_elses_is_left_alone(data: Path) -> None:
    async with embedded_postgres(data):
        pass
    cluster = Path((data / "postgres.location").read_text().strip()) / "data"
    bystander = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    try:
        (cluster / "postmaster.pid").write_text(f"{bystander.pid}\n{cluster}\n")
        if os.geteuid() == 0:
            os.chown(cluster / "postmaster.pid", 65534, 65534)
        async with embedded_postgres(data) as server:
            assert await _ask(server.dsn, "SELECT 1") == 1
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_it_works_below_a_private_folder(data: Path) -> None:
    private = data.parent / "private"
    private.mkdir(mode=0o700)
    async with embedded_postgres(private / "data") as server:
        assert await _ask(server.dsn, "SELECT 1") == 1
    assert private.stat().st_mode & 0o777 == 0o700


async def test_two_folders_have_two_servers(data: Path) -> None:
    async with embedded_postgres(data / "one") as one, embedded_postgres(data / "two") as two:
        assert one.port != two.port
        await _ask(one.dsn, "CREATE TABLE only_here (n integer)")
        assert await _ask(two.dsn, "SELECT to_regclass('only_here')") is None
