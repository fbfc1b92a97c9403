"""Sending what a commit produced: doorbells at once, receipts and answers after them, the board soon."""

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence

import structlog

from agent2389.broker.port import Connection, Message, Properties, PublishRefused
from agent2389.errors import Unreachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import BoardMessage, Change, Delivery, Effects
from agent2389.ledger.records import Wake as Doorbell
from agent2389.wire.mesh import Event, Wake, encode
from agent2389.wire.status import timestamp
from agent2389.wire.topics import MeshTopics, conversation

SETTLE_SECONDS = 0.25
"""States shorter than this never reach the wire, and events of a job go out together."""
BOARD_BATCH = 200
BOARD_LEASE_SECONDS = 8.0
"""Of the ten for which rows are leased: what is not on its way by then may be somebody else's already."""
TELL_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Dispatcher:
    """Publishes for one process. A broker that is away loses nothing: deliveries and board rows
    stay in the ledger and whoever is connected next sends them.
    """

    def __init__(self, ledger: Ledger, connection: Connection, *, events: bool = True) -> None:
        self._ledger = ledger
        self._connection = connection
        self._events = events
        self._pending: list[Change] = []
        self._touched = asyncio.Event()
        self._refusals, self._told_at = 0, -math.inf

    async def perform(self, effects: Effects) -> None:
        """Do everything a commit asks for. Never raises because broker or ledger is away."""
        for wake in effects.wakes:
            await self.ring(wake)
        await self.deliver(effects.deliveries)
        if self._events:
            self._pending.extend(effects.changes)
        self._touched.set()

    async def ring(self, wake: Doorbell) -> None:
        """Ring a pool's doorbell; lost rings are made good by polling."""
        message = Wake(wake.task_id, wake.epoch, wake.job_id, wake.priority)
        topic = MeshTopics(wake.tenant).wake(wake.pool)
        await self._try(Message(topic, encode(message), qos=0))

    async def ring_taken(self, tenant: str, pool: str, task_id: str, epoch: int) -> None:
        """Tell the pool that a task is claimed, so that others drop it."""
        message = Wake(task_id, epoch, taken=True)
        await self._try(Message(MeshTopics(tenant).wake(pool), encode(message), qos=0))

    async def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Send outbox rows and forget those that went out.

        With the ledger gone since the commit they stay and go out once more: receivers expect repeats.
        """
        sent = [row.id for row in deliveries if await self._try(_message_of(row), ours=row.topic is None)]
        if sent:
            with contextlib.suppress(Unreachable):
                await self._ledger.outbox_sent(sent)

    async def publish(self, message: Message) -> bool:
        """Publish something that may be lost; ``False`` when it was."""
        return await self._try(message)

    async def run(self) -> None:
        """Flush board and events 250 ms after each commit, for ever."""
        while True:
            await self._touched.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._touched.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send pending events and every board row whose last version is unsent."""
        changes, self._pending = self._pending, []
        for change in changes:
            await self._try(_event_of(change))
        if not self._connection.state.connected:
            return
        with contextlib.suppress(Unreachable):
            await self._ledger.refresh_board()
            while await self._send_board():
                pass

    async def _send_board(self) -> bool:
        """Send one batch; whether all of it went out and there may be more."""
        time = asyncio.get_running_loop().time
        until = time() + BOARD_LEASE_SECONDS
        rows = await self._ledger.lease_board(BOARD_BATCH)
        sent = [row for row in rows if time() < until and await self._try(_board_message(row))]
        await self._ledger.board_sent(sent)
        return bool(rows) and len(sent) == len(rows)

    async def send_leftovers(self) -> None:
        """Deliveries that their committing process did not send."""
        rows: Sequence[Delivery] = await self._ledger.take_outbox(BOARD_BATCH)
        await self.deliver(rows)

    async def _try(self, message: Message, *, ours: bool = True) -> bool:
        """Whether the message went out, or never will.

        Rights and room on the broker may come back, so topics of ours are sent again. What a producer
        asked for on a topic that the mesh may not use is given up, like what is too large.
        """
        try:
            await self._connection.publish(message)
        except PublishRefused as refused:
            self._tell(refused)
            return not (ours and refused.may_pass)
        except Unreachable:
            return False
        return True

    def _tell(self, refused: PublishRefused) -> None:
        """A line for the operator; a broker that refuses everything does not fill the disk."""
        self._refusals += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= TELL_SECONDS:
            log.error("publish refused", reason=str(refused), times=self._refusals, hint=refused.hint)
            self._refusals, self._told_at = 0, now


def _message_of(row: Delivery) -> Message:
    topics = MeshTopics(row.tenant)
    if row.kind == "conversation":
        topic = conversation(row.conversation_id or "unknown", row.agent_id or "mesh")
    else:
        topic = row.topic or topics.receipt(row.job_id)
    correlation = bytes.fromhex(row.correlation) if row.topic and row.correlation else None
    return Message(topic, row.body.encode(), properties=Properties(correlation=correlation))


def _event_of(change: Change) -> Message:
    event = Event(
        job_id=change.job_id,
        type=change.type,
        at=timestamp(change.at),
        data=change.data,
        task_id=change.task_id,
        agent_id=change.agent_id,
    )
    return Message(MeshTopics(change.tenant).event(change.job_id), encode(event))


def board_topic(tenant: str, kind: str, key: tuple[str, ...]) -> str:
    """The retained topic of a board row. Raises ``ValueError`` for a row that has none."""
    topics = MeshTopics(tenant)
    match kind, key:
        case "open", (pool, task_id, epoch):
            return topics.open(pool, task_id, int(epoch))
        case "claim", (task_id, epoch):
            return topics.claim(task_id, int(epoch))
        case "result", (job_id,):
            return topics.result(job_id)
        case "approval", (approval_id,):
            return topics.approval(approval_id)
        case _:
            raise ValueError(f"the board row {kind} {key} has no topic")


def _board_message(row: BoardMessage) -> Message:
    topic = board_topic(row.tenant, row.kind, row.key)
    return Message(topic, (row.payload or "").encode(), retain=True)
