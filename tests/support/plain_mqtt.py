"""A small MQTT 3.1.1 client written from the standard, so that rights are judged by foreign eyes."""

import asyncio
import ssl
from collections import deque
from pathlib import Path


class Refused(Exception):
    """The broker did not let us in; the CONNACK's return code."""


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def _packet(kind: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, part = divmod(left, 128)
        length += bytes([part | (0x80 if left else 0)])
        if not left:
            return bytes([kind]) + length + body


class PlainClient:
    """One connection. ``received`` are (topic, payload, retained) of QoS 0 deliveries."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._next = 0
        self._answers: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self.received: deque[tuple[str, bytes, bool]] = deque()
        self._arrived = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        port: int,
        client_id: str,
        user: str | None = None,
        password: str | None = None,
        *,
        ca: Path | None = None,
        will: tuple[str, bytes, bool] | None = None,
    ) -> "PlainClient":
        context = ssl.create_default_context(cafile=ca) if ca else None
        reader, writer = await asyncio.open_connection("localhost" if ca else "127.0.0.1", port, ssl=context)
        flags, payload = 0x02, _text(client_id)
        if will is not None:
            flags |= 0x04 | 0x08 | (0x20 if will[2] else 0)
            payload += _text(will[0]) + _text(will[1])
        if user is not None:
            flags |= 0x80
            payload += _text(user)
        if password is not None:
            flags |= 0x40
            payload += _text(password)
        self = cls(reader, writer)
        writer.write(_packet(0x10, _text("MQTT") + bytes([4, flags, 0, 60]) + payload))
        try:
            kind, body = await self._read_packet()
        except asyncio.IncompleteReadError:
            await self.die()
            raise Refused("closed") from None
        assert kind == 0x20
        if body[1]:
            await self.die()
            raise Refused(str(body[1]))
        self._reading = asyncio.create_task(self._read())
        return self

    async def subscribe(self, *filters: str) -> list[int]:
        """SUBACK codes; 128 is a refusal."""
        body = b"".join(_text(item) + b"\x00" for item in filters)
        answer = await self._ask(0x82, body, 0x90)
        return list(answer[2:])

    async def unsubscribe(self, *filters: str) -> None:
        await self._ask(0xA2, b"".join(_text(item) for item in filters), 0xB0)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """QoS 1; returns at the PUBACK, which a denied publish gets as well."""
        number = self._number()
        waiting = self._expect(0x40, number)
        body = _text(topic) + number.to_bytes(2, "big") + payload
        self._writer.write(_packet(0x32 | retain, body))
        await waiting

    async def heard(self, topic: str, seconds: float = 10.0) -> list[tuple[str, bytes, bool]]:
        """Everything up to the first message on ``topic``, which is left out."""
        got: list[tuple[str, bytes, bool]] = []
        async with asyncio.timeout(seconds):
            while True:
                while self.received:
                    message = self.received.popleft()
                    if message[0] == topic:
                        return got
                    got.append(message)
                self._arrived.clear()
                await self._arrived.wait()

    async def close(self) -> None:
        self._writer.write(b"\xe0\x00")
        await self._writer.drain()
        await self.die()

    async def die(self) -> None:
        """Go without a DISCONNECT: the broker publishes the will."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        self._writer.transport.abort()

    def _number(self) -> int:
        self._next = self._next % 65535 + 1
        return self._next

    def _expect(self, kind: int, number: int) -> asyncio.Future[bytes]:
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[kind, number] = waiting
        return waiting

    async def _ask(self, kind: int, body: bytes, answer: int) -> bytes:
        number = self._number()
        waiting = self._expect(answer, number)
        self._writer.write(_packet(kind, number.to_bytes(2, "big") + body))
        return await asyncio.wait_for(waiting, 10)

    async def _read_packet(self) -> tuple[int, bytes]:
        kind = (await self._reader.readexactly(1))[0]
        length, shift = 0, 0
        while True:
            part = (await self._reader.readexactly(1))[0]
            length |= (part & 0x7F) << shift
            shift += 7
            if not part & 0x80:
                return kind, await self._reader.readexactly(length)

    async def _read(self) -> None:
        while True:
            try:
                kind, body = await self._read_packet()
            except (asyncio.IncompleteReadError, OSError) as error:
                for waiting in self._answers.values():
                    if not waiting.done():
                        waiting.set_exception(ConnectionError(str(error)))
                return
            if kind & 0xF0 == 0x30:
                size = int.from_bytes(body[:2], "big")
                self.received.append((body[2 : 2 + size].decode(), body[2 + size :], bool(kind & 1)))
                self._arrived.set()
            elif (key := (kind, int.from_bytes(body[:2], "big"))) in self._answers:
                self._answers.pop(key).set_result(body)
