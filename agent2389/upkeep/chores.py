"""Chores that any process takes when they are due: no leader, no process-wide lock."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from agent2389.broker.port import Message
from agent2389.errors import Agent2389Error
from agent2389.ledger.port import Ledger
from agent2389.ledger.views import AgentRow
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.foreign import Foreign
from agent2389.upkeep.reconcile import Reconciler
from agent2389.wire.topics import MeshTopics

KEEP_DAYS = 7.0
"""How long a job that ended stays; after that its id and hash stay for thirty days more."""
SEALED_AT_ONCE = 1000
REAPED_AT_ONCE = 100
BURIED_AT_ONCE = 200
FORGOTTEN_AT_ONCE = 1000
MOST_ROUNDS = 50
"""Of one chore in a row, so that a mountain of work does not hold up the others of this process."""

INTERVALS: dict[str, float] = {
    "ring": 1.0,
    "leftovers": 2.0,
    "reap": 5.0,
    "board": 5.0,
    "foreign": 1.0,
    "seal": 5.0,
    "reconcile": 30.0,
    "retention": 60.0,
}
"""Seconds between two runs of a chore anywhere in the mesh."""

log = structlog.get_logger(__name__)


class Chores:
    """Runs chores on own timers (ops) or when the beat says they are late (agents)."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        *,
        foreign: Foreign | None = None,
        reconciler: Reconciler | None = None,
        keep_days: float = KEEP_DAYS,
    ) -> None:
        self._ledger = ledger
        self._reconciler = reconciler
        self._dispatcher = dispatcher
        self._keep_days = keep_days
        self._waiting: dict[str, str] = {}
        self._work: dict[str, Callable[[], Awaitable[None]]] = {
            "ring": self._ring,
            "leftovers": dispatcher.send_leftovers,
            "reap": self._reap,
            "board": dispatcher.flush,
            "seal": self._seal,
            "reconcile": self._reconcile,
            "retention": self._retention,
        }
        if foreign is not None:
            self._work["foreign"] = foreign.look

    async def run(self) -> None:
        """All chores on their intervals, for ever; a ledger that is away is asked again."""
        async with asyncio.TaskGroup() as group:
            for name, interval in INTERVALS.items():
                if name not in self._work:
                    continue
                group.create_task(self._repeat(name, interval), name=f"chore-{name}")

    async def run_due(self, names: Iterable[str]) -> None:
        """Run those of ``names`` that nobody took meanwhile."""
        for name in names:
            if name in self._work:
                await self._run_once(name, INTERVALS[name])

    async def _repeat(self, name: str, interval: float) -> None:
        while True:
            await self._run_once(name, interval * 0.9)
            await asyncio.sleep(interval)

    async def _run_once(self, name: str, interval: float) -> None:
        try:
            if await self._ledger.take_chore(name, interval):
                await self._work[name]()
        except Agent2389Error as error:
            # No chore ends the others. Said once in an outage, not at each of its tries.
            if self._waiting.get(name) != str(error):
                self._waiting[name] = str(error)
                log.warning("chore waits", chore=name, reason=str(error))
        else:
            if self._waiting.pop(name, None) is not None:
                log.info("chore runs again", chore=name)

    async def _ring(self) -> None:
        for wake in await self._ledger.ring_due():
            await self._dispatcher.ring(wake)

    async def _reap(self) -> None:
        # After an outage much is due at once; each call stays short.
        for _ in range(MOST_ROUNDS):
            effects = await self._ledger.reap(REAPED_AT_ONCE)
            await self._dispatcher.perform(effects)
            if len(effects.changes) < REAPED_AT_ONCE:
                return

    async def _reconcile(self) -> None:
        if self._reconciler is not None:
            await self._reconciler.compare()

    async def _seal(self) -> None:
        while await self._ledger.seal(SEALED_AT_ONCE) == SEALED_AT_ONCE:
            pass

    async def _retention(self) -> None:
        for _ in range(MOST_ROUNDS):
            retired = await self._ledger.retire(self._keep_days, BURIED_AT_ONCE)
            await self._clear_presence(retired.agents)
            if retired.jobs < BURIED_AT_ONCE:
                break
        for _ in range(MOST_ROUNDS):
            if await self._ledger.forget_messages(FORGOTTEN_AT_ONCE) < FORGOTTEN_AT_ONCE:
                break

    async def _clear_presence(self, agents: Iterable[AgentRow]) -> None:
        for gone in agents:
            topic = MeshTopics(self._ledger.tenant).presence(gone.agent_id, gone.incarnation)
            await self._dispatcher.publish(Message(topic, b"", retain=True))
