"""The places of notifications in memory: what Postgres' functions do, readable."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from agent2389.errors import InputRefused
from agent2389.ledger.memory_chain import sealed_changes
from agent2389.ledger.memory_tables import Tables
from agent2389.ledger.notices import SPAN, Batch, Place, Standing
from agent2389.ledger.records import Change

LONGEST_NAME = 64
LONGEST_REASON = 500


class NoticesRow(msgspec.Struct, kw_only=True):
    """One telling; from ``free_at`` on anybody may take it."""

    place: Place
    free_at: datetime
    holder: str | None = None


class MemoryNotices:
    """``ledger.notices.Notices`` for one tenant of some tables."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._tables = tables
        self._tenant = tenant

    async def take(
        self, name: str, holder: str, types: Sequence[str], *, limit: int, lease_seconds: float
    ) -> Batch | None:
        """Take the telling."""
        if not 0 < len(name) <= LONGEST_NAME:
            raise InputRefused("invalid", f"a name has 1 to {LONGEST_NAME} characters")
        now, sealed = self._tables.now(), self._tables.sealed_number
        fresh = NoticesRow(place=Place(number=sealed), free_at=now)
        row = self._tables.notices.setdefault((self._tenant, name), fresh)
        if row.free_at > now:
            return None
        row.holder, row.free_at = holder, now + timedelta(seconds=lease_seconds)
        events = self._to_tell(types, row.place.number)[:limit]
        upto = max(row.place.number, min(sealed, row.place.number + SPAN))
        return Batch(place=row.place, upto=events[-1][0] if len(events) == limit else upto, events=events)

    async def keep(self, name: str, holder: str, place: Place, *, seconds: float, ends: bool) -> bool:
        """Write the place."""
        row = self._tables.notices.get((self._tenant, name))
        if row is None or row.holder != holder:
            return False
        reason = place.reason[:LONGEST_REASON] if place.reason is not None else None
        number = max(row.place.number, place.number)
        row.place = msgspec.structs.replace(place, number=number, reason=reason)
        row.holder = None if ends else holder
        row.free_at = self._tables.now() + timedelta(seconds=seconds)
        return True

    async def standing(self, name: str, types: Sequence[str]) -> Standing | None:
        """How it stands."""
        row = self._tables.notices.get((self._tenant, name))
        if row is None:
            return None
        waiting = len(self._to_tell(types, row.place.number))
        more = self._tables.sealed_number > row.place.number + SPAN
        return Standing(place=row.place, waiting=waiting, more=more)

    def _to_tell(self, types: Sequence[str], after: int) -> tuple[tuple[int, Change], ...]:
        """Events of the next numbers that somebody wants to hear of."""
        return tuple(
            (number, change)
            for number, change in sealed_changes(self._tables, self._tenant, after, SPAN)
            if number <= after + SPAN
            and change.type in types
            and not (change.type == "task.waiting" and change.data.get("for") == "timer")
        )
