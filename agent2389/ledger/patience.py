"""Asking a ledger that is away until it is back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from agent2389.errors import Unreachable

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


async def until_reachable(
    ask: Callable[[], Awaitable[Answer]], tell: Callable[[str], None] = lambda _: None
) -> Answer:
    """The answer of ``ask``, which is asked again with growing pauses while it raises ``Unreachable``.

    ``tell`` hears each time why it takes so long.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except Unreachable as error:
            tell(str(error))
            log.warning("ledger not reachable, trying again", reason=str(error))
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
