"""A TCP relay that can hold back what passes: a network that is cut without telling either side."""

import asyncio
import contextlib

CHUNK = 65536


class Gate:
    """Listens on loopback and relays to ``port``. While shut, connections stay and bytes wait."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._passable = asyncio.Event()
        self._passable.set()
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Begin to listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Hold everything back, both ways."""
        self._passable.clear()

    def release(self) -> None:
        """Deliver what waited and go on."""
        self._passable.set()

    async def close(self) -> None:
        """End all relays."""
        self._passable.set()
        if self._server is not None:
            self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._passable.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, far_writer))
                    group.create_task(self._pump(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # Either side went away, or the gate closes: for the other side it is the end as well.
            return
        finally:
            self._relays.discard(task)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._passable.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
