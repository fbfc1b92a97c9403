"""The real broker: aiomqtt connections that come back by themselves."""

import asyncio
import contextlib
import logging
import math
import random
import re
import socket
import time

import structlog

from agent2389.broker.address import BrokerAddress
from agent2389.broker.clients import MqttConnectError, aiomqtt, paho
from agent2389.broker.dispatch import dispatch, refuse_unsendable
from agent2389.broker.mqtt_client import CheckedClient, read_properties, subscribe_options
from agent2389.broker.port import (
    Connection,
    ConnectionState,
    Delivery,
    Handler,
    Hook,
    Message,
    PublishRefused,
)
from agent2389.broker.troubles import explain
from agent2389.errors import Agent2389Error, Unreachable

KEEPALIVE_SECONDS = 30
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 2.0
"""A broker that closes or stays silent this long after a version 5 CONNECT speaks 3.1.1 only."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
STEADY_SECONDS = 5.0
"""A connection that stood this long was a good one: its loss begins the back-off anew."""
TAKEN_OVER_PAUSE = 60.0
REFUSAL_SECONDS = 60.0
"""How long a refused publish is told by health."""
_NO_DELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
_TAKEN_OVER = 0x8E
_WRONG_VERSION = (1, 0x84)

log = structlog.get_logger(__name__)
# One line for every publish above ten pending ones: 3.3 MB in a 40 s run (measured). What ends a connection
# is told by the connection.
_quiet = logging.getLogger("agent2389.broker.aiomqtt")
_quiet.setLevel(logging.CRITICAL)


class MqttBroker:
    """``broker.port.Broker`` on a real broker, MQTT 5 where it is spoken, 3.1.1 otherwise."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._tls = address.tls_context()
        self._connections: list[MqttConnection] = []
        self.version5 = True
        self.settled = False
        """Whether a connection was complete once: the version is known then, a later failure says nothing."""

        self.told = ""
        """The last failure that was logged, empty since a connection was complete."""

    async def connect(
        self, client_id: str, *, will: Message | None = None, manual_acknowledgement: bool = False
    ) -> Connection:
        """Start a connection in the background and return at once."""
        connection = MqttConnection(self, client_id, will, manual=manual_acknowledgement)
        connection.start()
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Disconnect all, in the reverse order of opening."""
        for connection in reversed(self._connections):
            await connection.stop()
        self._connections.clear()

    def tell(self, reason: str, client_id: str, *, was_connected: bool) -> None:
        """Log why a connection ended; all connections fail for the same reason again and again: once."""
        if was_connected:
            log.warning("broker connection lost", client_id=client_id, reason=reason)
        elif reason != self.told:
            self.told = reason
            trouble = explain(reason, tls=self._address.tls)
            write = log.error if trouble.lasting else log.warning
            write(trouble.what, broker=str(self._address), reason=reason, hint=trouble.hint)

    def new_client(self, client_id: str, will: Message | None) -> CheckedClient:
        """A client for one connection, never used twice."""
        return CheckedClient(
            self._address.host,
            self._address.port,
            identifier=client_id,
            username=self._address.username,
            password=self._address.password,
            tls_context=self._tls,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain) if will else None,
            protocol=aiomqtt.ProtocolVersion.V5 if self.version5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self.version5 else True,
            clean_start=True if self.version5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            keepalive=KEEPALIVE_SECONDS,
            timeout=PROBE_SECONDS if self.version5 else CONNECT_SECONDS,
            socket_options=_NO_DELAY,
            logger=_quiet,
        )


class MqttConnection:
    """``broker.port.Connection``: one task that connects, subscribes, delivers, and starts over."""

    def __init__(self, broker: MqttBroker, client_id: str, will: Message | None, *, manual: bool) -> None:
        self._broker = broker
        self._client_id = client_id
        self._will = will
        self._manual = manual
        self._routes: dict[str, tuple[Handler, int]] = {}
        self._hooks: list[Hook] = []
        self._client: CheckedClient | None = None
        self._last_settled: CheckedClient | None = None
        self._ready = asyncio.Event()
        self._reconnects = -1
        self._last_error: str | None = None
        self._refusal = ("", -math.inf)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    # port ------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """A snapshot for health."""
        seen = self._reconnects >= 0
        return ConnectionState(
            connected=self._ready.is_set(),
            protocol=("5" if self._broker.version5 else "3.1.1") if seen else "",
            reconnects=max(self._reconnects, 0),
            last_error=self._last_error,
            refusal=self._recent_refusal(),
        )

    async def publish(self, message: Message) -> None:
        """Send and wait for the PUBACK of QoS 1."""
        refuse_unsendable(message)
        client = self._client
        if client is None:
            raise Unreachable("broker", self._last_error or "not connected to the broker")
        try:
            await client.send(message, version5=self._broker.version5)
        except PublishRefused as refused:
            if refused.may_pass:
                self._refusal = (str(refused), time.monotonic())
            raise

    async def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1) -> None:
        """Route ``topic_filter`` to ``handler``, now and after every reconnect."""
        self._routes[topic_filter] = (handler, qos)
        if self._client is not None:
            await self._subscribe(self._client, topic_filter, qos)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Stop routing ``topic_filter``."""
        if self._routes.pop(topic_filter, None) is not None and self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.unsubscribe(topic_filter)

    async def resubscribe(self, topic_filter: str) -> None:
        """Subscribe again, so that retained messages come again."""
        if topic_filter in self._routes and self._client is not None:
            await self._subscribe(self._client, topic_filter, self._routes[topic_filter][1])

    def _recent_refusal(self) -> str | None:
        reason, at = self._refusal
        return reason if time.monotonic() - at < REFUSAL_SECONDS else None

    def on_connected(self, hook: Hook) -> None:
        """Run ``hook`` after each (re)connection."""
        self._hooks.append(hook)

    async def wait_connected(self, timeout: float) -> None:
        """Return once connected and subscribed."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            raise Unreachable(
                "broker",
                f"no connection within {timeout:g} s: {self._last_error or 'no answer'}",
                hint="check MQTT_BROKER_URL and the broker",
            ) from None

    # life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"mqtt-{self._client_id}")

    async def stop(self) -> None:
        """Disconnect in an orderly way and end the task."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            client = self._broker.new_client(self._client_id, self._will)
            started = asyncio.get_running_loop().time()
            failure: BaseException = RuntimeError("the connection ended")
            try:
                await self._live(client)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                failure = error
            except ExceptionGroup as group:
                failure = group.exceptions[0]
                if not isinstance(failure, aiomqtt.MqttError | OSError):
                    raise
            finally:
                self._ready.clear()
                self._client = None
                client.fail_pending("the connection to the broker was lost")
            if self._stopping:
                # A disconnect that fails replaces the cancellation that asked for it.
                return
            lived = asyncio.get_running_loop().time() - started
            cause = _cause(failure)
            self._last_error = _plain(cause)
            if self._speaks_old(failure, lived):
                log.info("broker speaks MQTT 3.1.1", client_id=self._client_id)
                self._broker.version5 = False
                continue
            pause = FIRST_PAUSE if lived > STEADY_SECONDS else min(pause * 2, LONGEST_PAUSE)
            if _number(getattr(cause, "rc", None)) == _TAKEN_OVER:
                log.error("another process uses this client id", client_id=self._client_id)
                pause = TAKEN_OVER_PAUSE
            self._broker.tell(self._last_error, self._client_id, was_connected=client is self._last_settled)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter

    async def _live(self, client: CheckedClient) -> None:
        if self._manual:
            client.acknowledge_by_hand()
        async with client:
            client.timeout = CONNECT_SECONDS
            async with asyncio.TaskGroup() as group:
                # Subscriptions must see deliveries, hooks may wait for them: so both run beside the reader.
                settle = group.create_task(self._settle(client))
                try:
                    await self._read(client)
                finally:
                    settle.cancel()

    async def _settle(self, client: CheckedClient) -> None:
        self._last_error = None
        for topic_filter, (_, qos) in list(self._routes.items()):
            await self._subscribe(client, topic_filter, qos)
        self._client = self._last_settled = client
        self._broker.settled = True
        self._broker.told = ""
        self._reconnects += 1
        for topic_filter, (_, qos) in list(self._routes.items()):
            if topic_filter not in client.granted:
                await self._subscribe(client, topic_filter, qos)
        for hook in self._hooks:
            try:
                await hook()
            except Agent2389Error as error:
                log.warning("a step after connecting failed", reason=str(error))
            except Exception:
                # A bug in one step must not end the connection for good.
                log.exception("a step after connecting failed", client_id=self._client_id)
        if not client.is_over:
            self._ready.set()

    async def _subscribe(self, client: CheckedClient, topic_filter: str, qos: int) -> None:
        options = subscribe_options(qos, version5=self._broker.version5)
        try:
            codes = await client.subscribe(topic_filter, **options)
        except aiomqtt.MqttError as error:
            # Without its SUBACK this connection could stay deaf: the next one subscribes again.
            self._last_error = _plain(error)
            client.give_up()
            return
        client.granted.add(topic_filter)
        if any(_number(code) >= 0x80 for code in codes):
            self._last_error = f"the broker refuses the subscription to {topic_filter}"
            log.error("subscription refused", filter=topic_filter)

    async def _read(self, client: CheckedClient) -> None:
        async for message in client.messages:
            topic = message.topic.value
            delivery = Delivery(
                topic=topic,
                payload=message.payload,
                qos=message.qos,
                retained=message.retain,
                properties=read_properties(message.properties),
                acknowledge=_acknowledge(client, message.mid, message.qos) if self._manual else _nothing,
            )
            await dispatch(self._routes, delivery)

    def _speaks_old(self, failure: BaseException, lived: float) -> bool:
        if not self._broker.version5 or self._broker.settled:
            return False
        if isinstance(failure, MqttConnectError):
            return _number(failure.rc) in _WRONG_VERSION
        timed_out = "timed out" in str(failure) and lived >= PROBE_SECONDS
        return timed_out or (isinstance(failure, aiomqtt.MqttCodeError) and lived < PROBE_SECONDS)


def _acknowledge(client: CheckedClient, mid: int, qos: int) -> Hook:
    async def acknowledge() -> None:
        client.acknowledge(mid, qos)

    return acknowledge


async def _nothing() -> None:
    """Automatic acknowledgement: there is nothing left to do."""


def _cause(failure: BaseException) -> BaseException:
    """What ended a connection; aiomqtt chains the broker's reason below a general message."""
    return failure.__cause__ if isinstance(failure.__cause__, aiomqtt.MqttError) else failure


def _number(code: object) -> int:
    """A reason code as a number, whether paho gave a ReasonCode or an int; 0 for neither."""
    value = getattr(code, "value", code)
    return value if isinstance(value, int) else 0


def _plain(error: BaseException) -> str:
    return re.sub(r"^\[code:\d+\] ", "", str(error)).strip() or type(error).__name__
