"""Whether everything holds in a live ledger and on its broker."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from agent2389.broker.port import Connection, Message
from agent2389.ledger.inspection import Problem, RetainedTopic
from agent2389.proving.retained import differences, read_retained, strays

LOOK_AGAIN_SECONDS = 1.0


class Records(Protocol):
    """What fsck asks of the ledger."""

    @property
    def tenant(self) -> str:
        """Whose rows are looked at."""
        ...

    async def problems(self) -> Sequence[Problem]:
        """Everything inside the ledger that breaks an invariant or may still settle."""
        ...

    async def retained(self) -> Sequence[RetainedTopic]:
        """What the broker must hold."""
        ...

    async def repair(self) -> dict[str, int]:
        """Set right what needs no guess."""
        ...


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What fsck found. Only ``violations`` are wrong; ``settling`` is too early to judge.

    ``not_checked`` maps an invariant to the reason.
    """

    violations: tuple[Problem, ...]
    settling: tuple[Problem, ...]
    not_checked: dict[str, str]
    repaired: dict[str, int]
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong."""
        return not self.violations


async def inspect(
    records: Records, connection: Connection | None, *, quiet_wait: float = 0.0, repair: bool = False
) -> Report:
    """Look once, or until nothing settles any more, at most ``quiet_wait`` seconds.

    Without ``connection`` the broker is not compared. With ``repair`` what can be set right without
    a guess is set right first. Raises ``Unreachable``.
    """
    started = time.monotonic()
    repaired = await _repair(records, connection) if repair else {}
    while True:
        found = await _look(records, connection)
        settling = tuple(item for item in found if item.is_settling)
        if not settling or time.monotonic() - started >= quiet_wait:
            break
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    not_checked: dict[str, str] = {}
    if connection is None:
        not_checked["I13"] = "the ledger's board is checked, but no broker is named to compare it with"
    return Report(
        violations=tuple(item for item in found if not item.is_settling),
        settling=settling,
        not_checked=not_checked,
        repaired=repaired,
        seconds=round(time.monotonic() - started, 3),
    )


async def _look(records: Records, connection: Connection | None) -> list[Problem]:
    found = list(await records.problems())
    if connection is not None:
        held = await read_retained(connection, records.tenant)
        found += await differences(connection, records.tenant, await records.retained(), held)
    return found


async def _repair(records: Records, connection: Connection | None) -> dict[str, int]:
    done = dict(await records.repair())
    if connection is not None:
        held = await read_retained(connection, records.tenant)
        found = await differences(connection, records.tenant, await records.retained(), held)
        cleared = strays(item for item in found if not item.is_settling)
        for topic in cleared:
            await connection.publish(Message(topic, b"", retain=True))
        done["stray_topics_cleared"] = len(cleared)
    return done
