"""The few MQTT packets that a requirement speaks about, read from the bytes of a connection."""

import asyncio
from enum import IntEnum

import msgspec

MOST_BYTES = 2 * 1024 * 1024
"""A packet larger than this is nobody's message here; reading it would only fill memory."""


class Kind(IntEnum):
    """Control packet types (MQTT 3.1.1, section 2.2.1)."""

    CONNECT = 1
    PUBLISH = 3
    SUBSCRIBE = 8
    SUBACK = 9
    DISCONNECT = 14


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of itself; ``level`` is 3 (MQTT 3.1), 4 (3.1.1) or 5."""

    level: int
    client_id: str
    will_topic: str | None = None
    will_payload: bytes = b""
    will_qos: int = 0
    will_retain: bool = False


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """One message on its way to the broker."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Subscribe(msgspec.Struct, frozen=True):
    """Topic filters with the QoS asked for."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


class SubscribeAnswer(msgspec.Struct, frozen=True):
    """The broker's grant of one SUBSCRIBE."""

    packet_id: int


class Disconnect(msgspec.Struct, frozen=True):
    """An orderly end: the broker publishes no will."""


Packet = Connect | Publish | Subscribe | SubscribeAnswer | Disconnect


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """First byte, body, and all bytes of the next packet.

    Raises ``IncompleteReadError`` at the end of the connection and ``ValueError`` for what is no MQTT.
    """
    head = await reader.readexactly(1)
    length, raw = 0, bytearray(head)
    for shift in range(0, 28, 7):
        byte = await reader.readexactly(1)
        raw += byte
        length |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    else:
        raise ValueError("a remaining length of more than four bytes")
    if length > MOST_BYTES:
        raise ValueError(f"a packet of {length} bytes")
    body = await reader.readexactly(length)
    return head[0], body, bytes(raw) + body


def parse(first: int, body: bytes, level: int) -> Packet | None:
    """A packet of interest, read by the rules of protocol ``level``; ``None`` for any other."""
    try:
        match first >> 4:
            case Kind.CONNECT:
                return _connect(_Cursor(body))
            case Kind.PUBLISH:
                return _publish(first, _Cursor(body), level)
            case Kind.SUBSCRIBE:
                return _subscribe(_Cursor(body), level)
            case Kind.SUBACK:
                return SubscribeAnswer(_Cursor(body).number())
            case Kind.DISCONNECT:
                return Disconnect()
            case _:
                return None
    except IndexError:
        return None  # the broker will refuse it too


class _Cursor:
    """Reads from the front of a packet's body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def byte(self) -> int:
        value = self._body[self._at]
        self._at += 1
        return value

    def number(self) -> int:
        return self.byte() << 8 | self.byte()

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise IndexError
        taken = self._body[self._at : self._at + length]
        self._at += length
        return taken

    def text(self) -> str:
        return self.take(self.number()).decode("utf-8", "replace")

    def skip_properties(self, level: int) -> None:
        """Properties stand in MQTT 5 only, behind their length."""
        if level < 5:
            return
        length = shift = 0
        while True:
            byte = self.byte()
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        self.take(length)


def _connect(cursor: _Cursor) -> Connect:
    cursor.text()
    level, flags = cursor.byte(), cursor.byte()
    cursor.number()
    cursor.skip_properties(level)
    client_id = cursor.text()
    if not flags & 0x04:
        return Connect(level=level, client_id=client_id)
    cursor.skip_properties(level)
    topic = cursor.text()
    payload = cursor.take(cursor.number())
    return Connect(
        level=level,
        client_id=client_id,
        will_topic=topic,
        will_payload=payload,
        will_qos=flags >> 3 & 3,
        will_retain=bool(flags & 0x20),
    )


def _publish(first: int, cursor: _Cursor, level: int) -> Publish:
    qos = first >> 1 & 3
    topic = cursor.text()
    if qos:
        cursor.number()
    cursor.skip_properties(level)
    return Publish(topic=topic, payload=cursor.take(cursor.left), qos=qos, retain=bool(first & 1))


def _subscribe(cursor: _Cursor, level: int) -> Subscribe:
    packet_id = cursor.number()
    cursor.skip_properties(level)
    filters = []
    while cursor.left:
        filters.append((cursor.text(), cursor.byte() & 3))
    return Subscribe(packet_id, tuple(filters))
