"""One aiomqtt client that tells what the broker answered to each publish."""

import asyncio
from typing import Any

from agent2389.broker.clients import (
    PacketTypes,
    PahoProperties,
    ReasonCode,
    SubscribeOptions,
    aiomqtt,
    paho,
)
from agent2389.broker.port import Message, Properties, PublishRefused
from agent2389.errors import Unreachable

ACKNOWLEDGE_SECONDS = 10.0
_MAY_PASS = (0x80, 0x83, 0x87, 0x97)
"""Reason codes that rights or room on the broker may end: unspecified, implementation, not authorised, quota."""


class CheckedClient(aiomqtt.Client):
    """Used for exactly one connection.

    aiomqtt ignores the reason code of a PUBACK, so that a publish which an ACL denied looks
    successful (measured); this client keeps it.
    """

    _answers: dict[int, asyncio.Future[ReasonCode]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answers = {}
        self.granted: set[str] = set()

    def acknowledge_by_hand(self) -> None:
        """PUBACKs are sent by ``acknowledge`` only."""
        self._client.manual_ack_set(True)

    def acknowledge(self, mid: int, qos: int) -> None:
        """Send the PUBACK of a received message; of a dead connection it is nobody's business."""
        if not self.is_over:
            self._client.ack(mid, qos)

    def give_up(self) -> None:
        """End this connection, whatever state it is in."""
        if not self.is_over:
            self._client.disconnect()

    @property
    def is_over(self) -> bool:
        """Whether the connection ended."""
        return self._disconnected.done()

    async def send(self, message: Message, *, version5: bool) -> None:
        """Publish and wait for the answer of a QoS 1 message.

        Raises ``PublishRefused`` for an error code, ``Unreachable`` otherwise.
        """
        info = self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            _paho_properties(message.properties) if version5 else None,
        )
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise Unreachable("broker", f"publish failed: {paho.error_string(info.rc)}")
        if message.qos == 0:
            return
        answer: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._answers[info.mid] = answer
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                code = await answer
        except TimeoutError:
            raise Unreachable("broker", "the broker did not acknowledge a publish") from None
        finally:
            self._answers.pop(info.mid, None)
        if code.is_failure:
            raise PublishRefused(
                f"the broker refuses to publish on {message.topic}: {code}",
                hint="give the login this right (compare `agent2389 broker acl`), or raise the broker's limits",
                may_pass=code.value in _MAY_PASS,
            )

    def fail_pending(self, reason: str) -> None:
        """The connection is gone: nobody will answer any more."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unreachable("broker", reason))

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Any
    ) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """Watch the socket if it is still open by then.

        aiomqtt keeps its number, and that may be nobody's or somebody else's once a broker died
        (measured: a traceback at every second kill).
        """

        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends this connection
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def watch() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock, write)

        self._loop.call_soon_threadsafe(watch)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        # After a CONNECT that nobody answered in time aiomqtt fails here, with a traceback on the terminal.
        if not self._connected.cancelled():
            super()._on_disconnect(client, userdata, flags, reason_code, properties)


def subscribe_options(qos: int, *, version5: bool) -> dict[str, Any]:
    """Options of a SUBSCRIBE; Retain-As-Published tells retained messages on live deliveries too."""
    if not version5:
        return {"qos": qos}
    return {"options": SubscribeOptions(qos=qos, retainAsPublished=True)}


def read_properties(properties: Any) -> Properties:
    """The properties we use of a received message."""
    if properties is None:
        return Properties()
    return Properties(
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", None),
        content_type=getattr(properties, "ContentType", None),
        user=tuple(tuple(pair) for pair in getattr(properties, "UserProperty", ())),
    )


def _paho_properties(properties: Properties) -> PahoProperties | None:
    if properties == Properties():
        return None
    made = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if properties.response_topic is not None:
        made.ResponseTopic = properties.response_topic
    if properties.correlation is not None:
        made.CorrelationData = properties.correlation
    if properties.content_type is not None:
        made.ContentType = properties.content_type
    if properties.user:
        made.UserProperty = list(properties.user)
    return made
