"""Server processes this program starts: started with their own log, ended by their own pid."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

_PR_SET_PDEATHSIG = 1

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
