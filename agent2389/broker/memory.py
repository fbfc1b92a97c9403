"""A broker in memory: the contract of ``broker.port`` without a socket, for tests and simulation."""

import asyncio
import contextlib

import structlog

from agent2389.broker.dispatch import dispatch, refuse_unsendable
from agent2389.broker.memory_server import TAKEN_OVER, MemoryServer, Session
from agent2389.broker.port import Connection, ConnectionState, Handler, Hook, Message
from agent2389.errors import Agent2389Error, Unreachable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
TAKEN_OVER_PAUSE = 60.0

log = structlog.get_logger(__name__)


class MemoryBroker:
    """``broker.port.Broker`` on a ``MemoryServer``; brokers on one server are processes on one network."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._connections: list[MemoryConnection] = []

    async def connect(
        self, client_id: str, *, will: Message | None = None, manual_acknowledgement: bool = False
    ) -> Connection:
        """Start a connection in the background and return at once."""
        connection = MemoryConnection(self._server, client_id, will, manual=manual_acknowledgement)
        connection.start()
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Disconnect all, in the reverse order of opening."""
        for connection in reversed(self._connections):
            await connection.stop()
        self._connections.clear()


class MemoryConnection:
    """``broker.port.Connection``: connects, subscribes, delivers, and starts over."""

    def __init__(self, server: MemoryServer, client_id: str, will: Message | None, *, manual: bool) -> None:
        self._server = server
        self._client_id = client_id
        self._will = will
        self._manual = manual
        self._routes: dict[str, tuple[Handler, int]] = {}
        self._hooks: list[Hook] = []
        self._session: Session | None = None
        self._ready = asyncio.Event()
        self._reconnects = -1
        self._last_error: str | None = None
        self._task: asyncio.Task[None] | None = None

    # port ------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """A snapshot for health."""
        return ConnectionState(
            connected=self._ready.is_set(),
            protocol="5" if self._reconnects >= 0 else "",
            reconnects=max(self._reconnects, 0),
            last_error=self._last_error,
        )

    async def publish(self, message: Message) -> None:
        """Send and wait for the PUBACK of QoS 1."""
        refuse_unsendable(message)
        if self._session is None:
            raise Unreachable("broker", self._last_error or "not connected to the broker")
        await self._session.publish(message)

    async def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1) -> None:
        """Route ``topic_filter`` to ``handler``, now and after every reconnect."""
        self._routes[topic_filter] = (handler, qos)
        await self.resubscribe(topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Stop routing ``topic_filter``."""
        self._routes.pop(topic_filter, None)
        if self._session is not None:
            self._session.filters.pop(topic_filter, None)

    async def resubscribe(self, topic_filter: str) -> None:
        """Subscribe again, so that retained messages come again."""
        if topic_filter in self._routes and self._session is not None:
            self._server.subscribe(self._session, topic_filter, self._routes[topic_filter][1])

    def on_connected(self, hook: Hook) -> None:
        """Run ``hook`` after each (re)connection."""
        self._hooks.append(hook)

    async def wait_connected(self, timeout: float) -> None:
        """Return once connected and subscribed."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            reason = self._last_error or "no answer"
            raise Unreachable("broker", f"no connection within {timeout:g} s: {reason}") from None

    # life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"mqtt-{self._client_id}")

    async def stop(self) -> None:
        """Disconnect in an orderly way and end the task."""
        if self._session is not None:
            self._server.leave(self._session)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)  # a connection takes a moment, so nobody may rely on it at once
            started = loop.time()
            try:
                reason = await self._live(self._server.open(self._client_id, self._will, manual=self._manual))
            except Unreachable as error:
                reason = str(error)
            self._last_error = reason
            pause = FIRST_PAUSE if loop.time() - started > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
            log.info("broker connection lost", client_id=self._client_id, reason=reason)
            await asyncio.sleep(TAKEN_OVER_PAUSE if reason == TAKEN_OVER else pause)

    async def _live(self, session: Session) -> str:
        """Serve one session to its end; why it ended."""
        self._last_error = None
        settle = asyncio.create_task(self._settle(session), name=f"settle-{self._client_id}")
        read = asyncio.create_task(self._read(session), name=f"read-{self._client_id}")
        try:
            await asyncio.wait({session.over})
        finally:
            self._ready.clear()
            self._session = None
            for side in (settle, read):
                side.cancel()
            await asyncio.gather(settle, read, return_exceptions=True)
        return session.over.result()

    async def _settle(self, session: Session) -> None:
        for topic_filter, (_, qos) in list(self._routes.items()):
            self._server.subscribe(session, topic_filter, qos)
        self._session = session
        self._reconnects += 1
        for hook in self._hooks:
            try:
                await hook()
            except Agent2389Error as error:
                log.warning("a step after connecting failed", reason=str(error))
            except Exception:
                # A bug in one step must not end the connection for good.
                log.exception("a step after connecting failed", client_id=self._client_id)
        self._ready.set()

    async def _read(self, session: Session) -> None:
        while True:
            await dispatch(self._routes, await session.inbox.get())
