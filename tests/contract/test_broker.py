"""What every broker connection promises; on Mosquitto (MQTT 5), the bundled broker (3.1.1) and in memory."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent2389.broker.local import local_broker
from agent2389.broker.port import Broker, Delivery, Message, Properties, PublishRefused
from agent2389.errors import Unreachable
from agent2389.telemetry import children
from tests.support.brokers import MemoryPlace, Place, RealPlace
from tests.support.waiting import until


def _has_mosquitto() -> bool:
    return (
        shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")) is not None
    )


KINDS = [
    pytest.param(
        "mosquitto", marks=pytest.mark.skipif(not _has_mosquitto(), reason="mosquitto is not installed")
    ),
    "nats",
    "memory",
]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return MemoryPlace() if request.param == "memory" else RealPlace(tmp_path, request.param)


@pytest.fixture(params=["default", "memory"])
def restarting(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A broker that dies and comes again; which real one makes no difference."""
    return MemoryPlace() if request.param == "memory" else RealPlace(tmp_path)


@pytest.fixture
async def server(place: Place) -> AsyncIterator[Place]:
    async with place.running():
        yield place


@pytest.fixture
async def broker(server: Place) -> AsyncIterator[Broker]:
    broker = server.client()
    yield broker
    await broker.close()


class Heard:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.deliveries]


async def test_retained_messages_come_to_later_subscribers_until_cleared(broker: Broker) -> None:
    writer = await broker.connect("writer")
    await writer.wait_connected(5)
    await writer.publish(Message("a/b", b"kept", retain=True))
    reader, heard = await broker.connect("reader"), Heard()
    await reader.subscribe("a/+", heard)
    await until(lambda: heard.payloads == [b"kept"])
    assert heard.deliveries[0].retained
    await writer.publish(Message("a/b", b"", retain=True))
    await until(lambda: heard.payloads == [b"kept", b""])
    late, nothing = await broker.connect("late"), Heard()
    await late.subscribe("a/+", nothing)
    await late.wait_connected(5)
    await writer.publish(Message("a/c", b"after"))
    await until(lambda: nothing.payloads == [b"after"])


async def test_a_leading_slash_is_a_level(broker: Broker) -> None:
    connection, with_slash, without = await broker.connect("c"), Heard(), Heard()
    await connection.subscribe("/control/#", with_slash)
    await connection.subscribe("control/#", without)
    await connection.wait_connected(5)
    await connection.publish(Message("/control/agents/x/input", b"1"))
    await until(lambda: with_slash.payloads == [b"1"])
    assert without.payloads == []


async def test_properties_travel_where_the_broker_has_them(broker: Broker) -> None:
    connection, heard = await broker.connect("c"), Heard()
    await connection.subscribe("p", heard)
    await connection.wait_connected(5)
    await connection.publish(Message("p", b"x", properties=Properties(response_topic="r", correlation=b"1")))
    await until(lambda: heard.payloads)
    expected = ("r", b"1") if connection.state.protocol == "5" else (None, None)
    properties = heard.deliveries[0].properties
    assert (properties.response_topic, properties.correlation) == expected


async def test_an_orderly_end_publishes_no_will_and_a_crash_does(server: Place, broker: Broker) -> None:
    watcher, heard = await broker.connect("watcher"), Heard()
    await watcher.subscribe("will/+", heard)
    await watcher.wait_connected(5)
    polite = server.client()
    connection = await polite.connect("polite", will=Message("will/polite", b"gone", retain=True))
    await connection.wait_connected(5)
    await polite.close()
    await server.die_connected(Message("will/rude", b"gone", retain=True))
    await until(lambda: heard.deliveries)
    assert [delivery.topic for delivery in heard.deliveries] == ["will/rude"]


async def test_what_is_not_acknowledged_by_hand_comes_again(broker: Broker) -> None:
    connection, heard = await broker.connect("by-hand", manual_acknowledgement=True), Heard()
    await connection.subscribe("work/+", heard)
    await connection.wait_connected(5)
    await connection.publish(Message("work/1", b"one", retain=True))
    await until(lambda: heard.payloads == [b"one"])
    again, second = await broker.connect("other-hand", manual_acknowledgement=True), Heard()
    await again.subscribe("work/+", second)
    await until(lambda: second.payloads == [b"one"])
    await second.deliveries[0].acknowledge()


async def test_too_large_is_refused_before_it_is_sent(broker: Broker) -> None:
    connection = await broker.connect("c")
    await connection.wait_connected(5)
    with pytest.raises(PublishRefused):
        await connection.publish(Message("big", b"x" * 262_145))
    await connection.publish(Message("small", b"x"))


async def test_a_failing_handler_does_not_end_the_connection(broker: Broker) -> None:
    connection, heard = await broker.connect("c"), Heard()

    async def fails(delivery: Delivery) -> None:
        await heard(delivery)
        raise RuntimeError("a bug")

    await connection.subscribe("t", fails)
    await connection.wait_connected(5)
    await connection.publish(Message("t", b"1"))
    await connection.publish(Message("t", b"2"))
    await until(lambda: heard.payloads == [b"1", b"2"])


async def test_it_comes_back_subscribes_again_and_then_runs_the_hooks(restarting: Place) -> None:
    order: list[str] = []
    broker = restarting.client()
    connection, heard = await broker.connect("c"), Heard()

    async def hook() -> None:
        order.append("connected")
        await connection.publish(Message("t", b"from the hook"))

    connection.on_connected(hook)
    await connection.subscribe("t", heard)
    with pytest.raises(Unreachable):
        await connection.publish(Message("t", b"too early"))
    for round_ in (1, 2):
        async with restarting.running():
            await until(lambda: len(heard.payloads) == round_, seconds=20)
            assert connection.state.connected
            if round_ == 1:
                await restarting.kill()
                await until(lambda: not connection.state.connected)
    assert (order, heard.payloads) == (["connected"] * 2, [b"from the hook"] * 2)
    await broker.close()


async def test_a_clear_that_was_not_sent_never_wipes_a_newer_message(restarting: Place) -> None:
    """A reused client re-sends its stale clear after a reconnect; a new client object does not."""
    broker = restarting.client()
    connection = await broker.connect("c")
    async with restarting.running():
        await connection.wait_connected(10)
        clear = asyncio.create_task(connection.publish(Message("jobs/1", b"", retain=True)))
        await restarting.freeze_and_kill()
        with pytest.raises(Unreachable):
            await clear
    async with restarting.running():
        other = restarting.client()
        writer, heard = await other.connect("writer"), Heard()
        await writer.wait_connected(5)
        await writer.publish(Message("jobs/1", b"attempt 2", retain=True))
        await connection.wait_connected(20)
        await writer.subscribe("jobs/1", heard)
        await until(lambda: heard.payloads == [b"attempt 2"])
        await other.close()
        await broker.close()


async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    from agent2389.errors import ConfigurationError

    async with local_broker(tmp_path / "one", port=children.free_port()) as running:
        with pytest.raises(ConfigurationError, match=str(running.port)):
            async with local_broker(tmp_path / "two", port=running.port):
                raise AssertionError("two brokers on one port")
