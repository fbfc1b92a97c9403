"""Reading what a broker retains, with an answer for "that was all"."""

import asyncio
import contextlib
from collections.abc import Sequence

from agent2389.broker.port import Connection, Delivery, Message
from agent2389.errors import Unreachable

ECHO_SECONDS = 5.0


async def heard(connection: Connection, filters: Sequence[str], probe: str) -> dict[str, bytes]:
    """Payloads by topic that the broker delivers for ``filters`` at once.

    A message of our own on the topic ``probe`` comes back after the stored ones, because a broker
    keeps the order of one client. Raises ``Unreachable`` when it does not: then nothing is known.
    Afterwards ``filters`` are not subscribed any more: nobody else may listen to them on ``connection``.
    """
    found: dict[str, bytes] = {}
    echoed = asyncio.Event()

    async def on_message(delivery: Delivery) -> None:
        if delivery.payload:
            found[delivery.topic] = delivery.payload
        else:
            found.pop(delivery.topic, None)

    async def on_probe(delivery: Delivery) -> None:  # noqa: ARG001 - the handler's signature
        echoed.set()

    try:
        await connection.subscribe(probe, on_probe, qos=0)
        for topic_filter in filters:
            await connection.subscribe(topic_filter, on_message, qos=0)
        await connection.publish(Message(probe, b"after", qos=0))
        async with asyncio.timeout(ECHO_SECONDS):
            await echoed.wait()
    except TimeoutError:
        raise Unreachable("broker", "the broker does not say what it retains") from None
    finally:
        for topic_filter in (*filters, probe):
            with contextlib.suppress(Unreachable):
                await connection.unsubscribe(topic_filter)
    return found
