"""Telling events by webhook as a part of the ops process: its task's work, its health, its counter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent2389.insight.health import Degraded, Health
from agent2389.ledger.port import Ledger
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.notify import Notifier
from agent2389.upkeep.webhook import Receiver, posting


@asynccontextmanager
async def telling(
    receiver: Receiver, ledger: Ledger, metrics: Metrics, health: Health
) -> AsyncIterator[Notifier]:
    """A notifier for the time of the block; a receiver that fails degrades the process, no more."""
    async with posting(receiver) as post:
        notifier = Notifier(
            ledger.notices,
            post,
            types=receiver.events,
            mesh_id=await ledger.mesh_id(),
            seconds=receiver.seconds,
            count=lambda outcome: metrics.webhook_events.labels(outcome).inc(),
        )

        async def takes_events() -> str:
            standing = await notifier.standing()
            if standing is None:
                return f"{receiver.shown}: nothing to tell yet"
            waiting = f"{standing.waiting}{' or more' if standing.more else ''} waiting"
            if standing.place.reason is not None:
                raise Degraded(f"{standing.place.reason}; tried {standing.place.failures} times, {waiting}")
            return f"{receiver.shown}: told up to event {standing.place.number}, {waiting}"

        health.add("webhook", takes_events, required=False)
        yield notifier
