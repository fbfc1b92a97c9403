"""Whether the model of an agent is usable: asked until it is, then looked at every five minutes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from agent2389.errors import ModelFailed, NotAllowed
from agent2389.insight.health import Degraded, Health
from agent2389.llm.open import Models
from agent2389.telemetry.metrics import Metrics

VERIFY_PAUSE = 5.0
LOOK_SECONDS = 300.0
REFUSED = (401, 403)

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def usable_model(
    models: Models,
    health: Health,
    metrics: Metrics,
    tell: Callable[[str], None],
    every: float = LOOK_SECONDS,
) -> AsyncIterator[None]:
    """The check ``model`` for the time of the block: a free look ``every`` so many seconds, no paid call.

    Enters when the model is usable; until then ``tell`` hears why not. Later a refused key makes the
    process unready. An endpoint that does not answer, or rests because calls failed in a row, only
    degrades it: that passes, and tasks are tried again.
    """
    await _verified(models, tell)
    model = models.main()
    last: list[ModelFailed] = []

    async def look() -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await model.verify()
            except ModelFailed as error:
                if not last:
                    log.warning("model endpoint not usable", model=model.name, reason=str(error))
                last[:] = [error]
            else:
                last.clear()

    async def usable() -> str:
        for name, rests in models.resting().items():
            metrics.llm_resting.labels(name).set(rests)
        if last and last[0].status in REFUSED:
            raise NotAllowed(f"{model.name}: {last[0]}")
        if last:
            raise Degraded(f"{model.name}: {last[0]}")
        if resting := [name for name, rests in models.resting().items() if rests]:
            raise Degraded(f"endpoint {', '.join(resting)} failed several times in a row and rests")
        return f"{model.name} answers"

    health.add("model", usable)
    looking = asyncio.create_task(look(), name="look-at-model")
    try:
        yield
    finally:
        looking.cancel()


async def _verified(models: Models, tell: Callable[[str], None]) -> None:
    """FR-002: an agent is available only after its model endpoint answered; it is asked until it does."""
    model = models.main()
    while True:
        try:
            return await model.verify()
        except ModelFailed as error:
            tell(f"model {model.name}: {error}")
            log.warning("model endpoint not usable yet", model=model.name, reason=str(error))
        await asyncio.sleep(VERIFY_PAUSE)
