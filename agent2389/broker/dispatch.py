"""What every adapter does alike with a message on its way out and a delivery on its way in."""

from collections.abc import Mapping

import structlog

from agent2389.broker.filters import matches
from agent2389.broker.port import Delivery, Handler, Message, PublishRefused

MAX_PAYLOAD = 262_144

Routes = Mapping[str, tuple[Handler, int]]
"""Handler and QoS by topic filter."""

log = structlog.get_logger(__name__)


def refuse_unsendable(message: Message) -> None:
    """Raise ``PublishRefused`` for what no broker takes, before a byte of it is sent.

    An empty topic would end an MQTT 5 connection with all that others wait for on it (measured).
    """
    if len(message.payload) > MAX_PAYLOAD:
        raise PublishRefused(
            f"{len(message.payload)} bytes are more than the {MAX_PAYLOAD} of a message",
            hint="send large values as blobs",
        )
    if not message.topic or any(character in message.topic for character in "+#\x00"):
        raise PublishRefused(
            f"{message.topic!r} is not a topic that can be published to",
            hint="name one topic, without wildcards",
        )


async def dispatch(routes: Routes, delivery: Delivery) -> None:
    """Hand ``delivery`` to the handlers of all filters it matches, one after the other.

    What nobody wants any more is acknowledged here: twenty such messages would block every later
    one of a connection with manual acknowledgement (measured).
    """
    wanted = [
        handler for topic_filter, (handler, _) in routes.items() if matches(topic_filter, delivery.topic)
    ]
    if not wanted:
        await delivery.acknowledge()
    for handler in wanted:
        try:
            await handler(delivery)
        except Exception:
            # One bad message must not end the connection that carries all others.
            log.exception("handler failed", topic=delivery.topic)
