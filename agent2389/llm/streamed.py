"""Answers fetched as a stream: a silent or cut connection is noticed long before the call's time is over."""

from collections.abc import AsyncIterator

import msgspec

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Chunk, Reply, Request
from agent2389.llm.port import Model


class Streamed:
    """A model that is asked for streams. Answers with a structure stay whole, because those are repaired.

    ``first_piece`` is the longest wait for a sign of life, in seconds.
    """

    def __init__(self, inner: Model, first_piece: float) -> None:
        self._inner = inner
        self._first_piece = first_piece

    @property
    def name(self) -> str:
        """The inner model's."""
        return self._inner.name

    @property
    def provider(self) -> str:
        """The inner model's."""
        return self._inner.provider

    async def answer(self, request: Request) -> Reply:
        """The reply at the stream's end. Raises ``ModelFailed`` for a stream that has none."""
        if request.schema is not None:
            return await self._inner.answer(request)
        reply: Reply | None = None
        async for chunk in self.stream(request):
            reply = chunk.reply or reply
        if reply is None:
            raise ModelFailed("the stream was cut before its end")
        return reply

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The inner model's, with this wrapper's limit for the first piece."""
        limited = msgspec.structs.replace(request, first_token_timeout=self._first_piece)
        async for chunk in self._inner.stream(limited):
            yield chunk

    async def verify(self) -> None:
        """The inner model's."""
        await self._inner.verify()

    async def close(self) -> None:
        """The inner model's."""
        await self._inner.close()
