"""What an adapter must know: one provider's wire format on its official SDK."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import httpx2

from agent2389.errors import ModelFailed
from agent2389.llm.replies import Raw
from agent2389.llm.structured import Asked


class Dialect(Protocol):
    """A wire format. It is without state; clients are the SDK's own, so they are ``Any`` here.

    ``complete`` and ``stream`` let every error of the SDK through; ``failure`` types it.
    """

    @property
    def provider(self) -> str:
        """``openai`` | ``anthropic`` | ``google``."""
        ...

    @property
    def address(self) -> str:
        """The provider's own endpoint, without the part that ``base_url`` of this provider leaves out."""
        ...

    def client(self, api_key: str, base_url: str, http: httpx2.AsyncClient) -> Any:
        """An SDK client that never retries. Imports the SDK, which takes seconds: call it in a thread.

        Raises ``MissingExtra`` when the SDK is not installed.
        """
        ...

    async def complete(self, client: Any, model: str, asked: Asked) -> Raw:
        """One whole answer."""
        ...

    def stream(self, client: Any, model: str, asked: Asked) -> AsyncGenerator[str | Raw]:
        """Pieces of text (empty ones are signs of life), then the whole answer."""
        ...

    def failure(self, error: Exception) -> ModelFailed | None:
        """The typed form of an SDK's error, ``None`` when it is not one of its own."""
        ...

    def probe(self, api_key: str, base_url: str) -> tuple[str, dict[str, str]]:
        """Address and headers of a free request that shows whether the key is taken."""
        ...
