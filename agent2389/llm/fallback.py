"""A chain of models: the next one answers when one before it fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import structlog

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Chunk, Reply, Request
from agent2389.llm.port import Model

log = structlog.get_logger(__name__)


class FallingBack:
    """Models in order of preference; known by the first. ``Reply.model`` says who answered.

    The request's ``timeout`` is for the whole chain: a model that has others behind it may use
    an equal share of the time left, the last one all of it.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = tuple(models)

    @property
    def name(self) -> str:
        """The first model's."""
        return self._models[0].name

    @property
    def provider(self) -> str:
        """The first model's."""
        return self._models[0].provider

    async def answer(self, request: Request) -> Reply:
        """The first answer. Raises ``ModelFailed`` that names every failure when there is none."""
        failures: list[ModelFailed] = []
        deadline = asyncio.get_running_loop().time() + request.timeout
        for number, model in enumerate(self._models):
            try:
                return await model.answer(self._share(request, deadline, number))
            except ModelFailed as error:
                failures.append(self._note(model, error))
        raise self._all_failed(failures)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """As ``answer``, but only until the first piece: what was shown cannot be taken back."""
        failures: list[ModelFailed] = []
        deadline = asyncio.get_running_loop().time() + request.timeout
        for number, model in enumerate(self._models):
            begun = False
            try:
                async for chunk in model.stream(self._share(request, deadline, number)):
                    begun = True
                    yield chunk
                return
            except ModelFailed as error:
                if begun:
                    raise
                failures.append(self._note(model, error))
        raise self._all_failed(failures)

    async def verify(self) -> None:
        """One usable model is enough."""
        failures: list[ModelFailed] = []
        for model in self._models:
            try:
                return await model.verify()
            except ModelFailed as error:
                failures.append(self._note(model, error))
        raise self._all_failed(failures)

    async def close(self) -> None:
        """Close all."""
        for model in self._models:
            await model.close()

    def _share(self, request: Request, deadline: float, number: int) -> Request:
        left = max(deadline - asyncio.get_running_loop().time(), 0.0)
        return msgspec.structs.replace(request, timeout=left / (len(self._models) - number))

    def _note(self, model: Model, error: ModelFailed) -> ModelFailed:
        log.warning("model failed, the next one is asked", model=model.name, reason=str(error))
        return error

    def _all_failed(self, failures: Sequence[ModelFailed]) -> ModelFailed:
        reasons = "; ".join(
            f"{model.name}: {error}" for model, error in zip(self._models, failures, strict=True)
        )
        waits = [error.retry_after for error in failures if error.retry_after is not None]
        return ModelFailed(
            f"every model of the chain failed: {reasons}",
            retryable=any(error.retryable for error in failures),
            retry_after=min(waits) if waits else None,
            hint=failures[0].hint,
        )
