"""A tap between an agent and its broker: passes every byte on and remembers what was said in which order."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from agent2389.broker.address import BrokerAddress
from agent2389.broker.filters import matches
from agent2389.proving.conformance.packets import (
    Connect,
    Disconnect,
    Packet,
    Publish,
    Subscribe,
    SubscribeAnswer,
    parse,
    read_frame,
)
from agent2389.telemetry import children

Kind = TypeVar("Kind", Connect, Publish, Subscribe, SubscribeAnswer, Disconnect)


class Seen(msgspec.Struct, frozen=True):
    """One packet: ``number`` is its place in the order of all, ``connection`` counts from 1, ``at`` is
    the monotonic time in seconds.
    """

    number: int
    connection: int
    at: float
    packet: Packet


class Tap:
    """Listens on loopback; what connects there reaches the broker. Topic aliases of MQTT 5 are not resolved:
    a client may use them only where the broker offers some, and the tap looks at the first use.
    """

    def __init__(self, upstream: BrokerAddress) -> None:
        self._upstream = upstream
        self._tls = upstream.tls_context()
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        """Where the agent shall connect."""
        return f"mqtt://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Accept connections for the time of the block."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def packets(self, kind: type[Kind], *, since: int = 0) -> list[tuple[Seen, Kind]]:
        """Packets of one kind from place ``since`` on, in order."""
        return [(seen, seen.packet) for seen in self.seen[since:] if isinstance(seen.packet, kind)]

    def inputs_asked(self, topic: str, *, since: int = 0) -> list[Seen]:
        """The subscriptions that cover ``topic``, in order."""
        return [
            seen
            for seen, packet in self.packets(Subscribe, since=since)
            if any(matches(wanted, topic) for wanted, _ in packet.filters)
        ]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            pass  # either side went away: so does the other
        finally:
            writer.close()
            if task is not None:
                self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        server_reader, server_writer = await asyncio.open_connection(
            self._upstream.host, self._upstream.port, ssl=self._tls
        )
        level = 4

        def note(packet: Packet | None) -> None:
            nonlocal level
            if isinstance(packet, Connect):
                level = packet.level
            if packet is not None:
                self.seen.append(Seen(len(self.seen), number, time.monotonic(), packet))

        sides = [
            asyncio.create_task(
                _pump(reader, server_writer, lambda first, body: note(parse(first, body, level)))
            ),
            asyncio.create_task(
                _pump(server_reader, writer, lambda first, body: note(_grant(first, body, level)))
            ),
        ]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            server_writer.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[int, bytes], None]
) -> None:
    while True:
        first, body, raw = await read_frame(reader)
        note(first, body)
        writer.write(raw)
        await writer.drain()


def _grant(first: int, body: bytes, level: int) -> SubscribeAnswer | None:
    """Of what the broker sends only grants are of interest."""
    packet = parse(first, body, level)
    return packet if isinstance(packet, SubscribeAnswer) else None


class TlsTrap:
    """A broker's address that an agent must not talk to: its certificate is for another host name."""

    def __init__(self) -> None:
        self.attempts = 0
        self.trusting = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self, certificate: Path, key: Path) -> AsyncIterator[None]:
        """Accept connections for the time of the block."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await writer.start_tls(context)
                said = await reader.read(1)
            except (OSError, ssl.SSLError):
                said = b""
            self.attempts += 1
            self.trusting += bool(said)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()


async def make_certificate(name: str, folder: Path) -> tuple[Path, Path] | None:
    """A self-signed certificate for host ``name`` and its key, or ``None`` where openssl is not installed."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    arguments = (
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    try:
        process = await children.start(arguments, folder / "openssl.log")
    except OSError:
        return None
    return (certificate, key) if await process.wait() == 0 else None
