"""Transcripts in a real server that speaks MongoDB's protocol, and an agent that does not care whether it is there."""

import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import generate_latest
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from agent2389.config.model import AgentConfiguration, AgentSection, TranscriptsSection
from agent2389.errors import ConfigurationError
from agent2389.insight import transcript_sink
from agent2389.ledger.journal import Message
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import Claim
from agent2389.telemetry.metrics import Metrics
from agent2389.wiring.transcripts import transcript_sink as opened_sink
from tests.support.jobs import claim_one, join, new_job
from tests.support.real_servers import address_of

HOSTILE = '{"role": "tool", "text": "{\\"$where\\": \\"sleep(9)\\", \\"a.b\\": 1}", "n": 123456789012345678901234567890}'


@pytest.fixture
async def claim() -> Claim:
    ledger = MemoryLedger()
    await ledger.submit(new_job())
    return await claim_one(ledger, await join(ledger))


@pytest.fixture
async def database() -> AsyncIterator[tuple[str, str]]:
    """Address and a database of its own."""
    url, name = address_of("AGENT2389_TEST_MONGODB_URL"), f"test_{secrets.token_hex(6)}"
    yield url, name
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        await client.drop_database(name)


def agent(url: str, name: str = "agent2389") -> AgentConfiguration:
    section = TranscriptsSection(mongodb_url=SecretStr(url), mongodb_database=name)
    return AgentConfiguration(agent=AgentSection(id="r1"), transcripts=section)


async def test_messages_arrive_once_each(database: tuple[str, str], claim: Claim) -> None:
    url, name = database
    messages = [
        Message(step=0, slot=0, body='{"role": "user", "text": "grüße"}'),
        Message(step=1, slot=0, body=HOSTILE, kind="note"),
    ]
    for _ in range(2):
        async with opened_sink(agent(url, name), Metrics("0")) as sink:
            assert sink is not None
            sink.offer(claim, messages)
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        found = [row async for row in client[name]["transcripts"].find().sort("step")]
    assert [(row["step"], row["kind"], row["body"]) for row in found] == [
        (0, "turn", messages[0].body),
        (1, "note", HOSTILE),
    ]
    assert {row["job_id"] for row in found} == {"job-1"}
    assert {row["agent_id"] for row in found} == {"r1"}


async def test_a_server_that_is_away_costs_a_count_and_nothing_else(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_sink, "LAST_SECONDS", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    metrics = Metrics("0")
    async with opened_sink(agent(f"mongodb://127.0.0.1:{port}"), metrics) as sink:
        assert sink is not None
        sink.offer(claim, [Message(step=0, slot=0, body="{}")])
    assert (
        'agent2389_messages_dropped_total{reason="transcript_copy"} 1.0'
        in generate_latest(metrics.registry).decode()
    )


@pytest.mark.parametrize(
    ("url", "name"), [("http://canary-7f3a@x", "a"), ("mongodb://", "a"), ("mongodb://127.0.0.1", "a b$/")]
)
async def test_a_wrong_address_is_told_without_its_words(url: str, name: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        async with opened_sink(agent(url, name), Metrics("0")):
            pass
    assert "canary" not in f"{error.value} {error.value.hint}"


async def test_without_an_address_there_is_no_sink() -> None:
    async with opened_sink(AgentConfiguration(agent=AgentSection(id="r1")), Metrics("0")) as sink:
        assert sink is None
