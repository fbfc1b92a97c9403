"""What a process says of its own health: named checks, cached, and a verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from agent2389 import __version__
from agent2389.errors import Agent2389Error
from agent2389.wire.status import timestamp

CACHE_SECONDS = 2.0
CHECK_SECONDS = 2.0

Probe = Callable[[], Awaitable[str]]
"""Returns a message for people; raises when the check fails. ``Degraded`` is a warning."""


class Degraded(Agent2389Error):
    """A check that fails without stopping the work."""


class Check(msgspec.Struct, frozen=True):
    """The last outcome of one check."""

    status: str
    message: str
    required: bool
    latency_ms: float
    last_check: str


class Health:
    """Collects the checks of one process. ``state`` is its lifecycle word."""

    def __init__(self, *, agent_id: str | None = None, state: Callable[[], str] = lambda: "running") -> None:
        self.agent_id = agent_id
        self._state = state
        self._probes: dict[str, tuple[Probe, bool]] = {}
        self._last: dict[str, tuple[float, Check]] = {}
        self._started = time.monotonic()
        self.started_up = False

    def add(self, name: str, probe: Probe, *, required: bool = True) -> None:
        """Ask ``probe`` under ``name``; a failing required check makes the process not ready."""
        self._probes[name] = (probe, required)

    def forget(self) -> None:
        """Ask every check anew: something happened that a remembered answer does not know of."""
        self._last.clear()

    async def checks(self) -> dict[str, Check]:
        """Every check, at most two seconds old."""
        names = list(self._probes)
        return dict(zip(names, await asyncio.gather(*map(self._check, names)), strict=True))

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process is not unhealthy, and the body of /health."""
        checks = await self.checks()
        failed = [name for name, check in checks.items() if check.status == "unhealthy"]
        weak = any(check.status != "healthy" for check in checks.values())
        status = "unhealthy" if failed else "degraded" if weak else "healthy"
        body = {
            "status": status,
            **({"agent_id": self.agent_id} if self.agent_id else {}),
            "version": __version__,
            "state": self._state(),
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "timestamp": int(time.time()),
            "checks": msgspec.to_builtins(checks),
        }
        return not failed, body

    async def ready(self) -> tuple[bool, list[str]]:
        """Whether the process can take new work, and why not."""
        reasons = [
            f"{name}: {check.message}"
            for name, check in (await self.checks()).items()
            if check.status == "unhealthy"
        ]
        if not self.started_up:
            reasons.append("starting")
        if self._state() in ("paused", "draining", "stopped"):
            reasons.append(self._state())
        return not reasons, reasons

    async def _check(self, name: str) -> Check:
        at, known = self._last.get(name, (0.0, None))
        if known is not None and time.monotonic() - at < CACHE_SECONDS:
            return known
        probe, required = self._probes[name]
        started = time.monotonic()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                message, status = await probe(), "healthy"
        except Degraded as weak:
            message, status = str(weak), "degraded"
        except Agent2389Error as error:
            message, status = str(error), "unhealthy" if required else "degraded"
        except TimeoutError:
            message, status = "no answer within 2 s", "unhealthy" if required else "degraded"
        check = Check(
            status,
            message,
            required,
            round((time.monotonic() - started) * 1000, 2),
            timestamp(datetime.now(UTC)),
        )
        self._last[name] = (time.monotonic(), check)
        return check
