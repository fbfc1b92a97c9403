"""The conformance kit: a correct stand-in passes everything, a broken one fails exactly what it breaks."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent2389.broker.address import parse_broker_url
from agent2389.broker.local import local_broker
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection
from agent2389.proving.conformance.report import Report, Verdict
from agent2389.proving.conformance.requirements import REQUIREMENTS
from agent2389.proving.conformance.run import Plan, run
from agent2389.telemetry import children
from tests.support.stand_in import FAULTS, REFERENCE
from tests.support.structure import ROOT

MORE_FAULTS = [
    ("FR-003", "unavailable-not-retained"),
    ("FR-010", "duplicate-is-an-error"),
    ("FR-014", "topic-not-compared"),
    ("NFR-004", "any-host"),
]
AT_ONCE = 10

pytestmark = pytest.mark.timeout(400)  # the first test waits for all runs


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    environ = {"AGENT2389_LOCAL_BROKER": "mosquitto"}
    async with local_broker(folder, port=children.free_port(), environ=environ) as running:
        yield running.url


async def judged(url: str, *faults: str, strict: bool = True, started: bool = True) -> Report:
    agent = f"standin-{uuid.uuid4().hex[:8]}"
    words = [sys.executable, "-m", "tests.support.stand_in", "--agent", agent]
    for fault in faults:
        words += ["--fault", fault]
    broker = MqttBroker(parse_broker_url(url))

    async def connect() -> Connection:
        connection = await broker.connect(f"kit-{uuid.uuid4().hex[:8]}")
        await connection.wait_connected(5)
        return connection

    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    plan = Plan(
        agent_id=agent,
        broker=parse_broker_url(url),
        strict=strict,
        timeout=3.0 if faults else 10.0,
        start=" ".join(words) if started else None,
        environ=environ,
    )
    process = None
    try:
        if not started:
            environ["MQTT_BROKER_URL"] = url
            process = await children.start(words, Path(os.devnull), environ=environ)
        return await run(plan, connect)
    finally:
        if process is not None:
            await children.stop(process)
        await broker.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reports(broker_url: str) -> dict[str, Report]:
    """One report for each fault; several at a time, for a run waits more than it works."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(fault: str) -> tuple[str, Report]:
        async with free:
            return fault, await judged(broker_url, fault)

    faults = [*FAULTS.values(), *(fault for _, fault in MORE_FAULTS)]
    return dict(await asyncio.gather(*map(one, faults)))


def told(report: Report) -> str:
    return "\n".join(f"{item.id} {item.verdict} {item.evidence}" for item in report.requirements)


def test_every_requirement_has_a_check_and_a_broken_stand_in() -> None:
    expected = {f"FR-{number:03}" for number in range(1, 15)}
    expected |= {f"NFR-{number:03}" for number in range(1, 6)} | {"RULE-001", "RULE-002", "RULE-003"}
    assert set(REQUIREMENTS) == expected
    assert set(FAULTS) == expected
    assert all(item.sentence for item in REQUIREMENTS.values())


@pytest.mark.asyncio(loop_scope="module")
async def test_a_correct_stand_in_passes_everything(broker_url: str) -> None:
    report = await judged(broker_url)
    assert report.with_verdict(Verdict.PASS) == tuple(sorted(REQUIREMENTS)), told(report)


@pytest.mark.parametrize(("id_", "fault"), [*FAULTS.items(), *MORE_FAULTS], ids=lambda value: value)
def test_a_broken_stand_in_fails_exactly_that(reports: dict[str, Report], id_: str, fault: str) -> None:
    report = reports[fault]
    assert report.with_verdict(Verdict.FAIL) == (id_,), told(report)
    assert report.with_verdict(Verdict.NOT_OBSERVED) == (), told(report)


@pytest.mark.asyncio(loop_scope="module")
async def test_known_deviations_are_tolerated_when_lenient_and_named_when_strict(broker_url: str) -> None:
    lenient = await judged(broker_url, *REFERENCE, strict=False)
    assert lenient.with_verdict(Verdict.FAIL) == (), told(lenient)
    strict = await judged(broker_url, *REFERENCE)
    assert strict.with_verdict(Verdict.FAIL) == ("FR-003", "FR-010", "FR-011", "FR-013", "FR-014", "RULE-003")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_agent_that_runs_already_is_judged_as_far_as_it_shows(broker_url: str) -> None:
    report = await judged(broker_url, started=False)
    assert report.with_verdict(Verdict.FAIL) == (), told(report)
    unseen = ("FR-002", "FR-003", "FR-004", "FR-005", "FR-009", "NFR-001", "NFR-004")
    assert report.with_verdict(Verdict.NOT_OBSERVED) == unseen, told(report)
