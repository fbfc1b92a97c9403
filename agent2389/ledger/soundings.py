"""What can be found out about a database before anybody works on it."""

import asyncio
import contextlib
import time

import asyncpg
import msgspec

from agent2389.ledger import queries
from agent2389.ledger.postgres_session import Session, split_dsn, translated

CHANNEL = "agent2389_doctor"
HEAR_SECONDS = 2.0
CONNECT_SECONDS = 5.0
SQL = queries.load("fsck.sql")


class _Answer(msgspec.Struct, frozen=True):
    now: float
    mesh_id: str
    tenant: str | None
    twins: tuple[str, ...]


class Soundings(msgspec.Struct, frozen=True, kw_only=True):
    """``skew`` is how far this machine's clock is ahead of the ledger's, in seconds, and ``round_trip``
    how uncertain that is; ``twins`` are singleton agents of which more than one process lives.
    """

    mesh_id: str
    tenant: str
    skew: float
    round_trip: float
    twins: tuple[str, ...]


async def sound(dsn: str) -> Soundings:
    """Ask the ledger. Raises ``Unreachable``, ``NotAllowed``, ``ConfigurationError``."""
    session = Session(dsn, role="agent2389_operator")
    try:
        await session.value(SQL["identity"])  # connecting is not part of the round trip
        asked = time.time()
        text = await session.value(SQL["soundings"])
        answered = time.time()
    finally:
        await session.close()
    answer = msgspec.json.decode(text, type=_Answer)
    return Soundings(
        mesh_id=answer.mesh_id,
        tenant=answer.tenant or "",
        skew=(asked + answered) / 2 - answer.now,
        round_trip=answered - asked,
        twins=answer.twins,
    )


async def hears_notifications(dsn: str) -> bool:
    """Whether LISTEN works on this DSN; behind a transaction pooler it is accepted and nothing comes.

    Raises ``Unreachable``, ``NotAllowed``, ``ConfigurationError``.
    """
    address, _ = split_dsn(dsn)
    heard = asyncio.Event()
    try:
        async with contextlib.AsyncExitStack() as stack:
            listener, speaker = [
                await asyncpg.connect(address, timeout=CONNECT_SECONDS, statement_cache_size=0)
                for _ in range(2)
            ]
            for connection in (listener, speaker):
                stack.push_async_callback(connection.close, timeout=CONNECT_SECONDS)
            await listener.add_listener(CHANNEL, lambda *_: heard.set())
            # A pooler gives the session to somebody else in between.
            await speaker.fetchval(SQL["ping"])
            await speaker.execute(SQL["notify"])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEAR_SECONDS):
                    await heard.wait()
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await listener.remove_listener(CHANNEL, lambda *_: None)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise translated(error) from None
    return heard.is_set()
