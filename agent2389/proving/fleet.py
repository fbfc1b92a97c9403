"""The agent and ops processes of a fault run: started, killed, stopped, watched."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent2389.telemetry import children

DRAIN_SECONDS = 40.0
RESTART_PAUSE_SECONDS = 0.5


class UnexpectedEnd(msgspec.Struct, frozen=True):
    """A process that ended though nobody killed it."""

    name: str
    code: int
    tail: str


class Member:
    """One process that is kept running under one name."""

    def __init__(
        self, name: str, command: tuple[str, ...], environ: Mapping[str, str], log_file: Path
    ) -> None:
        self.name = name
        self.command = command
        self.environ = dict(environ)
        self.log_file = log_file
        self.process: asyncio.subprocess.Process | None = None
        self.is_held = False
        """A fault works on it: no other fault touches it meanwhile."""
        self.may_end = False

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.returncode is None

    def send(self, sign: signal.Signals) -> None:
        """Signal the process, if it lives."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # Not send_signal: it may reap the child before its watcher, and the exit code is lost.
                os.kill(self.process.pid, sign)


class Fleet:
    """All members. A member that ends by itself is noted and started again."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.unexpected: list[UnexpectedEnd] = []
        self.starts = 0
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def add(self, member: Member) -> None:
        """Start ``member`` and keep it running."""
        self.members[member.name] = member
        await self.start(member)

    async def start(self, member: Member) -> None:
        """Start its process, which must not be running."""
        member.process = await children.start(member.command, member.log_file, environ=member.environ)
        # Not before: until now the watcher of the last process may look whether its end was meant.
        member.may_end = False
        self.starts += 1
        self._watchers[member.name] = asyncio.create_task(
            self._watch(member, member.process), name=f"watch-{member.name}"
        )

    async def kill(self, member: Member) -> None:
        """Kill -9; returns when it is gone."""
        member.may_end = True
        member.send(signal.SIGKILL)
        if member.process is not None:
            await member.process.wait()

    async def drain(self, member: Member) -> int:
        """SIGTERM, and the exit code it ends with."""
        member.may_end = True
        assert member.process is not None
        await children.stop(member.process, signal.SIGTERM, seconds=DRAIN_SECONDS)
        return member.process.returncode or 0

    async def remove(self, member: Member) -> None:
        """End it for good."""
        await self.drain(member)
        del self.members[member.name]

    def free(self, prefix: str) -> list[Member]:
        """Running members of which no fault has hold."""
        return [
            member
            for member in self.members.values()
            if member.name.startswith(prefix) and member.is_running and not member.is_held
        ]

    async def close(self) -> None:
        """End everything in an orderly way, stopped processes too."""
        self._closing = True
        for member in self.members.values():
            member.may_end = True
            member.send(signal.SIGCONT)
        ends = [
            children.stop(member.process, signal.SIGTERM, seconds=10)
            for member in self.members.values()
            if member.process is not None
        ]
        await asyncio.gather(*ends)
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    async def _watch(self, member: Member, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._is_missed(member, process):
            return
        self.unexpected.append(UnexpectedEnd(member.name, code, children.tail(member.log_file, 3)))
        await asyncio.sleep(RESTART_PAUSE_SECONDS)
        if self._is_missed(member, process):
            await self.start(member)

    def _is_missed(self, member: Member, process: asyncio.subprocess.Process) -> bool:
        return member.process is process and not member.may_end and not self._closing


def python(*arguments: str) -> tuple[str, ...]:
    """A command of this very installation."""
    return (sys.executable, "-m", *arguments)


def child_environ(**ours: str) -> dict[str, str]:
    """The environment of a child: nothing of ours that could point at another mesh or model."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "LOG_FORMAT": "json", "LOG_LEVEL": "warning", "PYTHONUNBUFFERED": "1", **ours}
