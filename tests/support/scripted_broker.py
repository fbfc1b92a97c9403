"""A broker that answers just enough MQTT 5 for a test to decide what it says and what it keeps back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

CONNECT, SUBSCRIBE = 1, 8
CONNACK = bytes.fromhex("2003000000")
OLD_CONNACK = bytes.fromhex("20020000")
WRONG_VERSION = bytes.fromhex("2003008400")
TAKEN_OVER = bytes.fromhex("e0028e00")

Answer = Callable[[int, int, bytes], bytes]
"""What to send back, from the connection's number (1 is the first), the packet type and its body."""


def granted(body: bytes, code: int = 1) -> bytes:
    """The SUBACK of a SUBSCRIBE for one filter; ``code`` from 0x80 refuses."""
    return bytes([0x90, 4]) + body[:2] + bytes([0, code])


@asynccontextmanager
async def scripted_broker(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that reads packets and sends what ``answer`` makes of them."""
    seen = 0
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        number = seen
        open_now.add(writer)
        try:
            while True:
                kind, length = await reader.readexactly(2)
                assert length < 0x80, "these tests send short packets only"
                writer.write(answer(number, kind >> 4, await reader.readexactly(length)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in list(open_now):
            writer.close()
        await server.wait_closed()
