"""Runs one command in bubblewrap: one writable folder, no network, no rights, hard limits."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent2389.errors import ConfigurationError
from agent2389.telemetry import children
from agent2389.tools import syscall_filter
from agent2389.tools.paths import MAX_DEPTH
from agent2389.tools.sandbox_end import GONE_SECONDS, FirstProcess
from agent2389.tools.sandbox_watch import watch

INSIDE = "/workspace"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("bwrap", "prlimit", "setpriv")
PROBE_SECONDS = 10.0
TIDY_SECONDS = 10.0
KEPT_OUTPUT = 8 * 1024
MAX_OUTPUT = 4 * 1024 * 1024
_MIB = 1024 * 1024
_FIRST_USER, _USERS = 0x60000000, 0x100000

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CONFIGURATION = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime")
_NETWORK_CONFIGURATION = ("resolv.conf", "hosts", "nsswitch.conf", "ssl/certs", "ca-certificates.conf")

# A command may leave what nothing of ours can open, name or walk through; it is put right from inside.
_TIDY = (
    "chmod -R u+rwX . 2>/dev/null; "
    f"find . -mindepth {MAX_DEPTH + 1} -delete; find . ! -type f ! -type d ! -type l -delete; "
    "find . -depth -name '*[![:print:]]*' -exec rm -rf -- {} +; true"
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one command may use. Memory, disk and files count for all its processes together.

    The defaults for files are what a task's workspace keeps when it moves to another machine.
    """

    seconds: float = 60.0
    cpu_seconds: int = 60
    memory_mib: int = 1024
    processes: int = 64
    open_files: int = 256
    file_mib: int = 32
    disk_mib: int = 256
    files: int = 1000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended: its exit code, or why it was ended. ``output`` is capped in the middle."""

    code: int
    output: str
    stopped: str | None = None


class Sandbox:
    """Commands for one set of limits. ``readable`` are more folders of this machine, shown read-only."""

    def __init__(
        self, limits: Limits, *, network: bool = False, readable: Sequence[Path] = (), reserved: str = ""
    ) -> None:
        self._limits = limits
        self._network = network
        self._readable = tuple(readable)
        self._reserved = reserved

    async def probe(self) -> None:
        """Try it. Raises ``ConfigurationError`` with the reason when this machine does not allow it."""
        with tempfile.TemporaryDirectory(prefix="agent2389-probe-") as folder:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    outcome = await self.run(("true",), Path(folder))
            except TimeoutError:
                raise ConfigurationError("bubblewrap does not come back") from None
        if outcome.code != 0 or outcome.stopped:
            raise ConfigurationError(
                f"bubblewrap may not make a sandbox here ({outcome.output.strip()[:200] or outcome.code})",
                hint="allow user namespaces (user.max_user_namespaces, the container's seccomp profile)",
            )

    async def run(self, command: Sequence[str], workspace: Path, *, seconds: float | None = None) -> Outcome:
        """Run ``command`` in ``workspace``; never longer than the limits say. Raises ``OSError``.

        When it returns or is cancelled, no process of the command is left and the workspace is tidy.
        """
        # A task of its own hears of one cancellation only: a second one cannot keep it from clearing up.
        whole = asyncio.create_task(self._run_and_tidy(command, workspace, seconds), name="sandbox")
        try:
            return await asyncio.shield(whole)
        except asyncio.CancelledError:
            whole.cancel()
            await asyncio.wait({whole})
            raise

    async def _run_and_tidy(self, command: Sequence[str], workspace: Path, seconds: float | None) -> Outcome:
        if self._reserved:
            (workspace / self._reserved).mkdir(mode=0o700, exist_ok=True)
        user = _user_of(workspace)
        await asyncio.to_thread(_give, workspace, user, self._reserved)
        try:
            return await self._run(command, workspace, user, min(seconds or 1e9, self._limits.seconds))
        finally:
            await self._run(("sh", "-c", _TIDY), workspace, user, TIDY_SECONDS)

    async def _run(
        self, command: Sequence[str], workspace: Path, user: int | None, seconds: float
    ) -> Outcome:
        with FirstProcess() as first:
            process = await self._start(command, workspace, user, first)
            assert process.stdout is not None
            output = _Output()
            reading = asyncio.create_task(output.read(process.stdout), name="sandbox output")
            ending = asyncio.create_task(process.wait(), name="sandbox end")
            watching = self._watchers(process.pid, workspace, output)
            try:
                done, _ = await asyncio.wait(
                    {ending, *watching}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                )
                stopped = None if ending in done else f"it took longer than {seconds:g} seconds"
                for task in done - {ending}:
                    stopped = str(task.result())
            finally:
                for task in watching:
                    task.cancel()
                await _end(process, first, ending)
                await asyncio.wait({reading, *watching})
        return Outcome(code=process.returncode or 0, output=output.text(), stopped=stopped)

    async def _start(
        self, command: Sequence[str], workspace: Path, user: int | None, first: FirstProcess
    ) -> asyncio.subprocess.Process:
        filter_file = os.memfd_create("filter", 0)
        try:
            os.write(filter_file, syscall_filter.program())
            os.lseek(filter_file, 0, os.SEEK_SET)
            return await asyncio.create_subprocess_exec(
                *self.command_line(command, workspace, user, filter_file, first.told_to),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": SEARCH_PATH},
                cwd="/",
                pass_fds=(filter_file, first.told_to),
                preexec_fn=children.die_with_parent(signal.SIGKILL),
                start_new_session=True,
            )
        finally:
            os.close(filter_file)
            first.started()

    def _watchers(
        self, process: int, workspace: Path, output: "_Output"
    ) -> tuple[asyncio.Task[str], asyncio.Task[str]]:
        limits = self._limits
        watching = watch(process, workspace, limits.memory_mib * _MIB, limits.disk_mib * _MIB, limits.files)
        return (
            asyncio.create_task(watching, name="sandbox watch"),
            asyncio.create_task(output.too_much(), name="sandbox output watch"),
        )

    def command_line(
        self, command: Sequence[str], workspace: Path, user: int | None, filter_file: int, told_to: int
    ) -> list[str]:
        """The whole command line; ``user`` is the id to change to, only where we are root."""
        limits = self._limits
        line = [
            shutil.which("bwrap", path=SEARCH_PATH) or "bwrap",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--cap-drop",
            "ALL",
        ]
        line += [
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--hostname",
            "sandbox",
        ]
        line += [] if self._network else ["--unshare-net"]
        # Root without a user namespace: the kernel counts processes of every user but root, whatever
        # namespace it is in. So root's commands change to a user that nobody else is.
        if user is None:
            line += ["--unshare-user"]
        else:
            for right in ("SETUID", "SETGID", "SETPCAP", "DAC_READ_SEARCH"):  # all gone after setpriv
                line += ["--cap-add", f"CAP_{right}"]
        line += ["--seccomp", str(filter_file), "--info-fd", str(told_to)]
        line += _system_mounts(network=self._network)
        line += ["--proc", "/proc", "--dev", "/dev"]
        for folder_inside, mib in (("/dev/shm", 16), ("/tmp", 64)):  # noqa: S108 - of the sandbox itself
            line += ["--perms", "1777", "--size", str(mib * _MIB), "--tmpfs", folder_inside]
        # After /tmp, which would hide a folder that lies in the machine's; the folders on the way by name,
        # because those that bubblewrap makes unasked are closed to every user but its own.
        for folder in self._readable:
            for parent in list(folder.parents)[-2::-1]:
                line += ["--dir", str(parent)]
            line += ["--ro-bind", str(folder), str(folder)]
        line += ["--bind", str(workspace), INSIDE]
        if self._reserved:
            line += ["--ro-bind", str(workspace / self._reserved), f"{INSIDE}/{self._reserved}"]
        line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", INSIDE]
        for name, value in _ENVIRONMENT.items():
            line += ["--setenv", name, value]
        line.append("--")
        if user is not None:
            line += ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]
            line += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
        line += ["prlimit", f"--cpu={limits.cpu_seconds}", f"--as={limits.memory_mib * _MIB}"]
        line += [f"--nproc={limits.processes}", f"--fsize={limits.file_mib * _MIB}"]
        line += [f"--nofile={limits.open_files}", "--core=0", "--memlock=0", "--"]
        return [*line, *command]


_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": INSIDE,
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 - of the sandbox itself
    "PYTHONDONTWRITEBYTECODE": "1",
}


def missing_part() -> str | None:
    """Why nothing can be sandboxed on this machine, or ``None``; ``Sandbox.probe`` tells the rest."""
    for name in PROGRAMS:
        if shutil.which(name, path=SEARCH_PATH) is None:
            package = "bubblewrap" if name == "bwrap" else "util-linux"
            return f"{name} is not installed; on Debian: apt-get install {package}"
    if not syscall_filter.is_supported():
        return "there is no system call filter for this kind of processor"
    return None


async def _end(process: asyncio.subprocess.Process, first: FirstProcess, ending: asyncio.Task[int]) -> None:
    """End what still runs and wait until nothing of it is left.

    Killing the sandbox's first process lets bubblewrap clear up after it; bubblewrap is killed itself
    only when that does not help.
    """
    if process.returncode is None and first.kill():
        await asyncio.wait({ending}, timeout=GONE_SECONDS)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await asyncio.wait({ending})
    await first.gone()


class _Output:
    """The first and the last of what a command says."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0
        self.overflow = asyncio.Event()

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Until the end: a process does not count as ended while its output is not read."""
        while chunk := await stream.read(65536):
            self._size += len(chunk)
            room = KEPT_OUTPUT - len(self._head)
            self._head += chunk[:room]
            self._tail = (self._tail + chunk[room:])[-KEPT_OUTPUT:]
            if self._size > MAX_OUTPUT:
                self.overflow.set()

    async def too_much(self) -> str:
        """Return the reason to stop once more came than is allowed."""
        await self.overflow.wait()
        return f"it wrote more than {MAX_OUTPUT // _MIB} MiB of output"

    def text(self) -> str:
        """As text, with a note where something is left out."""
        left_out = self._size - len(self._head) - len(self._tail)
        note = f"\n[… {left_out} bytes left out …]\n".encode() if left_out > 0 else b""
        return (bytes(self._head) + note + bytes(self._tail)).decode("utf-8", "replace").replace("\x00", "�")


def _system_mounts(*, network: bool) -> list[str]:
    # Folders that bubblewrap makes on the way are closed to every user but its own.
    line = ["--ro-bind", "/usr", "/usr", "--dir", "/etc", "--dir", "/etc/ssl"]
    for name in _SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            line += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            line += ["--ro-bind", str(path), str(path)]
    for name in _CONFIGURATION + (_NETWORK_CONFIGURATION if network else ()):
        line += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return line


def _user_of(workspace: Path) -> int | None:
    """As root: an id for this workspace that no account has, so that its processes can be counted."""
    if os.geteuid() != 0:
        return None
    return _FIRST_USER + zlib.crc32(str(workspace).encode()) % _USERS


def _give(workspace: Path, user: int | None, reserved: str) -> None:
    """Make ``user`` the owner of everything in ``workspace`` but the reserved folder."""
    if user is None:
        return
    os.chown(workspace, user, user)
    for folder, names, files in os.walk(workspace):
        if reserved in names and Path(folder) == workspace:
            names.remove(reserved)
        for name in (*names, *files):
            os.lchown(Path(folder, name), user, user)
