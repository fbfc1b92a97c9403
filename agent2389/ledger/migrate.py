"""Bringing a database to the schema this version needs."""

import asyncio
import hashlib
import re
from importlib.resources import files

import asyncpg
import msgspec

from agent2389.errors import ConfigurationError, NotAllowed, Unreachable
from agent2389.ledger import queries
from agent2389.ledger.states import TRANSITIONS

LEDGER_VERSION = 1
ROLES = ("agent2389_owner", "agent2389_upkeep", "agent2389_agent", "agent2389_operator")
GROUPS = ("agent2389_agent", "agent2389_operator")
_LOCK_ATTEMPTS = 10
_SQL = queries.load("admin.sql")


class Migration(msgspec.Struct, frozen=True):
    """One numbered file."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the file's text: an applied file never changes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> tuple[Migration, ...]:
    """The migrations of this version, in order."""
    folder = files("agent2389.ledger") / "sql" / "migrations"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return tuple(
        Migration(int(name[:4]), name, (folder / name).read_text(encoding="utf-8")) for name in names
    )


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing, all of it or nothing, and return the names applied.

    The login must be a superuser or own the database and have CREATEROLE.
    Raises ``Unreachable``, ``NotAllowed``, ``ConfigurationError`` (an applied file was changed).
    """
    connection = await _connect(dsn)
    try:
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                return await _apply(connection)
            except asyncpg.LockNotAvailableError:
                # Somebody works on the tables: stepping back beats queueing in front of them.
                await asyncio.sleep(0.2 * 2**attempt)
        raise Unreachable("ledger", "the tables stayed locked", hint="run agent2389 db migrate again")
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotAllowed(
            f"the login may not migrate: {error}",
            hint="use a login that owns the database and has CREATEROLE",
        ) from None
    finally:
        await connection.close()


async def status(dsn: str) -> tuple[list[str], list[str]]:
    """Names of applied and of missing migrations."""
    connection = await _connect(dsn)
    try:
        applied = (
            [row["name"] for row in await connection.fetch(_SQL["applied"])]
            if await connection.fetchval(_SQL["exists"])
            else []
        )
    except asyncpg.InsufficientPrivilegeError:
        raise NotAllowed(
            "the login may not read the list of migrations", hint="use the login that migrates"
        ) from None
    finally:
        await connection.close()
    return applied, [item.name for item in shipped() if item.name not in applied]


async def provision_login(
    dsn: str,
    login: str,
    password: str,
    *,
    tenant: str = "default",
    any_tenant: bool = False,
    groups: tuple[str, ...] = GROUPS,
) -> None:
    """Create or refresh ``login``, put it into ``groups`` and into ``tenant``."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", login) or set(groups) - set(GROUPS):
        raise ConfigurationError(f"{login!r} is no usable login name or a group is unknown")
    connection = await _connect(dsn)
    quoted = "'" + password.replace("'", "''") + "'"
    try:
        async with connection.transaction():
            exists = await connection.fetchval(_SQL["login_exists"], login)
            statement = _SQL["change_login" if exists else "create_login"]
            await connection.execute(statement.format(login=login, password=quoted))
            for group in groups:
                await connection.execute(_SQL["grant_group"].format(group=group, login=login))
            await connection.execute(_SQL["become_owner"])
            await connection.execute(_SQL["provision"], login, tenant, any_tenant)
    finally:
        await connection.close()


async def provision_self(dsn: str, *, tenant: str = "default") -> None:
    """Put the login of ``dsn`` itself into both groups and into ``tenant`` (a mesh on a given database)."""
    connection = await _connect(dsn)
    try:
        async with connection.transaction():
            login = await connection.fetchval(_SQL["session_user"])
            for group in GROUPS:
                await connection.execute(_SQL["grant_self"].format(group=group))
            await connection.execute(_SQL["become_owner"])
            await connection.execute(_SQL["provision"], login, tenant, False)
    finally:
        await connection.close()


async def _connect(dsn: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, timeout=10, server_settings={"lock_timeout": "2000"})
    except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
        raise Unreachable(
            "ledger", f"the database does not answer: {error}", hint="check DATABASE_URL and the server"
        ) from None
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise NotAllowed(f"the database refuses the login: {error}", hint="check DATABASE_URL") from None
    except ValueError as error:
        raise ConfigurationError(f"DATABASE_URL is not a Postgres DSN: {error}") from None


async def _apply(connection: asyncpg.Connection) -> list[str]:
    done: list[str] = []
    async with connection.transaction():
        await connection.execute(_SQL["lock"])
        for role in ROLES:
            await connection.execute(_SQL["role"].format(role=role))
        if not await connection.fetchval(_SQL["exists"]):
            await connection.execute(_SQL["foundation"])
        await connection.execute(_SQL["become_owner"])
        applied = {row["number"]: row["sha256"] for row in await connection.fetch(_SQL["applied"])}
        for migration in shipped():
            if migration.number in applied:
                _check(migration, applied[migration.number])
                continue
            await connection.execute(migration.text)
            await connection.execute(_SQL["record"], migration.number, migration.name, migration.sha256)
            done.append(migration.name)
        if done:
            await connection.execute(_SQL["clear_transitions"])
            pairs = sorted((before.value, after.value) for before, after in TRANSITIONS)
            await connection.executemany(_SQL["add_transition"], pairs)
    return done


def _check(migration: Migration, applied: str) -> None:
    if migration.sha256 != applied:
        raise ConfigurationError(
            f"migration {migration.name} was changed after it was applied",
            hint="restore the file; a change needs a new migration",
        )
