"""The board of the in-memory ledger: retained topics as versioned rows."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from agent2389.ledger.memory_parts import as_text, show_on_board, zulu
from agent2389.ledger.memory_tables import BoardKey, BoardRow, Tables, TaskRecord
from agent2389.ledger.memory_upkeep import LEASE, take_chore
from agent2389.ledger.records import BoardMessage, ShownTopic
from agent2389.ledger.states import OWNED, TaskState

SETTLED = timedelta(milliseconds=250)
"""A state that ends sooner is never shown."""
REFRESH_SECONDS = 0.2
MOST_OPEN = 100
DERIVED = ("open", "claim")


def refresh(tables: Tables, tenant: str) -> None:
    """Bring ``open`` and ``claim`` in line with the tasks; at most five times a second."""
    if not take_chore(tables, tenant, "refresh_board", REFRESH_SECONDS):
        return
    wanted = {key: payload for key, payload in derived(tables).items() if key[0] == tenant}
    for key, row in tables.board.items():
        if key[0] == tenant and key[1] in DERIVED and row.payload is not None and key not in wanted:
            show_on_board(tables, *key, None)
    occupied = _occupied(tables, wanted)
    room = {pool: MOST_OPEN - count for pool, count in Counter(map(_pool, occupied)).items()}
    for key, payload in wanted.items():
        known = tables.board.get(key)
        if known is not None and known.payload is not None:
            continue
        if key[1] == "open" and key not in occupied:
            room[_pool(key)] = room.get(_pool(key), MOST_OPEN) - 1
            if room[_pool(key)] < 0:
                continue
        show_on_board(tables, *key, payload)


def _occupied(tables: Tables, wanted: Mapping[BoardKey, str]) -> set[BoardKey]:
    """``open`` topics that take a place on the broker: one still to be cleared there does too."""
    before = {
        key: row for key, row in tables.board.items() if key[1] == "open" and (row.on_wire or row.payload)
    }
    return {key for key, row in before.items() if row.on_wire or key in wanted}


def _pool(key: BoardKey) -> tuple[str, str]:
    return key[0], key[2][0]


def derived(tables: Tables) -> dict[BoardKey, str]:
    """What the tasks say should be shown: the first hundred due of every pool, and who owns what."""
    settled = tables.now() - SETTLED
    found: dict[BoardKey, str] = {}
    for task in _first_of_pools(tables):
        if max(task.queued_at, task.run_after) <= settled:
            ids = (task.pool, task.task_id, str(task.epoch))
            found[task.tenant, "open", ids] = _payload(task, task.queued_at, {"priority": task.priority})
    for task in tables.tasks.values():
        if task.state in OWNED and task.claimed_at is not None and task.claimed_at <= settled:
            owned = (task.task_id, str(task.epoch))
            found[task.tenant, "claim", owned] = _payload(task, task.claimed_at, {"agent_id": task.agent_id})
    return found


def _first_of_pools(tables: Tables) -> list[TaskRecord]:
    pools: dict[tuple[str, str], list[TaskRecord]] = {}
    for task in tables.tasks.values():
        if task.state is TaskState.QUEUED and task.run_after <= tables.now():
            pools.setdefault((task.tenant, task.pool), []).append(task)
    ordered = (sorted(waiting, key=lambda task: task.claim_order) for waiting in pools.values())
    return [task for waiting in ordered for task in waiting[:MOST_OPEN]]


def _payload(task: TaskRecord, since: datetime, more: dict[str, object]) -> str:
    return as_text(
        {
            "task_id": task.task_id,
            "job_id": task.job_id,
            "epoch": task.epoch,
            "capability": task.pool,
            **more,
            "since": zulu(since),
        }
    )


def lease(tables: Tables, tenant: str, limit: int) -> Sequence[BoardMessage]:
    """Take unsent rows for ten seconds; a clear of what never reached the broker is dropped instead."""
    now = tables.now()
    own = [(key, row) for key, row in tables.board.items() if key[0] == tenant]
    for key in [key for key, row in own if row.payload is None and not row.on_wire]:
        del tables.board[key]
    unsent = [
        (key, row)
        for key, row in own
        if key in tables.board
        if row.sent_version != row.version and (row.lease_until is None or row.lease_until <= now)
    ]
    unsent.sort(key=lambda item: item[1].changed_at)
    return tuple(_take(tables, key, row) for key, row in unsent[:limit])


def _take(tables: Tables, key: BoardKey, row: BoardRow) -> BoardMessage:
    row.lease, row.lease_until, row.on_wire = tables.token(), tables.now() + LEASE, True
    tenant, kind, ids = key
    return BoardMessage(
        tenant=tenant, kind=kind, key=ids, payload=row.payload, version=row.version, lease=row.lease
    )


def sent(tables: Tables, tenant: str, messages: Sequence[BoardMessage]) -> None:
    """Sent for good only where the lease still stands and nothing changed; else it is sent again.

    A topic that was cleared for good meanwhile is cleared once more: the late sender has set it again.
    """
    for message in messages:
        key = (message.tenant, message.kind, message.key)
        row = tables.board.get(key)
        if row is None:
            if message.payload is not None:
                tables.board[key] = BoardRow(
                    payload=None, version=message.version + 1, changed_at=tables.now(), on_wire=True
                )
            continue
        holds = row.lease == message.lease and row.version == message.version
        row.sent_version = row.version if holds else None
        row.lease = row.lease_until = None
    for key in [key for key, row in tables.board.items() if key[0] == tenant and row.payload is None]:
        if tables.board[key].sent_version == tables.board[key].version:
            del tables.board[key]


def reset(tables: Tables, tenant: str) -> None:
    """The broker forgot everything: send every topic again.

    Whoever is sending one now sends it to the broker that forgot, so its lease is over.
    """
    for row in (row for key, row in tables.board.items() if key[0] == tenant):
        row.lease = row.lease_until = None
        if row.payload is not None:
            row.sent_version, row.changed_at = None, tables.now()


def shown(
    tables: Tables, tenant: str, kinds: Sequence[str], after: tuple[str, ...], limit: int | None
) -> Sequence[ShownTopic]:
    """What a broker should hold of ``tenant``, by kind and key."""
    rows = sorted(
        (kind, key, row)
        for (whose, kind, key), row in tables.board.items()
        if whose == tenant and kind in kinds and key > after
    )
    return tuple(
        ShownTopic(
            kind=kind,
            key=key,
            version=row.version,
            sent=row.sent_version == row.version,
            digest=None if row.payload is None else hashlib.sha256(row.payload.encode()).hexdigest(),
        )
        for kind, key, row in rows[:limit]
    )


def lost(tables: Tables, tenant: str, topics: Sequence[ShownTopic]) -> int:
    """Send these again, unless they changed since they were looked at."""
    again = 0
    for topic in topics:
        row = tables.board.get((tenant, topic.kind, topic.key))
        if row is None or row.payload is None or not row.version == topic.version == row.sent_version:
            continue
        row.sent_version, row.changed_at = None, tables.now()
        again += 1
    return again
