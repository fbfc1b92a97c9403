"""The first process of a sandbox, with which all its others end."""

import asyncio
import contextlib
import json
import os
import signal
from types import TracebackType
from typing import Self

GONE_SECONDS = 5.0
"""The kernel needs milliseconds; a process in an uninterruptible wait may need longer than we have."""


class FirstProcess:
    """Learns the first process through ``told_to`` (bubblewrap's ``--info-fd``), kills it, waits for its end.

    bubblewrap itself may be gone while the kernel still clears the sandbox away. The kernel reports the
    end of a namespace's first process only after that of all others, so this is what to wait for.
    """

    def __init__(self) -> None:
        self._told, self.told_to = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()
        for descriptor in (self._told, self._descriptor):
            if descriptor is not None:
                os.close(descriptor)

    def started(self) -> None:
        """Bubblewrap runs: only its own end of the pipe has to stay open."""
        if self.told_to >= 0:
            os.close(self.told_to)
            self.told_to = -1

    def kill(self) -> bool:
        """End every process of the sandbox; ``False`` when none is known (yet)."""
        found = self._find()
        if found is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(found, signal.SIGKILL)
        return found is not None

    async def gone(self) -> None:
        """Wait until no process of the sandbox is left, for ``GONE_SECONDS`` at most."""
        found = self._find()
        if found is None:
            return
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(found, ended.set)
        try:
            async with asyncio.timeout(GONE_SECONDS):
                await ended.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(found)

    def _find(self) -> int | None:
        if self._descriptor is None:
            try:
                told = json.loads(os.read(self._told, 4096))
                self._descriptor = os.pidfd_open(told["child-pid"])
            except (BlockingIOError, ProcessLookupError, ValueError, KeyError):
                return None  # not told yet, gone already, or bubblewrap could not begin
        return self._descriptor
