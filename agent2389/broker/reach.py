"""Whether a broker lets us in and gives us our rights: one CONNECT, and one message to ourselves."""

import asyncio

from agent2389.broker.address import BrokerAddress
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection, Delivery, Message, PublishRefused
from agent2389.broker.troubles import explain
from agent2389.errors import NotAllowed, Unreachable
from agent2389.wire.names import new_uuid7

ECHO_SECONDS = 2.0
_LOOK_SECONDS = 0.1


async def reach(address: BrokerAddress, *, seconds: float = 5.0, probe: str | None = None) -> None:
    """Return once connected and, with ``probe``, once a message on that topic came back to us.

    ``probe`` is a topic that only the login's owner may use; the message is not retained.
    Raises ``NotAllowed`` (login, rights), ``Unreachable``, ``ConfigurationError`` (TLS files).
    """
    broker = MqttBroker(address)
    try:
        connection = await broker.connect(f"probe-{new_uuid7()}")
        await _connected(connection, address, seconds)
        if probe is not None:
            await echo(connection, probe)
    finally:
        await broker.close()


async def echo(connection: Connection, topic: str, *, seconds: float = ECHO_SECONDS) -> None:
    """Publish a nonce and read it back: a denied subscription or publish shows no error otherwise.

    Raises ``NotAllowed`` when it does not come, ``Unreachable`` when the connection goes meanwhile.
    """
    before = connection.state.reconnects
    nonce = new_uuid7().encode()
    heard = asyncio.Event()

    async def on_probe(delivery: Delivery) -> None:
        if delivery.payload == nonce:
            heard.set()

    await connection.subscribe(topic, on_probe)
    try:
        await connection.publish(Message(topic, nonce))
        async with asyncio.timeout(seconds):
            await heard.wait()
    except PublishRefused as refused:
        raise NotAllowed(f"the broker's rights do not fit: {refused}", hint=_RIGHTS) from None
    except TimeoutError:
        if not connection.state.connected or connection.state.reconnects != before:
            raise Unreachable("broker", "the connection to the broker was lost") from None
        raise NotAllowed(
            f"the broker does not deliver to us what we publish on {topic}", hint=_RIGHTS
        ) from None
    finally:
        await connection.unsubscribe(topic)


_RIGHTS = "log in as this agent's own login; its rights are those that `agent2389 broker acl` prints"


async def _connected(connection: Connection, address: BrokerAddress, seconds: float) -> None:
    """Wait, but not for what will not change by itself."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            await connection.wait_connected(_LOOK_SECONDS)
            return
        except Unreachable:
            reason = connection.state.last_error
        trouble = explain(reason or "no answer", tls=address.tls)
        if not (reason and trouble.lasting) and asyncio.get_running_loop().time() < deadline:
            continue
        text = f"{trouble.what}: {reason or 'no answer'} ({address})"
        if trouble.refused_login:
            raise NotAllowed(text, hint=trouble.hint)
        raise Unreachable("broker", text, hint=trouble.hint)
