"""Small wrappers around a model."""

import asyncio
from collections.abc import AsyncIterator

import structlog

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Chunk, Reply, Request
from agent2389.llm.port import Model
from agent2389.telemetry import surroundings

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

log = structlog.get_logger(__name__)


class Retrying:
    """Asks again after retryable failures: full jitter, never sooner than the endpoint wishes."""

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
                return await self._inner.answer(request)
            except ModelFailed as error:
                pause = surroundings.chance().uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))
                pause = max(pause, error.retry_after or 0.0)
                last = attempt == self._retries
                if last or not error.retryable or loop.time() + pause > deadline:
                    raise
                log.info("model call repeated", model=self.name, reason=str(error), pause=round(pause, 2))
            await asyncio.sleep(pause)
        raise AssertionError("the loop returns or raises")

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Not retried: pieces may have been shown already."""
        return self._inner.stream(request)

    async def verify(self) -> None:
        """The inner model's."""
        await self._inner.verify()

    async def close(self) -> None:
        """The inner model's."""
        await self._inner.close()
