"""Finding work: doorbells, ranks, polls. One claim attempt for each wake, whoever hears it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice

import structlog

from agent2389.broker.port import Delivery
from agent2389.errors import Unreachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Claim
from agent2389.wire.mesh import Wake, decode_wake

RANK_PAUSE_SECONDS = 0.05
RANKS_THAT_TRY = 8
POLL_SECONDS = 30.0
EAGER_POLL_SECONDS = 5.0

log = structlog.get_logger(__name__)


def rank(task_id: str, own: str, peers: tuple[str, ...], most: int | None = None) -> int:
    """How many of ``peers`` come before ``own`` for this task (rendezvous hashing), counted up to ``most``.

    Every agent computes the same order without talking, and each task has another first.
    """

    def weight(incarnation: str) -> bytes:
        return hashlib.blake2b(f"{task_id}\x1f{incarnation}".encode(), digest_size=8).digest()

    mine = weight(own)
    ahead = (peer for peer in peers if peer != own and weight(peer) > mine)
    return sum(1 for _ in islice(ahead, most))


class Claimer:
    """Claims for one process as long as ``free_slots`` says there is room."""

    def __init__(
        self,
        ledger: Ledger,
        incarnation: str,
        *,
        free_slots: Callable[[], int],
        start: Callable[[Claim], Awaitable[None]],
        lost: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._incarnation = incarnation
        self._free_slots = free_slots
        self._start = start
        self._lost = lost
        self._waiting: dict[str, float] = {}
        self._look = asyncio.Event()
        self._look_everywhere = True
        self._passed_over = False
        self._claiming = asyncio.Lock()
        self.peers: Mapping[str, tuple[str, ...]] = {}
        self.poll_seconds = POLL_SECONDS

    async def on_wake(self, delivery: Delivery) -> None:
        """A doorbell of an own pool."""
        wake = decode_wake(delivery.payload)
        if wake is None:
            return
        if wake.taken:
            self._waiting.pop(wake.task_id, None)
            return
        self._enter(wake, pool=delivery.topic.rpartition("/")[2])

    def slot_freed(self) -> None:
        """A task of ours ended: try the wakes that wait, and look where something was passed over.

        In an idle pool there is neither, and looking would double the claims of every task.
        """
        if self._passed_over or self.poll_seconds < POLL_SECONDS:
            self.look()
        self._look.set()

    def look(self) -> None:
        """There may be work for us: the beat reports backlog, we began to run."""
        self._look_everywhere = True
        self._look.set()

    async def run(self) -> None:
        """Claim for ever; a ledger that is away is asked again at the next poll."""
        while True:
            await self._pause()
            try:
                async with self._claiming:
                    await self._claim_what_is_due()
            except Unreachable as error:
                log.warning("claims wait for the ledger", reason=str(error))
                await asyncio.sleep(1)

    async def settled(self) -> None:
        """Until a claim that is under way has its answer and its task was started.

        A process that leaves in between would own a task that it never heard of.
        """
        async with self._claiming:
            return

    def _enter(self, wake: Wake, pool: str) -> None:
        place = rank(wake.task_id, self._incarnation, self.peers.get(pool, ()), RANKS_THAT_TRY)
        if place < RANKS_THAT_TRY:
            now = asyncio.get_running_loop().time()
            self._waiting[wake.task_id] = now + place * RANK_PAUSE_SECONDS
            self._look.set()

    async def _pause(self) -> None:
        """Until a wake is due, somebody says look, or the poll's time has come."""
        loop = asyncio.get_running_loop()
        poll_at = loop.time() + self.poll_seconds
        while True:
            if self._look_everywhere:
                break
            next_due = min(self._waiting.values(), default=poll_at)
            if self._free_slots() <= 0:
                next_due = poll_at
            wait = min(next_due, poll_at) - loop.time()
            if wait <= 0:
                self._look_everywhere = loop.time() >= poll_at
                break
            self._look.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _claim_what_is_due(self) -> None:
        free = self._free_slots()
        if free <= 0:
            # The next slot that frees makes good for it.
            self._passed_over = True
            self._waiting.clear()
            self._look_everywhere = False
            return
        now = asyncio.get_running_loop().time()
        due = [task_id for task_id, at in self._waiting.items() if at <= now]
        for task_id in due:
            del self._waiting[task_id]
        if self._look_everywhere or len(due) > 1:
            self._look_everywhere = self._passed_over = False
            claims = await self._ledger.claim_batch(self._incarnation, free)
            self._look_everywhere = len(claims) == free
            for claim in claims:
                self._waiting.pop(claim.fence.task_id, None)
                await self._start(claim)
        elif due:
            won = await self._ledger.claim(due[0], self._incarnation)
            if won is None:
                self._lost()
            else:
                await self._start(won)
