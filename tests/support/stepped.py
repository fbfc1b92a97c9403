"""Ledgers whose time a test moves on: stepped in memory, really waited for on Postgres."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.port import Ledger
from agent2389.ledger.postgres import PostgresLedger

STEP_SECONDS = 0.05


class SteppedLedger(Ledger, Protocol):
    """A ledger and its clock."""

    def time(self) -> datetime:
        """Now, on the ledger's clock."""
        ...

    async def advance(self, seconds: float) -> None:
        """Return when the ledger's clock is later by ``seconds``."""
        ...

    async def until(self, condition: Callable[[], Any | Awaitable[Any]], seconds: float = 15.0) -> Any:
        """The condition's value once it is true; fails after ``seconds`` of the ledger's time."""
        ...


class SteppedMemory(MemoryLedger):
    """The memory ledger on a clock that stands still until it is moved. Checks itself at every move."""

    def __init__(self, *, lease_seconds: float = 30.0, seed: int = 2389) -> None:
        self._moment = datetime(2026, 1, 1, tzinfo=UTC)
        super().__init__(now=self.time, seed=seed, lease_seconds=lease_seconds)

    def time(self) -> datetime:
        return self._moment

    async def advance(self, seconds: float) -> None:
        self.check_invariants()
        self._moment += timedelta(seconds=seconds)

    async def until(self, condition: Callable[[], Any | Awaitable[Any]], seconds: float = 15.0) -> Any:
        return await _until(self, condition, seconds)

    async def close(self) -> None:
        self.check_invariants()


class SteppedPostgres(PostgresLedger):
    """The real ledger; its clock is that of this machine."""

    def time(self) -> datetime:
        return datetime.now(UTC)

    async def advance(self, seconds: float) -> None:
        end = self.time() + timedelta(seconds=seconds)
        while self.time() < end:
            await asyncio.sleep(STEP_SECONDS / 5)

    async def until(self, condition: Callable[[], Any | Awaitable[Any]], seconds: float = 15.0) -> Any:
        return await _until(self, condition, seconds)


async def _until(ledger: SteppedLedger, condition: Callable[[], Any | Awaitable[Any]], seconds: float) -> Any:
    end = ledger.time() + timedelta(seconds=seconds)
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert ledger.time() < end, "the condition did not come true in time"
        await ledger.advance(STEP_SECONDS)
