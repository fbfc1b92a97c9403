"""The places of notifications in Postgres, on a connection of the ledger."""

from collections.abc import Sequence

import msgspec

from agent2389.ledger import queries
from agent2389.ledger.notices import SPAN, Batch, Place, Standing
from agent2389.ledger.postgres_session import Session

SQL = queries.load("notices.sql")


class PostgresNotices:
    """``ledger.notices.Notices`` on Postgres."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def take(
        self, name: str, holder: str, types: Sequence[str], *, limit: int, lease_seconds: float
    ) -> Batch | None:
        """Take the telling."""
        found = await self._session.value(SQL["take"], name, holder, lease_seconds, list(types), SPAN, limit)
        return None if found is None else msgspec.json.decode(found, type=Batch)

    async def keep(self, name: str, holder: str, place: Place, *, seconds: float, ends: bool) -> bool:
        """Write the place."""
        body = msgspec.json.encode(place).decode()
        return bool(await self._session.value(SQL["keep"], name, holder, body, seconds, ends))

    async def standing(self, name: str, types: Sequence[str]) -> Standing | None:
        """How it stands."""
        found = await self._session.value(SQL["standing"], name, list(types), SPAN)
        return None if found is None else msgspec.json.decode(found, type=Standing)
