"""Server processes this program starts: started with their own log, ended by their own pid."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from agent2389.errors import Unreachable

_PR_SET_PDEATHSIG = 1
INSTANT_SECONDS = 10.0
"""A server that lived shorter than this died at once."""
MOST_INSTANT_DEATHS = 8
FIRST_RESTART_PAUSE, LONGEST_RESTART_PAUSE = 0.1, 5.0

log = structlog.get_logger(__name__)


def die_with_parent(sign: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """A hook for the child's start that makes Linux end it when its parent is killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def hook() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, sign, 0, 0, 0)
        if os.getppid() != parent:  # it died before the hook ran
            os.kill(os.getpid(), sign)

    return hook


async def start(
    command: Sequence[str | Path],
    log_file: Path,
    *,
    environ: Mapping[str, str] | None = None,
    user: int | None = None,
    group: int | None = None,
    cwd: Path | None = None,
    sign: signal.Signals = signal.SIGTERM,
) -> asyncio.subprocess.Process:
    """Start ``command`` in its own session (a terminal's Ctrl-C does not reach it), output to ``log_file``.

    ``user`` and ``group`` are ids to run as (only as root). Raises ``OSError``.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    identity: dict[str, Any] = {} if user is None else {"user": user, "group": group, "extra_groups": []}
    with log_file.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environ) if environ is not None else None,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=die_with_parent(sign),
            **identity,
        )


async def stop(
    process: asyncio.subprocess.Process, sign: signal.Signals = signal.SIGTERM, *, seconds: float = 5.0
) -> None:
    """Signal ``process``, wait for its end, kill it when it takes longer than ``seconds``."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sign)
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        log.warning("process did not stop in time", pid=process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Kept:
    """A server that is started again when it dies.

    ``process`` is the one that runs now; ``gave_up`` ends with ``Unreachable`` when there will be no other.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_up(self, error: Unreachable) -> None:
        """Tell whoever waits for ``gave_up``."""
        self.gave_up.set_exception(error)
        self.gave_up.exception()  # nobody has to be waiting


@contextlib.asynccontextmanager
async def kept_running(
    what: str,
    spawn: Callable[[], Awaitable[asyncio.subprocess.Process]],
    ready: Callable[[asyncio.subprocess.Process], Awaitable[None]],
    log_file: Path,
    *,
    sign: signal.Signals = signal.SIGTERM,
    stop_seconds: float = 5.0,
) -> AsyncIterator[Kept]:
    """Run a server for the time of the block, and start it again whenever it dies.

    ``spawn`` starts the process, ``ready`` waits until it answers and raises ``Unreachable`` when it
    does not; the first start's failure leaves this function. Later ones are tried again with a
    growing pause; after ``MOST_INSTANT_DEATHS`` in a row ``gave_up`` ends with an error.
    """
    kept = Kept(await spawn())
    watcher: asyncio.Task[None] | None = None
    try:
        await ready(kept.process)
        watcher = asyncio.create_task(_keep(kept, what, spawn, ready, log_file), name=f"keep-{what}")
        yield kept
    finally:
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait({watcher})
        await asyncio.shield(stop(kept.process, sign, seconds=stop_seconds))


async def _keep(
    kept: Kept,
    what: str,
    spawn: Callable[[], Awaitable[asyncio.subprocess.Process]],
    ready: Callable[[asyncio.subprocess.Process], Awaitable[None]],
    log_file: Path,
) -> None:
    deaths = 0
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        code = await kept.process.wait()
        deaths = deaths + 1 if loop.time() - began < INSTANT_SECONDS else 1
        if deaths > MOST_INSTANT_DEATHS:
            kept.give_up(
                Unreachable(
                    what,
                    f"the {what} died {deaths} times in a row soon after its start: {tail(log_file)}",
                    hint=f"see {log_file}",
                )
            )
            return
        pause = min(FIRST_RESTART_PAUSE * 2 ** (deaths - 1), LONGEST_RESTART_PAUSE)
        log.warning("server died, starting it again", server=what, code=code, pause=pause)
        await asyncio.sleep(pause)
        await _again(kept, what, spawn, ready)


async def _again(
    kept: Kept,
    what: str,
    spawn: Callable[[], Awaitable[asyncio.subprocess.Process]],
    ready: Callable[[asyncio.subprocess.Process], Awaitable[None]],
) -> None:
    """One more start. A failed one leaves a process that ended, so that the next round counts it."""
    try:
        kept.process = await spawn()
        await ready(kept.process)
    except (OSError, Unreachable) as error:
        log.warning("server did not start again", server=what, reason=str(error))
        await stop(kept.process, signal.SIGKILL)
    else:
        log.info("server runs again", server=what, pid=kept.process.pid)


def command_line(pid: int) -> str:
    """The arguments of a running process joined by spaces; empty when there is none (or not on Linux)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\x00", b" ").decode(errors="replace")
    except OSError:
        return ""


async def end_leftover(pid_file: Path, mark: str, sign: signal.Signals, *, seconds: float = 5.0) -> bool:
    """End the process named in ``pid_file`` if its command line contains ``mark``.

    Whether there was one. A pid that now belongs to somebody else is left alone.
    """
    try:
        pid = int((await asyncio.to_thread(pid_file.read_text)).split()[0])
    except (OSError, ValueError, IndexError):
        return False
    if mark not in command_line(pid):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)
        deadline = asyncio.get_running_loop().time() + seconds
        while mark in command_line(pid) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        if mark in command_line(pid):
            os.kill(pid, signal.SIGKILL)
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether ``port`` can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
