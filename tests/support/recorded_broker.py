"""A connection that remembers what was published and hands over what a test sends."""

from agent2389.broker.port import (
    Connection,
    ConnectionState,
    Delivery,
    Handler,
    Hook,
    Message,
    Properties,
    PublishRefused,
)
from agent2389.errors import Unreachable

NO_PROPERTIES = Properties()


class RecordedConnection(Connection):
    """Connected unless ``away``; ``refused`` topics answer with an error code."""

    def __init__(self) -> None:
        self.away = False
        self.refused: set[str] = set()
        self.published: list[Message] = []
        self.handlers: dict[str, Handler] = {}
        self.resubscribed: list[str] = []
        self.acknowledged = 0

    @property
    def state(self) -> ConnectionState:
        return ConnectionState(not self.away, "5", 0)

    async def publish(self, message: Message) -> None:
        if self.away:
            raise Unreachable("broker", "not connected")
        if message.topic in self.refused:
            raise PublishRefused("not authorised", may_pass=True)
        self.published.append(message)

    async def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1) -> None:
        self.handlers[topic_filter] = handler

    async def unsubscribe(self, topic_filter: str) -> None:
        self.handlers.pop(topic_filter, None)

    async def resubscribe(self, topic_filter: str) -> None:
        self.resubscribed.append(topic_filter)

    def on_connected(self, hook: Hook) -> None:
        raise NotImplementedError

    async def wait_connected(self, timeout: float) -> None:
        raise NotImplementedError

    def on(self, topic: str) -> list[bytes]:
        """Payloads published on ``topic``, in order."""
        return [message.payload for message in self.published if message.topic == topic]

    def delivery(
        self, topic: str, payload: bytes, *, retained: bool = False, properties: Properties = NO_PROPERTIES
    ) -> Delivery:
        """A message as a handler gets it; acknowledging it is counted."""

        async def acknowledge() -> None:
            self.acknowledged += 1

        return Delivery(topic, payload, 1, retained, properties, acknowledge)
