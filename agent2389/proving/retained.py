"""What a broker holds of the board, and how that differs from the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from agent2389.broker.port import Connection
from agent2389.ledger.inspection import Problem, RetainedTopic
from agent2389.upkeep.dispatch import board_topic
from agent2389.upkeep.retained import heard
from agent2389.wire.names import new_uuid7
from agent2389.wire.topics import MeshTopics

PATIENCE_SECONDS = 150.0
"""How long board and broker may differ: a restart, a reset, a batch in between."""
ASKED_AT_ONCE = 200


class _Times(msgspec.Struct):
    since: datetime | None = None
    finished_at: datetime | None = None


async def read_retained(connection: Connection, tenant: str) -> dict[str, bytes]:
    """Every retained topic of the board that the broker delivers."""
    return await _heard(connection, tenant, MeshTopics(tenant).board_filters())


async def differences(
    connection: Connection, tenant: str, wanted: Sequence[RetainedTopic], held: Mapping[str, bytes]
) -> list[Problem]:
    """I13 between ledger and broker.

    What seems missing is asked for once more by its own topic: a broker with a short queue drops
    part of a large answer without telling (measured: 1,020 of 5,000).
    """
    expected = {board_topic(tenant, row.kind, row.key): row for row in wanted}
    held = dict(held)
    odd = [topic for topic, row in expected.items() if held.get(topic) != row.payload.encode()]
    stray = [topic for topic in held if topic not in expected]
    for start in range(0, len(odd) + len(stray), ASKED_AT_ONCE):
        asked = [*odd, *stray][start : start + ASKED_AT_ONCE]
        heard = await _heard(connection, tenant, asked)
        held |= {topic: heard.get(topic, b"") for topic in asked}
    found = []
    for topic, row in expected.items():
        shown = held.get(topic, b"")
        if shown != row.payload.encode():
            what = "shows something else than the ledger" if shown else "is missing on the broker"
            found.append(Problem("I13", topic, what, row.age, PATIENCE_SECONDS))
    for topic in stray:
        if payload := held.get(topic):
            message = "is retained on the broker and not in the ledger"
            found.append(Problem("I13", topic, message, _age(payload), PATIENCE_SECONDS))
    return found


def strays(problems: Iterable[Problem]) -> list[str]:
    """Topics that a repair clears: epochs and job ids in them never come back."""
    return [
        item.subject for item in problems if item.message == "is retained on the broker and not in the ledger"
    ]


async def _heard(connection: Connection, tenant: str, filters: Sequence[str]) -> dict[str, bytes]:
    return await heard(connection, filters, MeshTopics(tenant).probe("fsck", new_uuid7()))


def _age(payload: bytes) -> float | None:
    try:
        times = msgspec.json.decode(payload, type=_Times)
    except msgspec.MsgspecError:
        return None
    moment = times.finished_at or times.since
    return None if moment is None else (datetime.now(UTC) - moment).total_seconds()
