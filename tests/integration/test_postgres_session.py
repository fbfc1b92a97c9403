"""One held connection to a real Postgres."""

import asyncio

import asyncpg
import pytest

from agent2389.errors import Unreachable
from agent2389.ledger.postgres_session import Session
from tests.support.postgres import Databases

TIMES = 100


async def test_a_statement_under_way_at_the_close_is_unreachable(databases: Databases) -> None:
    """The driver calls it an internal error when the answer meets the closing connection."""
    session = Session(databases.login_dsn(await databases.new()))
    assert await session.value("SELECT 1") == 1
    asked = asyncio.create_task(session.value("SELECT 1"))
    await asyncio.sleep(0)
    await session.close()
    with pytest.raises(Unreachable):
        await asked


async def test_a_connection_that_the_server_ends_is_opened_anew(databases: Databases) -> None:
    """The notice of the end may come between two statements: the driver calls that internal as well."""
    database = await databases.new()
    session = Session(databases.login_dsn(database))
    admin = await asyncpg.connect(databases.admin_dsn(database))
    seen = 0
    for _ in range(TIMES):
        pid = await session.value("SELECT pg_backend_pid()")
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        try:
            assert await session.value("SELECT 1") == 1
        except Unreachable:
            seen += 1
    assert seen > 0, "no statement met the end of its connection"
    assert await session.value("SELECT 1") == 1
    await session.close()
    await admin.close()
