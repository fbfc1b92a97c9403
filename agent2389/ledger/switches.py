"""Switching a whole Postgres to reading only and back, for fault runs on a server of their own."""

from agent2389.ledger import queries
from agent2389.ledger.postgres_session import Session

SQL = queries.load("fsck.sql")


async def set_read_only(superuser_dsn: str, *, on: bool) -> None:
    """Make every new transaction of the server refuse writes, or accept them again."""
    session = Session(superuser_dsn)
    try:
        await session.value(SQL["read_only_on" if on else "read_only_off"])
        await session.value(SQL["reload"])
    finally:
        await session.close()
