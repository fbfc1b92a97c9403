"""One held connection to a real Postgres."""

import asyncio

import pytest

from agent2389.errors import Unreachable
from agent2389.ledger.postgres_session import Session
from tests.support.postgres import Databases


async def test_a_statement_under_way_at_the_close_is_unreachable(databases: Databases) -> None:
    """The driver calls it an internal error when the answer meets the closing connection."""
    session = Session(databases.login_dsn(await databases.new()))
    assert await session.value("SELECT 1") == 1
    asked = asyncio.create_task(session.value("SELECT 1"))
    await asyncio.sleep(0)
    await session.close()
    with pytest.raises(Unreachable):
        await asked
