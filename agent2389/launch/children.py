"""The processes of a mesh: started, watched, restarted, ended."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from agent2389.errors import Agent2389Error, ConfigurationError, Conflict, NotAllowed
from agent2389.telemetry import children

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
HOPELESS: Mapping[int, type[Agent2389Error]] = {3: ConfigurationError, 4: NotAllowed, 6: Conflict}
"""Exit codes that a new start cannot cure, and the errors they stand for."""
LAST_LINES = 20

log = structlog.get_logger(__name__)


class Child(msgspec.Struct, frozen=True):
    """One process to keep running."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    log_file: Path
    may_end: bool = False
    """An end with exit code 0 was asked for, so it is not started again."""


class Supervisor:
    """Keeps children running until ``stop``. A child with a wrong configuration is not restarted,
    nor one that ended because it was told to; ``tell`` hears of the latter.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self._tell = tell
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._spawning: set[asyncio.Task[asyncio.subprocess.Process]] = set()

    async def start(self, child: Child) -> asyncio.subprocess.Process:
        """Start ``child`` and watch it."""
        process = await self._spawn(child)
        self._watchers[child.name] = asyncio.create_task(self._watch(child), name=f"watch-{child.name}")
        return process

    def has_died(self, name: str) -> bool:
        """Whether the child is not running right now."""
        return self._processes[name].returncode is not None

    def refusal(self, child: Child) -> Agent2389Error | None:
        """The error by which ``child`` refused to run, in its own words; ``None`` when it did not."""
        kind = HOPELESS.get(self._processes[child.name].returncode or 0)
        return None if kind is None else _last_error(kind, child.log_file)

    async def stop(self, names: list[str] | None = None, *, seconds: float) -> None:
        """SIGTERM to ``names`` (all by default) at once, SIGKILL to those that take longer."""
        if self._spawning:
            await asyncio.gather(*self._spawning, return_exceptions=True)
        chosen = names if names is not None else list(self._processes)
        for name in chosen:
            if (watcher := self._watchers.pop(name, None)) is not None:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
        await asyncio.gather(
            *(
                children.stop(self._processes.pop(name), signal.SIGTERM, seconds=seconds)
                for name in chosen
                if name in self._processes
            )
        )

    @property
    def names(self) -> list[str]:
        """The children by name."""
        return list(self._processes)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        """Start and enter the process even when the caller is cancelled meanwhile: nothing is left behind."""
        task = asyncio.create_task(self._start_and_enter(child))
        self._spawning.add(task)
        task.add_done_callback(self._spawning.discard)
        return await asyncio.shield(task)

    async def _start_and_enter(self, child: Child) -> asyncio.subprocess.Process:
        process = await children.start(child.command, child.log_file, environ=child.environ)
        self._processes[child.name] = process
        return process

    async def _watch(self, child: Child) -> None:
        pause = FIRST_PAUSE
        while True:
            started = asyncio.get_running_loop().time()
            code = await self._processes[child.name].wait()
            if code in HOPELESS:
                reason = children.tail(child.log_file)
                log.error(
                    "child cannot run", name=child.name, code=code, log=str(child.log_file), reason=reason
                )
                return
            if code == 0 and child.may_end:
                self._tell(f"{child.name} ended as it was told")
                return
            lived = asyncio.get_running_loop().time() - started
            pause = FIRST_PAUSE if lived > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
            log.warning("child ended, starting it again", name=child.name, code=code, pause=pause)
            await asyncio.sleep(pause)
            await self._spawn(child)


def _last_error(kind: type[Agent2389Error], log_file: Path) -> Agent2389Error:
    """What a process that ended told last: a line ``error:``, perhaps others, a line ``hint:``."""
    lines = children.tail(log_file, LAST_LINES).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return kind("\n".join(lines[-1:]) or "it ended without a word", hint=f"see {log_file}")
    told = lines[starts[-1] :]
    hints = [line.removeprefix("hint: ") for line in told if line.startswith("hint: ")]
    text = "\n".join(line for line in told if not line.startswith("hint: "))
    return kind(text.removeprefix("error: "), hint=hints[-1] if hints else f"see {log_file}")
