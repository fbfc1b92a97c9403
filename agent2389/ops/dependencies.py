"""What wiring hands to the ops service's application."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from agent2389.insight.health import Health
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Submitted
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.dispatch import Dispatcher


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """``submit`` takes a document and the id to use when it names none."""

    ledger: Ledger
    submit: Callable[[bytes, str | None], Awaitable[Submitted]]
    dispatcher: Dispatcher
    health: Health
    metrics: Metrics
    token: str | None
    manager_token: str | None
    token_required: bool


DEPENDENCIES = web.AppKey("dependencies", Dependencies)
