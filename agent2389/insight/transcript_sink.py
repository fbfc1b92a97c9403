"""A copy of what was said, for a store beside the ledger: offered after the commit, never waited for."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog

from agent2389.errors import Unreachable
from agent2389.ledger.journal import Message
from agent2389.ledger.records import Claim

BATCH = 100
LONGEST_BODY = 1024 * 1024
"""Characters of one body that are copied; the ledger holds all of it."""
TRIES = 3
FIRST_PAUSE = 0.5
LAST_SECONDS = 5.0

log = structlog.get_logger(__name__)


class TranscriptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One message at its place. Writing the same ``place`` again replaces it; ``body`` is JSON text."""

    place: str
    tenant: str
    job_id: str
    task_id: str
    agent_id: str
    capability: str
    hop: int
    epoch: int
    step: int
    slot: int
    kind: str
    at: datetime
    body: str
    cut: bool = False


class TranscriptStore(Protocol):
    """Where the copy goes."""

    async def write(self, records: Sequence[TranscriptRecord]) -> None:
        """Keep the records, each once. Raises ``Unreachable``."""
        ...

    async def close(self) -> None:
        """Give back all connections."""
        ...


class TranscriptSink:
    """Takes messages at once and writes them behind the agent's back, in order, in batches.

    What does not fit into ``queue`` records and what the store does not take in three tries is
    dropped and counted by ``on_dropped``: the ledger has it anyway.
    """

    def __init__(
        self, store: TranscriptStore, *, agent_id: str, queue: int, on_dropped: Callable[[int], None]
    ) -> None:
        self._store = store
        self._agent_id = agent_id
        self._waiting: asyncio.Queue[TranscriptRecord] = asyncio.Queue(queue)
        self._on_dropped = on_dropped
        self._writer: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to write; the store is reached when there is something for it."""
        self._writer = asyncio.create_task(self._write(), name="transcripts")

    def offer(self, claim: Claim, messages: Sequence[Message]) -> None:
        """Take committed messages of a task; never waits, never raises."""
        for message in messages:
            try:
                self._waiting.put_nowait(_record(claim, message, self._agent_id))
            except asyncio.QueueFull:
                self._on_dropped(1)

    async def close(self) -> None:
        """Write what is still waiting, for at most 5 seconds."""
        if self._writer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._waiting.join()
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if left := self._waiting.qsize():
            self._on_dropped(left)
        await self._store.close()

    async def _write(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await self._deliver(batch)
            finally:
                for _ in batch:
                    self._waiting.task_done()

    async def _deliver(self, batch: Sequence[TranscriptRecord]) -> None:
        taken = False
        try:
            taken = await self._is_taken(batch)
        finally:
            # Also when the process ends meanwhile: a count that lies is worse than none.
            if not taken:
                self._on_dropped(len(batch))

    async def _is_taken(self, batch: Sequence[TranscriptRecord]) -> bool:
        for attempt in range(TRIES):
            try:
                await self._store.write(batch)
            except Unreachable as error:
                log.warning("transcripts not copied", records=len(batch), reason=str(error))
                if attempt + 1 < TRIES:
                    await asyncio.sleep(FIRST_PAUSE * 2**attempt)
            except Exception:
                # Whatever is wrong with this batch, the next ones may be fine.
                log.exception("transcripts not copied", records=len(batch))
                return False
            else:
                return True
        return False


def _record(claim: Claim, message: Message, agent_id: str) -> TranscriptRecord:
    fence = claim.fence
    return TranscriptRecord(
        place="/".join((claim.tenant, fence.task_id, str(fence.epoch), str(message.step), str(message.slot))),
        tenant=claim.tenant,
        job_id=claim.job_id,
        task_id=fence.task_id,
        agent_id=agent_id,
        capability=claim.capability,
        hop=claim.hop,
        epoch=fence.epoch,
        step=message.step,
        slot=message.slot,
        kind=message.kind,
        at=datetime.now(UTC),
        body=message.body[:LONGEST_BODY],
        cut=len(message.body) > LONGEST_BODY,
    )
