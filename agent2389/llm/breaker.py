"""A circuit breaker: an endpoint that keeps failing is left alone for a while."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

import structlog

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Chunk, Reply, Request
from agent2389.llm.port import Model

log = structlog.get_logger(__name__)


class Breaker:
    """The memory of one endpoint, shared by every model opened on it.

    ``failures`` in a row open it for ``rest`` seconds; then one call tries, and its end decides.
    ``clock`` gives monotonic seconds.
    """

    def __init__(
        self, endpoint: str, failures: int, rest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoint = endpoint
        self._limit = failures
        self._rest = rest
        self._clock = clock
        self._failed = 0
        self._closed_again = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused now."""
        return self._failed >= self._limit and (self._trying or self._clock() < self._closed_again)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises ``ModelFailed`` at once, with the time that is left, while open."""
        if self.is_open:
            left = max(self._closed_again - self._clock(), 1.0)
            raise ModelFailed(
                f"endpoint {self._endpoint} failed {self._failed} times in a row and rests",
                retry_after=left,
                hint="see the log for its last failure; [llm] fallback names endpoints that take over",
            )
        trial = self._trying = self._failed >= self._limit
        try:
            yield
        except ModelFailed as error:
            self._count(error)
            raise
        else:
            self._failed = 0
        finally:
            if trial:
                self._trying = False

    def _count(self, error: ModelFailed) -> None:
        # A refused request or a request to slow down comes from an endpoint in good health.
        if not error.retryable or error.status == 429:
            self._failed = 0
            return
        self._failed += 1
        if self._failed >= self._limit:
            self._closed_again = self._clock() + self._rest
            log.warning(
                "model endpoint rests", endpoint=self._endpoint, seconds=self._rest, reason=str(error)
            )


class Breaking:
    """A model behind a breaker."""

    def __init__(self, inner: Model, breaker: Breaker) -> None:
        self._inner = inner
        self._breaker = breaker

    @property
    def name(self) -> str:
        """The inner model's."""
        return self._inner.name

    @property
    def provider(self) -> str:
        """The inner model's."""
        return self._inner.provider

    async def answer(self, request: Request) -> Reply:
        """The inner model's, unless the breaker is open."""
        with self._breaker.call():
            return await self._inner.answer(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The inner model's, unless the breaker is open."""
        with self._breaker.call():
            async for chunk in self._inner.stream(request):
                yield chunk

    async def verify(self) -> None:
        """The inner model's: it asks even while the breaker is open."""
        await self._inner.verify()

    async def close(self) -> None:
        """The inner model's."""
        await self._inner.close()
