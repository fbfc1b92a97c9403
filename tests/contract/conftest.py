"""Every ledger under one suite."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from agent2389.upkeep.chores import INTERVALS
from tests.support.postgres import Databases
from tests.support.stepped import SteppedLedger, SteppedMemory, SteppedPostgres
from tests.support.twins import PostgresSide, Twins

SHORT_LEASE = 0.4

OpenLedger = Callable[[float], Awaitable[SteppedLedger]]


@pytest.fixture(params=["memory", "postgres"])
def open_ledger(request: pytest.FixtureRequest) -> OpenLedger:
    """Opens an empty ledger with leases of so many seconds; starts Postgres only where it is asked for."""
    if request.param == "memory":

        async def memory(lease_seconds: float) -> SteppedLedger:
            return SteppedMemory(lease_seconds=lease_seconds)

        return memory
    databases: Databases = request.getfixturevalue("databases")

    async def postgres(lease_seconds: float) -> SteppedLedger:
        dsn = databases.login_dsn(await databases.new())
        return await SteppedPostgres.open(dsn, lease_seconds=lease_seconds)

    return postgres


@pytest.fixture
async def ledger(open_ledger: OpenLedger) -> AsyncIterator[SteppedLedger]:
    """An empty ledger."""
    opened = await open_ledger(30.0)
    opened.expect_chores(INTERVALS)
    yield opened
    await opened.close()


@pytest.fixture
async def hasty(open_ledger: OpenLedger) -> AsyncIterator[SteppedLedger]:
    """An empty ledger whose leases end after ``SHORT_LEASE`` seconds without a beat."""
    opened = await open_ledger(SHORT_LEASE)
    yield opened
    await opened.close()


@pytest.fixture
def both(databases: Databases) -> Iterator[Twins]:
    """Memory and Postgres side by side: every answer and every table is compared."""
    with asyncio.Runner() as runner:
        side = runner.run(PostgresSide.steered(databases))
        yield Twins(side)
        runner.run(side.close())
