"""Reading routing decisions page by page."""

from collections.abc import Sequence
from datetime import datetime

from agent2389.errors import InputRefused
from agent2389.ledger.port import Ledger
from agent2389.ledger.views import DecisionRow

MOST = 200


async def page_of_decisions(
    ledger: Ledger, age_seconds: float, *, limit: int, cursor: str | None
) -> tuple[Sequence[DecisionRow], str | None]:
    """Decisions of the last ``age_seconds``, newest first, and the cursor of the next page.

    Raises ``InputRefused`` for a cursor that is none.
    """
    rows = await ledger.decisions(age_seconds, limit=limit + 1, before=_read(cursor) if cursor else None)
    shown = rows[:limit]
    more = len(rows) > limit
    return shown, f"{shown[-1].at.isoformat()},{shown[-1].task_id}" if more else None


def _read(cursor: str) -> tuple[datetime, str]:
    moment, _, task_id = cursor.partition(",")
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not task_id:
        raise InputRefused("invalid", "cursor is not one of ours", hint="use next_cursor as it was given")
    return at, task_id
