"""How a connection takes a broker's rarer answers, and a bug in its own process."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from agent2389.broker import mqtt
from agent2389.broker.address import parse_broker_url
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.mqtt_client import CheckedClient
from agent2389.broker.port import Delivery, Message, PublishRefused
from tests.support.scripted_broker import (
    CONNACK,
    CONNECT,
    OLD_CONNACK,
    SUBSCRIBE,
    TAKEN_OVER,
    WRONG_VERSION,
    granted,
    scripted_broker,
)
from tests.support.waiting import until


async def ignore(delivery: Delivery) -> None:
    """A handler for filters that nothing is published on."""


def willing(number: int, kind: int, body: bytes) -> bytes:
    return {CONNECT: CONNACK, SUBSCRIBE: granted(body)}.get(kind, b"")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with scripted_broker(willing) as url:
        yield url


async def test_a_session_taken_over_is_said_and_waited_out() -> None:
    connects = 0

    def answer(number: int, kind: int, body: bytes) -> bytes:
        nonlocal connects
        connects += kind == CONNECT
        return CONNACK if kind == CONNECT else granted(body) + TAKEN_OVER

    async with scripted_broker(answer) as url:
        broker = MqttBroker(parse_broker_url(url))
        connection = await broker.connect("twice")
        await connection.wait_connected(5)
        with capture_logs() as logs:
            await connection.subscribe("a", ignore)
            await until(lambda: any("another process" in entry["event"] for entry in logs))
        assert "taken over" in (connection.state.last_error or "")
        assert (connection.state.connected, connects) == (False, 1)
        await broker.close()


async def test_a_subscription_without_answer_is_made_again_on_a_new_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "CONNECT_SECONDS", 0.2)

    def answer(number: int, kind: int, body: bytes) -> bytes:
        if kind == SUBSCRIBE and number == 1:
            return b""
        return willing(number, kind, body)

    async with scripted_broker(answer) as url:
        broker = MqttBroker(parse_broker_url(url))
        connection = await broker.connect("deaf")
        await connection.subscribe("a", ignore)
        await until(lambda: connection.state.connected and connection.state.reconnects > 0)
        await broker.close()


async def test_a_refused_subscription_stays_visible() -> None:
    def answer(number: int, kind: int, body: bytes) -> bytes:
        return CONNACK if kind == CONNECT else granted(body, 0x87)

    async with scripted_broker(answer) as url:
        broker = MqttBroker(parse_broker_url(url))
        connection = await broker.connect("denied")
        await connection.subscribe("secret/#", ignore)
        await connection.wait_connected(5)
        assert connection.state.last_error == "the broker refuses the subscription to secret/#"
        await broker.close()


async def test_a_bug_in_a_step_after_connecting_does_not_end_the_connection(url: str) -> None:
    broker = MqttBroker(parse_broker_url(url))
    connection = await broker.connect("buggy")

    async def step() -> None:
        raise ValueError("a bug")

    connection.on_connected(step)
    with capture_logs() as logs:
        await connection.wait_connected(5)
    assert connection.state.connected
    assert [entry["log_level"] for entry in logs if "step after" in entry["event"]] == ["error"]
    await broker.close()


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\x00b"])
async def test_a_topic_nobody_can_publish_to_is_refused_and_harms_nothing(url: str, topic: str) -> None:
    broker = MqttBroker(parse_broker_url(url))
    connection = await broker.connect("c")
    await connection.wait_connected(5)
    with pytest.raises(PublishRefused, match="not a topic"):
        await connection.publish(Message(topic, b"x", qos=0))
    assert connection.state.connected
    await broker.close()


async def test_a_broker_that_refuses_version_5_is_spoken_to_in_3_1_1() -> None:
    def answer(number: int, kind: int, body: bytes) -> bytes:
        return WRONG_VERSION if number == 1 else OLD_CONNACK

    async with scripted_broker(answer) as url:
        broker = MqttBroker(parse_broker_url(url))
        connection = await broker.connect("c")
        await connection.wait_connected(5)
        assert connection.state.protocol == "3.1.1"
        await broker.close()


async def test_a_broker_that_was_understood_once_is_not_taken_for_an_old_one() -> None:
    def answer(number: int, kind: int, body: bytes) -> bytes:
        return WRONG_VERSION if number == 2 else CONNACK

    async with scripted_broker(answer) as url:
        broker = MqttBroker(parse_broker_url(url))
        await (await broker.connect("first")).wait_connected(5)
        second = await broker.connect("second")
        await second.wait_connected(5)
        assert second.state.protocol == "5"
        await broker.close()


async def test_a_socket_that_was_closed_meanwhile_is_not_watched() -> None:
    """Its number may belong to somebody else by then."""
    client = CheckedClient("127.0.0.1")
    ours, theirs = socket.socketpair()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    client._on_socket_register_write(None, None, ours)
    ours.close()
    await asyncio.sleep(0)
    theirs.close()
    assert complaints == []
