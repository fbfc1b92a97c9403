"""Asking again: the wrapper that repeats failed calls."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import structlog

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Chunk, Reply, Request
from agent2389.llm.port import Model
from agent2389.telemetry import surroundings

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

log = structlog.get_logger(__name__)


class Retrying:
    """Asks again after retryable failures: full jitter, never sooner than the endpoint wishes.

    All tries and pauses together stay within the request's ``timeout``.
    """

    def __init__(self, inner: Model, retries: int) -> None:
        self._inner = inner
        self._retries = retries

    @property
    def name(self) -> str:
        """The inner model's."""
        return self._inner.name

    @property
    def provider(self) -> str:
        """The inner model's."""
        return self._inner.provider

    async def answer(self, request: Request) -> Reply:
        """The first answer within the request's time; the last failure otherwise."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout
        for attempt in range(self._retries + 1):
            try:
                return await self._inner.answer(_until(deadline, request))
            except ModelFailed as error:
                pause = self._pause(error, attempt, deadline)
            await asyncio.sleep(pause)
        raise AssertionError("the loop returns or raises")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """As ``answer``, but only until the first piece: what was shown cannot be taken back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout
        for attempt in range(self._retries + 1):
            begun = False
            try:
                async for chunk in self._inner.stream(_until(deadline, request)):
                    begun = True
                    yield chunk
                return
            except ModelFailed as error:
                if begun:
                    raise
                pause = self._pause(error, attempt, deadline)
            await asyncio.sleep(pause)

    async def verify(self) -> None:
        """The inner model's."""
        await self._inner.verify()

    async def close(self) -> None:
        """The inner model's."""
        await self._inner.close()

    def _pause(self, error: ModelFailed, attempt: int, deadline: float) -> float:
        """Seconds to wait before the next try. Raises ``error`` when there is none."""
        pause = surroundings.chance().uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))
        pause = max(pause, error.retry_after or 0.0)
        late = asyncio.get_running_loop().time() + pause >= deadline
        if attempt == self._retries or not error.retryable or late:
            raise error
        log.info("model call repeated", model=self.name, reason=str(error), pause=round(pause, 2))
        return pause


def _until(deadline: float, request: Request) -> Request:
    left = max(deadline - asyncio.get_running_loop().time(), 0.0)
    return msgspec.structs.replace(request, timeout=min(left, request.timeout))
