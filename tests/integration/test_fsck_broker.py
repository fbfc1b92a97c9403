"""fsck compares what a real broker holds with the ledger."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest_asyncio

from agent2389.broker.address import parse_broker_url
from agent2389.broker.local import local_broker
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection, Message
from agent2389.ledger.inspection import Problem, RetainedTopic
from agent2389.proving.fsck import inspect
from agent2389.proving.retained import read_retained
from agent2389.wire.topics import MeshTopics
from tests.support.waiting import until

TOPICS = MeshTopics("default")


class Rows:
    """A ledger with nothing but these board rows."""

    tenant = "default"

    def __init__(self, *rows: RetainedTopic) -> None:
        self.rows = rows

    async def problems(self) -> Sequence[Problem]:
        return ()

    async def retained(self) -> Sequence[RetainedTopic]:
        return self.rows

    async def repair(self) -> dict[str, int]:
        return {"jobs_recounted": 0}


@pytest_asyncio.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    async with local_broker(tmp_path) as running:
        broker = MqttBroker(parse_broker_url(running.url))
        connection = await broker.connect("fsck-test")
        await connection.wait_connected(10)
        yield connection
        await broker.close()


def row(job_id: str, age: float = 200.0) -> RetainedTopic:
    return RetainedTopic("result", (job_id,), f'{{"job_id":"{job_id}"}}', age)


async def hold(connection: Connection, *job_ids: str, payload: bytes | None = None) -> None:
    for job_id in job_ids:
        body = payload or row(job_id).payload.encode()
        await connection.publish(Message(TOPICS.result(job_id), body, retain=True))


async def test_a_broker_that_holds_the_board_is_clean(connection: Connection) -> None:
    await hold(connection, "a", "b")
    report = await inspect(Rows(row("a"), row("b")), connection)
    assert (report.violations, report.settling) == ((), ())
    assert "I13" not in report.not_checked


async def test_what_is_missing_other_or_stray_is_a_violation_once_it_is_old(connection: Connection) -> None:
    await hold(connection, "other", "stray", payload=b'{"job_id":"x"}')
    report = await inspect(Rows(row("missing"), row("other"), row("young", 5.0)), connection)
    assert {(item.subject.rpartition("/")[2], item.message) for item in report.violations} == {
        ("missing", "is missing on the broker"),
        ("other", "shows something else than the ledger"),
        ("stray", "is retained on the broker and not in the ledger"),
    }
    assert [item.subject for item in report.settling] == [TOPICS.result("young")]


async def test_repair_clears_what_the_ledger_does_not_know(connection: Connection) -> None:
    await hold(connection, "a", "stray")
    report = await inspect(Rows(row("a")), connection, repair=True)
    assert report.repaired == {"jobs_recounted": 0, "stray_topics_cleared": 1}
    assert report.is_clean

    async def is_cleared() -> bool:
        return list(await read_retained(connection, "default")) == [TOPICS.result("a")]

    await until(is_cleared)


async def test_more_than_a_short_queue_holds_is_read(connection: Connection) -> None:
    names = [f"job-{number}" for number in range(1500)]
    await hold(connection, *names)
    assert (await inspect(Rows(*map(row, names)), connection)).is_clean
