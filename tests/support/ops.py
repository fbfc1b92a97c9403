"""The ops service's application on a ledger in memory, behind aiohttp's test client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from agent2389 import __version__
from agent2389.errors import Unreachable
from agent2389.insight.bodies import SERVED_UNDECODED
from agent2389.insight.health import Health
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import Submitted
from agent2389.ops.app import build_app
from agent2389.ops.dependencies import Dependencies
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.accept import accept_document
from agent2389.upkeep.dispatch import Dispatcher
from tests.support.recorded_broker import RecordedConnection


class Service:
    """A running application with what it stands on."""

    def __init__(
        self, client: TestClient[Any, Any], ledger: MemoryLedger, broker: RecordedConnection
    ) -> None:
        self.client = client
        self.ledger = ledger
        self.broker = broker
        self.away = False
        self.frozen = False

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return await _read(await self.client.get(path, headers=headers))

    async def post(self, path: str, body: bytes | dict[str, Any] = b"", **headers: str) -> tuple[int, Any]:
        if isinstance(body, dict):
            return await _read(await self.client.post(path, json=body, headers=headers))
        headers.setdefault("Content-Type", "application/json")
        return await _read(await self.client.post(path, data=body, headers=headers))


async def as_served(app: web.Application) -> TestServer:
    """``app`` served as the processes do it."""
    server = TestServer(app)
    await server.start_server(**SERVED_UNDECODED)
    return server


async def _read(response: ClientResponse) -> tuple[int, Any]:
    if response.status >= 400 and not response.url.path.endswith(("ready", "readyz", "health", "startup")):
        assert response.content_type == "application/problem+json"
        body = await response.json(content_type=None)
        assert {"type", "title", "status", "code", "detail", "request_id"} <= set(body)
        assert body["status"] == response.status
        assert response.headers["X-Request-Id"]
        return response.status, body
    return response.status, await response.json(content_type=None)


@asynccontextmanager
async def running_ops(
    *, token: str | None = None, manager_token: str | None = None, token_required: bool = False
) -> AsyncIterator[Service]:
    ledger, broker, health = MemoryLedger(), RecordedConnection(), Health()
    health.started_up = True

    async def submit(body: bytes, job_id: str | None) -> Submitted:
        if service.away:
            raise Unreachable("ledger", "the database does not answer")
        return await accept_document(ledger, body, source="http", job_id=job_id)

    async def ledger_answers() -> str:
        if service.away:
            raise Unreachable("ledger", "the database does not answer")
        if service.frozen:
            await asyncio.Event().wait()
        return "answers"

    health.add("ledger", ledger_answers)
    app = build_app(
        Dependencies(
            ledger=ledger,
            submit=submit,
            dispatcher=Dispatcher(ledger, broker),
            health=health,
            metrics=Metrics(__version__),
            token=token,
            manager_token=manager_token,
            token_required=token_required,
        )
    )
    async with TestClient(await as_served(app)) as client:
        service = Service(client, ledger, broker)
        yield service
