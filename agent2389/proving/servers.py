"""A Postgres and a broker that can be killed and come back on the same port."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from agent2389.broker.local import local_broker
from agent2389.errors import ConfigurationError
from agent2389.ledger.embedded import embedded_postgres
from agent2389.telemetry import children

START_TRIES = 50
PAUSE_SECONDS = 0.1
_EVERYTHING, _READING = "topic readwrite #\n", "topic read #\n"


class Postgres:
    """The ledger's server; ``dsn`` is the superuser's and stays the same over restarts."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._stack = contextlib.AsyncExitStack()
        self._pid = 0
        self.port = children.free_port()
        self.dsn = ""

    async def start(self) -> None:
        """Run it; returns when it answers. Raises ``Unreachable``."""
        running = await self._stack.enter_async_context(embedded_postgres(self._data, port=self.port))
        self._pid, self.dsn = running.pid, running.dsn

    async def crash(self) -> None:
        """The immediate shutdown: no checkpoint, sessions cut; what was committed must be there again."""
        _send(self._pid, signal.SIGQUIT)
        await self._stack.aclose()

    async def stop(self) -> None:
        """An orderly end."""
        await self._stack.aclose()


class Broker:
    """The broker; it forgets everything when it is killed."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._stack = contextlib.AsyncExitStack()
        self._pid = 0
        self._rights = data.resolve() / "rights.acl"
        self.port = children.free_port()
        self.url = ""
        self.label = ""

    async def start(self) -> None:
        """Run it; returns when it answers."""
        self._rights.parent.mkdir(parents=True, exist_ok=True)
        self._rights.write_text(_EVERYTHING, encoding="utf-8")
        lines = (f"acl_file {self._rights}",)
        for attempt in range(START_TRIES):
            try:
                running = await self._stack.enter_async_context(
                    local_broker(self._data, port=self.port, mosquitto_lines=lines)
                )
            except ConfigurationError:
                # Connections of the killed one may hold the port for a moment.
                if attempt == START_TRIES - 1:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._pid, self.url, self.label = running.pid, running.url, running.label
            return

    async def crash(self) -> None:
        """Kill -9, and what it had on disk is gone too: persistence is off."""
        _send(self._pid, signal.SIGKILL)
        await self._stack.aclose()
        (self._data / "broker" / "mosquitto.db").unlink(missing_ok=True)

    def take_writes(self, *, on: bool) -> None:
        """Let everybody publish, or nobody (Mosquitto reads its rights again on SIGHUP)."""
        self._rights.write_text(_EVERYTHING if on else _READING, encoding="utf-8")
        _send(self._pid, signal.SIGHUP)

    async def stop(self) -> None:
        """An orderly end."""
        await self._stack.aclose()


def _send(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)
