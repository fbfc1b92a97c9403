"""Telling events to a receiver outside the mesh: at least once, in the sealer's order, whatever restarts.

The place reached is a row of the ledger. Whoever takes it tells alone, so several ops processes may run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from agent2389.errors import Unreachable
from agent2389.ledger.notices import Notices, Place, Standing
from agent2389.ledger.records import Change
from agent2389.telemetry import surroundings
from agent2389.wire.names import new_uuid7
from agent2389.wire.notice import Notice
from agent2389.wire.status import timestamp

NAME = "webhook"
"""Of the place in the ledger: a receiver that moved to another address goes on where it was."""
LOOK_SECONDS = 5.0
"""As often as the sealer comes; nothing is to be told in between."""
BATCH = 50
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
MOST_REFUSALS = 20
"""Then an event is given up: with the pauses between, after about an hour."""
LEASE_MORE_SECONDS = 20.0
"""How much longer than one try the telling is held."""

log = structlog.get_logger(__name__)


class Answer(msgspec.Struct, frozen=True):
    """What one try came to: ``trouble`` is ``None`` when it was taken, else a reason for people.

    ``refused``: the receiver is well and would not have this event.
    """

    trouble: str | None = None
    refused: bool = False


Post = Callable[[Notice], Awaitable[Answer]]
"""One try. Never raises because of the receiver."""


class Notifier:
    """Tells the events of one tenant under one name.

    ``seconds`` is how long one try may take, ``count`` hears ``sent``, ``failed`` and ``skipped``.
    """

    def __init__(
        self,
        notices: Notices,
        post: Post,
        *,
        types: Sequence[str],
        mesh_id: str,
        seconds: float,
        count: Callable[[str], None] = lambda outcome: None,
        name: str = NAME,
    ) -> None:
        self._notices = notices
        self._post = post
        self._types = tuple(types)
        self._mesh_id = mesh_id
        self._lease = seconds + LEASE_MORE_SECONDS
        self._count = count
        self._name = name
        self._holder = new_uuid7()

    async def run(self) -> None:
        """Tell what waits every few seconds, for ever; a ledger that is away is asked again."""
        while True:
            try:
                await self.tell()
            except Unreachable as error:
                log.warning("telling by webhook waits", reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def tell(self) -> None:
        """Tell at most one batch, unless it is not due or somebody else is at it. Raises ``Unreachable``."""
        batch = await self._notices.take(
            self._name, self._holder, self._types, limit=BATCH, lease_seconds=self._lease
        )
        if batch is None:
            return
        place = batch.place
        for number, change in batch.events:
            answer = await self._post(self._notice_of(number, change))
            place = self._place_after(place, number, change, answer)
            if place.failures:
                await self._keep(place, rest=_pause(place.failures))
                return
            if not await self._keep(place):
                return
        # A little less than a look, or a second process would find it resting at each of its own.
        await self._keep(Place(number=batch.upto), rest=LOOK_SECONDS * 0.9)

    async def standing(self) -> Standing | None:
        """How the telling stands, whichever process does it. Raises ``Unreachable``."""
        return await self._notices.standing(self._name, self._types)

    def _place_after(self, place: Place, number: int, change: Change, answer: Answer) -> Place:
        if answer.trouble is None:
            self._count("sent")
            return Place(number=number)
        self._count("failed")
        refusals = place.refusals + answer.refused
        hears = log.bind(type=change.type, job_id=change.job_id, number=number, reason=answer.trouble)
        if refusals >= MOST_REFUSALS:
            self._count("skipped")
            hears.error("an event is given up: the receiver refuses it", tries=refusals)
            return Place(number=number)
        hears.warning("an event could not be told", tries=place.failures + 1)
        return Place(
            # What comes before the event that waits is done with.
            number=number - 1,
            failures=place.failures + 1,
            refusals=refusals,
            reason=answer.trouble,
        )

    async def _keep(self, place: Place, *, rest: float | None = None) -> bool:
        seconds = self._lease if rest is None else rest
        return await self._notices.keep(
            self._name, self._holder, place, seconds=seconds, ends=rest is not None
        )

    def _notice_of(self, number: int, change: Change) -> Notice:
        return Notice(
            type=change.type,
            at=timestamp(change.at),
            tenant=change.tenant,
            job_id=change.job_id,
            number=number,
            data=change.data,
            mesh_id=self._mesh_id,
            task_id=change.task_id,
            agent_id=change.agent_id,
        )


def _pause(failures: int) -> float:
    """Seconds until the next try: doubling, capped, and jittered so that restarts do not fall together."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
    return longest * (0.5 + surroundings.chance().random() / 2)
