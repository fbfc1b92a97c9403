"""What the rest of the house may ask of a language model."""

from collections.abc import AsyncIterator
from typing import Protocol

from agent2389.llm.messages import Chunk, Reply, Request


class Model(Protocol):
    """One model at one endpoint.

    All methods raise ``ModelFailed`` (retryable or not, with the endpoint's ``retry_after``)
    and never an SDK's own error.
    """

    @property
    def name(self) -> str:
        """The model's name as the endpoint knows it."""
        ...

    @property
    def provider(self) -> str:
        """``openai`` | ``anthropic`` | ``google`` | ``rehearsal``."""
        ...

    async def answer(self, request: Request) -> Reply:
        """One complete answer."""
        ...

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The same answer in pieces."""
        ...

    async def verify(self) -> None:
        """A free check that the endpoint answers and takes the key; raises ``ModelFailed``
        (not retryable on 401 and 403; any other HTTP answer counts as reachable).
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
