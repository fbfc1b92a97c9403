"""Brokers that a test can start, kill and leave rudely: real servers, and the one in memory."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from agent2389.broker.address import parse_broker_url
from agent2389.broker.local import RunningBroker, local_broker
from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Broker, Message
from agent2389.telemetry import children

RUDE = """
import asyncio, os
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.address import parse_broker_url
from agent2389.broker.port import Message
async def main():
    broker = MqttBroker(parse_broker_url({url!r}))
    connection = await broker.connect("rude", will=Message({topic!r}, {payload!r}, retain=True))
    await connection.wait_connected(5)
    os._exit(1)
asyncio.run(main())
"""


class Place(Protocol):
    """Where one broker runs, now or later."""

    def client(self) -> Broker:
        """A process' way to this broker."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """The server, from start to orderly end."""
        ...

    async def kill(self) -> None:
        """The server dies at once."""
        ...

    async def freeze_and_kill(self) -> None:
        """The server stops reading, lets others act once, and dies."""
        ...

    async def die_connected(self, will: Message) -> None:
        """A client connects and dies without a word."""
        ...


class RealPlace:
    """A server process on a port of its own."""

    def __init__(self, folder: Path, kind: str | None = None) -> None:
        self._folder = folder
        self._environ = {"AGENT2389_LOCAL_BROKER": kind} if kind else None
        self._port = children.free_port()
        self._running: RunningBroker | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._port}"

    def client(self) -> Broker:
        return MqttBroker(parse_broker_url(self.url))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with local_broker(self._folder, port=self._port, environ=self._environ) as self._running:
            yield

    async def kill(self) -> None:
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGKILL)

    async def freeze_and_kill(self) -> None:
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGSTOP)
        await asyncio.sleep(0)
        os.kill(self._running.pid, signal.SIGKILL)

    async def die_connected(self, will: Message) -> None:
        script = RUDE.format(url=self.url, topic=will.topic, payload=will.payload)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        await process.wait()


class MemoryPlace:
    """The broker in memory."""

    def __init__(self) -> None:
        self._server = MemoryServer()
        self._server.kill()

    def client(self) -> Broker:
        return MemoryBroker(self._server)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._server.start()
        yield
        self._server.kill()

    async def kill(self) -> None:
        self._server.kill()

    async def freeze_and_kill(self) -> None:
        self._server.kill()
        await asyncio.sleep(0)

    async def die_connected(self, will: Message) -> None:
        broker = MemoryBroker(self._server)
        connection = await broker.connect("rude", will=will)
        await connection.wait_connected(5)
        self._server.drop("rude", "it died")
        await broker.close()
