"""The HTTP client of every adapter: no redirects, no compression, no endless answers."""

from collections.abc import AsyncIterator
from typing import Final

import httpx2

from agent2389.errors import ModelFailed

LARGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024
LARGEST_STREAM_BYTES: Final = 64 * 1024 * 1024
"""A stream spends up to 300 bytes on every token, and the longest answers have 128,000 of them."""
CONNECT_SECONDS: Final = 10.0
_LIMITS: Final = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)


def open_client(proxy: str | None) -> httpx2.AsyncClient:
    """A client without a time limit of its own: callers set one for the whole call.

    Redirects are not followed, because a key in a provider's own header would go with them to
    any host. Compressed answers are refused, because their size says nothing.
    """
    return httpx2.AsyncClient(
        proxy=proxy,
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        limits=_LIMITS,
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [_limit]},
        follow_redirects=False,
    )


async def _limit(response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ModelFailed("the model endpoint compresses its answers although it was asked not to")
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    response.stream = _Counted(stream, LARGEST_STREAM_BYTES if streamed else LARGEST_ANSWER_BYTES)


class _Counted(httpx2.AsyncByteStream):
    """A body that ends in an error instead of filling the memory."""

    def __init__(self, inner: httpx2.AsyncByteStream, largest: int) -> None:
        self._inner = inner
        self._largest = largest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._largest
        async for piece in self._inner:
            left -= len(piece)
            if left < 0:
                megabytes = self._largest // 1024**2
                raise ModelFailed(f"the model endpoint's answer is larger than {megabytes} MB")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
