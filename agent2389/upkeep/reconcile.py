"""Board against broker, both ways: what the broker lost is sent again, what nobody knows is cleared."""

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence

import msgspec
import structlog

from agent2389.broker.port import Connection, Message
from agent2389.errors import Unreachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import ShownTopic
from agent2389.ledger.states import AgentState
from agent2389.telemetry import surroundings
from agent2389.upkeep.dispatch import Dispatcher, board_topic
from agent2389.upkeep.retained import heard
from agent2389.wire.names import new_uuid7
from agent2389.wire.topics import MeshTopics

WORK = ("open", "claim", "approval")
"""Kinds of which there are never many: every run compares them wholly."""
RESULTS = ("result",)
ALL = (*WORK, *RESULTS)
SLICE = 200
"""Results that one run on the interval compares, in turn."""
ASKED_AT_ONCE = 200
FEW = 500
"""A broker with a short queue drops part of a larger answer without telling (measured: 1,020 of 5,000)."""
SETTLE_SECONDS = 2.0
"""After a reconnection somebody else may compare first; a run younger than this is not repeated at once."""
CHORE = "reconcile-all"

log = structlog.get_logger(__name__)


class Reconciled(msgspec.Struct, frozen=True):
    """What one run did: topics that were sent again, topics that were cleared."""

    resent: int
    cleared: int


class Reconciler:
    """Compares for the tenant of one ledger. No run trusts another: any process may do any of them.

    A broker that was restarted may hold nothing, or what it held half an hour ago (measured: of 2,000
    acknowledged retained messages 0 survive a kill with default persistence).
    """

    def __init__(self, ledger: Ledger, connection: Connection, dispatcher: Dispatcher) -> None:
        self._ledger = ledger
        self._connection = connection
        self._dispatcher = dispatcher
        self._topics = MeshTopics(ledger.tenant)
        self._name = new_uuid7()
        self._after: tuple[str, ...] = ()
        self._is_back = asyncio.Event()

    def broker_is_back(self) -> None:
        """The connection stands again: whatever the broker held may be gone."""
        self._is_back.set()

    async def run(self) -> None:
        """Compare everything after each ``broker_is_back`` that nobody else has seen to, for ever."""
        while True:
            await self._is_back.wait()
            self._is_back.clear()
            try:
                if await self._is_ours(surroundings.elapsed()):
                    await self.compare_all()
            except Unreachable as error:
                log.warning("comparing with the broker waits", reason=str(error))
                await asyncio.sleep(SETTLE_SECONDS)
                self._is_back.set()

    async def _is_ours(self, back_at: float) -> bool:
        """Whether nobody compared since the broker was back for us; all processes notice about at once."""
        if await self._ledger.take_chore(CHORE, SETTLE_SECONDS):
            return True
        # The run that kept us from it may be from before the broker's restart.
        await asyncio.sleep(SETTLE_SECONDS * 1.1)
        return await self._ledger.take_chore(CHORE, surroundings.elapsed() - back_at)

    async def compare_all(self) -> Reconciled:
        """The whole board and the presence of processes. Raises ``Unreachable``."""
        held = await self._heard((*self._topics.board_filters(), self._topics.approval("+")))
        shown = await self._ledger.board_shown(ALL)
        done = await self._set_right(shown, held)
        gone = await self._clear_presence()
        return Reconciled(done.resent, done.cleared + gone)

    async def compare(self) -> Reconciled:
        """What waits, is claimed or asked wholly, and a slice of the results. Raises ``Unreachable``."""
        opened, claims, _ = self._topics.board_filters()
        held = await self._heard((opened, claims, self._topics.approval("+")))
        done = await self._set_right(await self._ledger.board_shown(WORK), held)
        results = await self._ledger.board_shown(RESULTS, after=self._after, limit=SLICE)
        self._after = results[-1].key if len(results) == SLICE else ()
        by_topic = self._by_topic(results)
        lost = [by_topic[topic] for topic in await self._not_held(by_topic)]
        return Reconciled(done.resent + await self._send_again(lost), done.cleared)

    async def _set_right(self, shown: Sequence[ShownTopic], held: Mapping[str, bytes]) -> Reconciled:
        """``held`` was read before ``shown``: so a topic that only the broker has was never in the
        ledger or left it again, and clearing it takes nothing away.
        """
        expected = self._by_topic(shown)
        lost = [topic for topic, row in expected.items() if not _is_as(row, held.get(topic))]
        if len(held) >= FEW:
            lost = await self._not_held({topic: expected[topic] for topic in lost})
        strays = [topic for topic in held if topic not in expected]
        for topic in strays:
            await self._connection.publish(Message(topic, b"", retain=True))
        resent = await self._send_again([expected[topic] for topic in lost])
        if resent or strays:
            log.info("broker brought in line with the ledger", resent=resent, cleared=len(strays))
        return Reconciled(resent, len(strays))

    async def _not_held(self, rows: Mapping[str, ShownTopic]) -> list[str]:
        """Which of the topics the broker lacks when each is asked for by its own name."""
        lost: list[str] = []
        for topics in _in_batches(list(rows)):
            held = await self._heard(topics)
            lost += [topic for topic in topics if not _is_as(rows[topic], held.get(topic))]
        return lost

    async def _send_again(self, lost: Sequence[ShownTopic]) -> int:
        if not lost:
            return 0
        count = await self._ledger.board_lost(lost)
        await self._dispatcher.flush()
        return count

    async def _clear_presence(self) -> int:
        """A broker that came back with an old state shows processes that ended long ago."""
        held = await self._heard((self._topics.presence_filter(),))
        living = {
            row.incarnation
            for row in await self._ledger.agents()
            if row.state not in (AgentState.STOPPED, AgentState.LOST)
        }
        gone = [topic for topic in held if self._topics.presence_of(topic)[1] not in living]
        for topic in gone:
            await self._connection.publish(Message(topic, b"", retain=True))
        return len(gone)

    async def _heard(self, filters: Collection[str]) -> dict[str, bytes]:
        return await heard(self._connection, tuple(filters), self._topics.reconcile_probe(self._name))

    def _by_topic(self, rows: Sequence[ShownTopic]) -> dict[str, ShownTopic]:
        return {board_topic(self._ledger.tenant, row.kind, row.key): row for row in rows}


def _is_as(row: ShownTopic, payload: bytes | None) -> bool:
    """Whether the broker holds what the row says; one under way is the dispatcher's business."""
    if not row.sent:
        return True
    return row.digest == (None if payload is None else hashlib.sha256(payload).hexdigest())


def _in_batches(topics: list[str]) -> list[list[str]]:
    return [topics[start : start + ASKED_AT_ONCE] for start in range(0, len(topics), ASKED_AT_ONCE)]
