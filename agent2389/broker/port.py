"""What the rest of the house may ask of an MQTT broker."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from agent2389.errors import Agent2389Error


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """MQTT 5 properties; lost without harm on 3.1.1 because each has a JSON field too."""

    response_topic: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    user: tuple[tuple[str, str], ...] = ()


class Message(msgspec.Struct, frozen=True):
    """One message to publish; an empty payload with ``retain`` clears the topic."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    properties: Properties = Properties()


class Delivery(msgspec.Struct, frozen=True):
    """One message received; ``acknowledge`` does something on manual connections only."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    properties: Properties
    acknowledge: Callable[[], Awaitable[None]]


Handler = Callable[[Delivery], Awaitable[None]]
Hook = Callable[[], Awaitable[None]]


class ConnectionState(msgspec.Struct, frozen=True):
    """What /health tells of a connection: ``protocol`` is ``5``, ``3.1.1`` or empty before the first one.

    ``refusal`` is why the broker refused a publish in the last minute (rights, a quota).
    """

    connected: bool
    protocol: str
    reconnects: int
    last_error: str | None = None
    refusal: str | None = None


class PublishRefused(Agent2389Error):
    """The broker answered a publish with an error code (an ACL, a size, a quota).

    ``may_pass``: the same message may be taken later, when rights or room have come back.
    """

    exit_code = 4

    def __init__(self, message: str, *, hint: str | None = None, may_pass: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.may_pass = may_pass


class Connection(Protocol):
    """One MQTT connection that comes back by itself.

    Each (re)connection uses a new client object; what was not acknowledged is
    dropped there and made again from board and outbox (a reused client re-sends a
    stale clear and wipes a newer retained message: measured).
    Handlers of one connection run one after the other, in arrival order.
    """

    @property
    def state(self) -> ConnectionState:
        """A snapshot for health."""
        ...

    async def publish(self, message: Message) -> None:
        """Send and, for QoS 1, wait for the PUBACK.

        Raises ``Unreachable`` while disconnected or when no PUBACK came, and
        ``PublishRefused`` when the reason code is an error or the payload is over 256 KiB.
        """
        ...

    async def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1) -> None:
        """Route deliveries of ``topic_filter`` to ``handler``, now (waits for the SUBACK when
        connected) and after every reconnect.
        """
        ...

    async def unsubscribe(self, topic_filter: str) -> None:
        """Stop; unknown filters are ignored."""
        ...

    async def resubscribe(self, topic_filter: str) -> None:
        """Subscribe again to receive the retained messages that a full queue dropped."""
        ...

    def on_connected(self, hook: Hook) -> None:
        """Run ``hook`` after every (re)connection, after all subscriptions were granted."""
        ...

    async def wait_connected(self, timeout: float) -> None:
        """Return once connected and subscribed, or raise ``Unreachable`` after ``timeout`` seconds."""
        ...


class Broker(Protocol):
    """Opens connections to one broker."""

    async def connect(
        self, client_id: str, *, will: Message | None = None, manual_acknowledgement: bool = False
    ) -> Connection:
        """Start a connection in the background and return at once; it keeps trying."""
        ...

    async def close(self) -> None:
        """Disconnect all connections in an orderly way (no will is published)."""
        ...
