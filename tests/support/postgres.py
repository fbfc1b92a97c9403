"""Fresh, migrated databases on the session's Postgres server."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from agent2389.ledger.migrate import migrate, provision_login
from agent2389.ledger.postgres import PostgresLedger
from agent2389.upkeep.chores import INTERVALS

TEMPLATE = "ledger_template"
LOGIN, PASSWORD = "mesh_test", "mesh-test"


class Databases:
    """Makes a database from the template for each test that asks."""

    def __init__(self, superuser_dsn: str) -> None:
        self.superuser_dsn = superuser_dsn

    @classmethod
    async def on(cls, dsn: str) -> "Databases":
        self = cls(dsn)
        await self._execute(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.admin_dsn(TEMPLATE))
        await provision_login(self.admin_dsn(TEMPLATE), LOGIN, PASSWORD)
        return self

    def admin_dsn(self, database: str) -> str:
        return f"{self.superuser_dsn.rpartition('/')[0]}/{database}"

    def login_dsn(self, database: str, login: str = LOGIN, password: str = PASSWORD) -> str:
        address = self.superuser_dsn.rpartition("@")[2].partition("/")[0]
        return f"postgresql://{login}:{password}@{address}/{database}"

    async def new(self) -> str:
        """The name of a fresh database."""
        name = f"test_{secrets.token_hex(6)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    @asynccontextmanager
    async def ledger(self, *, lease_seconds: float = 30.0) -> AsyncIterator[PostgresLedger]:
        """A ledger on a database of its own."""
        ledger = await PostgresLedger.open(self.login_dsn(await self.new()), lease_seconds=lease_seconds)
        ledger.expect_chores(INTERVALS)
        try:
            yield ledger
        finally:
            await ledger.close()

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
