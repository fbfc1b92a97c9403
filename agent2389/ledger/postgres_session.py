"""One held Postgres connection that comes back by itself and speaks the house's errors."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from agent2389.errors import (
    Agent2389Error,
    ConfigurationError,
    Conflict,
    InputRefused,
    NotAllowed,
    NotFound,
    Unreachable,
)

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 5.0
ANSWER_SECONDS = 5.0
"""How much later than the server the client gives a statement up."""
RETRY_SECONDS = 0.5
"""After a failed connect every caller is refused at once for this long."""
REFUSED_SECONDS = 15.0
"""A refused write is news for longer than a beat, so that health sees it as long as beats are refused."""
_SETTINGS = {
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "application_name": "agent2389",
}
_CONNECT_FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    # A result that comes while the connection is being closed.
    asyncpg.InternalClientError,
)
_LACKS: dict[type[asyncpg.PostgresError], tuple[str, str]] = {
    asyncpg.DiskFullError: (
        "the disk of the database is full",
        "free space on it; what waits goes on by itself",
    ),
    asyncpg.ReadOnlySQLTransactionError: (
        "the database takes no writes",
        "point DATABASE_URL at the primary, or end its read-only mode",
    ),
    asyncpg.TooManyConnectionsError: (
        "the database has no connection left",
        "raise max_connections, or connect through a pooler (DATABASE_URL with ?pgbouncer=true)",
    ),
}
"""What operators can provide: message and next step."""
_WRITES_REFUSED = (asyncpg.DiskFullError, asyncpg.ReadOnlySQLTransactionError)
_TRANSLATED = (*_CONNECT_FAILURES, asyncpg.PostgresError, ValueError)


class Session:
    """Statements run one after the other. Lost connections are opened anew by the next statement.

    Writes are idempotent by design (fences, ids), so a statement whose connection broke is
    reported as ``Unreachable`` and may simply be asked again.
    """

    def __init__(self, dsn: str, *, role: str | None = None, patience: float = STATEMENT_SECONDS) -> None:
        """``patience`` is how many seconds one statement may take."""
        self._dsn = dsn
        self._patience = patience
        self._role = role
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._refuse_until = 0.0
        self._last_failure = ""
        self._refusal: Unreachable | None = None
        self._refused_at = 0.0

    @property
    def refusal(self) -> Unreachable | None:
        """Why the server, which answers, took no writes within the last ``REFUSED_SECONDS``."""
        return self._refusal if time.monotonic() - self._refused_at < REFUSED_SECONDS else None

    async def value(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        return await self._run(lambda connection: connection.fetchval(statement, *arguments))

    async def values(self, statement: str, *arguments: Any) -> list[Any]:
        """The first column of every row."""
        rows = await self._run(lambda connection: connection.fetch(statement, *arguments))
        return [row[0] for row in rows]

    async def row(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row."""
        found: asyncpg.Record | None = await self._run(
            lambda connection: connection.fetchrow(statement, *arguments)
        )
        return found

    async def close(self) -> None:
        """End the connection; a server that hangs does not hold us."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=2)
            except (*_CONNECT_FAILURES, asyncpg.PostgresError):
                connection.terminate()

    async def _run(self, ask: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        async with self._turn:
            connection = await self._ready()
            try:
                return await ask(connection)
            except asyncio.CancelledError:
                # The server may still be working on it; a fresh connection is cheaper than waiting.
                connection.terminate()
                raise
            except _TRANSLATED as error:
                if isinstance(error, _CONNECT_FAILURES) or connection.is_closed():
                    connection.terminate()
                failure = translated(error)
                if isinstance(error, _WRITES_REFUSED) and isinstance(failure, Unreachable):
                    self._refusal, self._refused_at = failure, time.monotonic()
                raise failure from None

    async def _ready(self) -> asyncpg.Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if time.monotonic() < self._refuse_until:
            raise Unreachable("ledger", self._last_failure)
        try:
            self._connection = await self._connect()
        except _TRANSLATED as error:
            failure = translated(error)
            if isinstance(failure, Unreachable):
                self._last_failure = str(failure)
                self._refuse_until = time.monotonic() + RETRY_SECONDS
            raise failure from None
        return self._connection

    @property
    def _settings(self) -> dict[str, str]:
        return {**_SETTINGS, "statement_timeout": str(int(self._patience * 1000))}

    async def _connect(self) -> asyncpg.Connection:
        dsn, pooled = split_dsn(self._dsn)
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=self._patience + ANSWER_SECONDS,
            # A transaction pooler hands every transaction to another server process.
            statement_cache_size=0 if pooled else 200,
            server_settings={} if pooled else self._settings,
        )
        if self._role is not None and not pooled:
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError):
                # A login that is not in the group has its rights some other way, or learns it soon.
                await connection.execute(f"SET ROLE {self._role}")
        return connection


def split_dsn(dsn: str) -> tuple[str, bool]:
    """The DSN as asyncpg takes it, and whether ``pgbouncer=true`` marked it as pooled."""
    head, mark, query = dsn.partition("?")
    if not mark:
        return dsn, False
    pooled = parse_qs(urlsplit(dsn).query).get("pgbouncer", ["false"])[-1] == "true"
    kept = "&".join(part for part in query.split("&") if not part.startswith("pgbouncer="))
    return (f"{head}?{kept}" if kept else head), pooled


def check_version(found: int, needed: int, tenant: str | None) -> None:
    """Raise ``ConfigurationError`` for a schema too old, ``NotAllowed`` for a login without tenant."""
    if found < needed:
        raise ConfigurationError(
            f"the ledger's schema is version {found}, this program needs {needed}",
            hint="bring it up to date: agent2389 db migrate",
        )
    if tenant is None:
        raise NotAllowed(
            "the database login belongs to no tenant",
            hint="make a login for agents: agent2389 db login NAME",
        )


def translated(error: Exception) -> Agent2389Error:
    """The house's error for a database's; never a text with SQL in it."""
    match error:
        case Agent2389Error():
            return error
        case (
            asyncpg.UndefinedFunctionError()
            | asyncpg.InvalidSchemaNameError()
            | asyncpg.UndefinedTableError()
        ):
            return ConfigurationError(
                "the database holds no ledger, or one too old", hint="run agent2389 db migrate"
            )
        case asyncpg.InsufficientPrivilegeError():
            return NotAllowed(
                "the database login lacks the right",
                hint="use a login of the group agent2389_agent or _operator",
            )
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            return NotAllowed("the database refuses the login", hint="check DATABASE_URL")
        case asyncpg.PostgresError() if error.sqlstate and error.sqlstate.startswith("A2"):
            return _ours(error)
        case asyncpg.QueryCanceledError() | asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            return Unreachable("ledger", "the ledger is too busy", hint="the same call may work in a moment")
        case asyncpg.DataError() | asyncpg.IntegrityConstraintViolationError():
            return InputRefused("invalid", "the ledger refuses a value that no rule of it allows")
        case asyncpg.PostgresError() if type(error) in _LACKS:
            message, hint = _LACKS[type(error)]
            return Unreachable("ledger", message, hint=hint)
        case asyncpg.PostgresError():
            return Unreachable("ledger", f"the database failed ({error.sqlstate})")
        case ValueError():
            return ConfigurationError(f"DATABASE_URL is not a Postgres DSN: {error}")
        case _:
            return Unreachable(
                "ledger",
                f"the database does not answer ({type(error).__name__})",
                hint="check DATABASE_URL and the server",
            )


def _ours(error: asyncpg.PostgresError) -> Agent2389Error:
    message = str(error.args[0])
    match error.sqlstate:
        case "A2001":
            return InputRefused(getattr(error, "detail", None) or "invalid", message)
        case "A2404":
            return NotFound(message)
        case "A2409":
            return Conflict(message, hint=getattr(error, "hint", None))
        case _:
            return InputRefused("invalid", message)
