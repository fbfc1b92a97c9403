"""Decisions over HTTP, on the ledger in memory."""

from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from agent2389.broker.port import Connection
from agent2389.insight.health import Health
from agent2389.ledger.memory import MemoryLedger
from agent2389.ops.app import build_app
from agent2389.ops.dependencies import Dependencies
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.dispatch import Dispatcher
from tests.support.jobs import claim_one, finish, join, new_job


@pytest.fixture
async def client() -> Any:
    ledger = MemoryLedger()
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish("the text"), claim.job_id)
    connection: Any = Connection

    async def submit(document: bytes, job_id: str | None) -> Any:
        raise AssertionError((document, job_id))

    dependencies = Dependencies(
        ledger=ledger,
        submit=submit,
        dispatcher=Dispatcher(ledger, connection),
        health=Health(agent_id="ops", state=lambda: "running"),
        metrics=Metrics("0"),
        token=None,
        manager_token=None,
        token_required=False,
    )
    async with TestClient(TestServer(build_app(dependencies), host="127.0.0.1")) as opened:
        yield opened


async def test_decisions_are_listed(client: Any) -> None:
    answer = await client.get("/api/v1/decisions", params={"since": "60"})
    body = await answer.json()
    assert answer.status == 200
    assert [(row["job_id"], row["hop"], row["decision"]["outcome"]) for row in body["data"]] == [
        ("job-1", 1, "done")
    ]
    assert body["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    [
        {"since": "0"},
        {"since": "7d"},
        {"limit": "201"},
        {"limit": "-1"},
        {"cursor": "x"},
        {"cursor": "2026-01-01,t"},
    ],
)
async def test_other_questions_are_refused_by_name(client: Any, query: dict[str, str]) -> None:
    answer = await client.get("/api/v1/decisions", params=query)
    assert answer.status in (400, 422)
    assert next(iter(query)) in (await answer.json())["detail"]
