"""The server half of the broker in memory: retained messages, sessions, windows, wills."""

import asyncio
import contextvars
import itertools
from collections import deque
from collections.abc import Callable

from agent2389.broker.filters import matches
from agent2389.broker.port import Delivery, Message
from agent2389.errors import Unreachable

IN_FLIGHT = 20
"""QoS 1 deliveries that one client may leave unacknowledged before the next one waits."""
QUEUED = 1000
"""What waits beyond them; the rest is dropped without a word (measured: a new subscriber gets 1,020)."""
TAKEN_OVER = "another process uses this client id"


class Weather:
    """How the network and the broker treat messages: well. A simulation brings worse ones."""

    def sending(self, client_id: str, message: Message) -> float:  # noqa: ARG002 - worse weather asks
        """Seconds from the client to the broker, and the same again for the acknowledgement."""
        return 0.0

    def takes(self, client_id: str, message: Message) -> bool:  # noqa: ARG002
        """Whether an acknowledged publish has any effect."""
        return True

    def arrivals(self, client_id: str, message: Message) -> tuple[float, ...]:  # noqa: ARG002
        """Seconds to the client, one for each copy that arrives; none loses a QoS 0 message."""
        return (0.0,)


class Session:
    """One connection as the server sees it; ``lost`` ends it and says why.

    Whatever reaches the client runs in the client's own context, so that a simulation
    can hold a process still without holding the broker.
    """

    def __init__(self, server: "MemoryServer", client_id: str, will: Message | None, *, manual: bool) -> None:
        self.client_id = client_id
        self.will = will
        self.filters: dict[str, int] = {}
        self.inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server = server
        self._manual = manual
        self._client = contextvars.copy_context()
        self._numbers = itertools.count(1)
        self._in_flight: set[int] = set()
        self._waiting: deque[tuple[Message, bool]] = deque()
        self._travelling: deque[tuple[Message, int, bool, int]] = deque()
        self._earliest = 0.0

    def offer(self, message: Message, qos: int, *, retained: bool) -> None:
        """Send to the client now, when its window opens, or never when too much waits."""
        if min(qos, message.qos) == 0:
            self._send(message, 0, 0, retained=retained)
        elif len(self._in_flight) < self._server.in_flight:
            self._send_acknowledged(message, retained=retained)
        elif len(self._waiting) < self._server.queued:
            self._waiting.append((message, retained))
        else:
            self._server.dropped += 1

    def end(self, reason: str) -> None:
        """Close the connection."""
        if not self.over.done():
            self.over.set_result(reason)

    async def publish(self, message: Message) -> None:
        """Give the server a message and wait for the PUBACK of QoS 1. Raises ``Unreachable``."""
        if self.over.done():
            raise Unreachable("broker", self.over.result())
        seconds = self._server.weather.sending(self.client_id, message)
        done = asyncio.get_running_loop().create_future()
        self._server.later(seconds, self._received, message, done, seconds)
        if message.qos == 0:
            return
        await asyncio.wait({done, self.over}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise Unreachable("broker", "the connection to the broker was lost")

    def _received(self, message: Message, done: "asyncio.Future[None]", seconds: float) -> None:
        if self.over.done():
            return
        if self._server.weather.takes(self.client_id, message):
            self._server.publish(message)
        self._server.later(seconds, _answer, done)

    def _send_acknowledged(self, message: Message, *, retained: bool) -> None:
        number = next(self._numbers)
        self._in_flight.add(number)
        self._send(message, 1, number, retained=retained)

    def _send(self, message: Message, qos: int, number: int, *, retained: bool) -> None:
        loop = asyncio.get_running_loop()
        delays = self._server.weather.arrivals(self.client_id, message)
        for delay in delays or ((0.0,) if qos else ()):
            # One connection is one stream: nothing overtakes.
            self._earliest = max(self._earliest, loop.time() + delay)
            self._travelling.append((message, qos, retained, number))
            if self._earliest <= loop.time():
                loop.call_soon(self._arrive, context=self._client)
            else:
                loop.call_at(self._earliest, self._arrive, context=self._client)

    def _arrive(self) -> None:
        message, qos, retained, number = self._travelling.popleft()
        if self.over.done():
            return

        async def acknowledge() -> None:
            self._acknowledged(number)

        self.inbox.put_nowait(
            Delivery(message.topic, message.payload, qos, retained, message.properties, acknowledge)
        )
        if not self._manual:
            self._acknowledged(number)

    def _acknowledged(self, number: int) -> None:
        if number not in self._in_flight or self.over.done():
            return
        self._in_flight.remove(number)
        if self._waiting:
            message, retained = self._waiting.popleft()
            self._send_acknowledged(message, retained=retained)


class MemoryServer:
    """One broker. ``start`` and ``kill`` are a process that comes and goes.

    Time and order come from the running event loop alone, so that the same loop gives the same run.
    A simulation makes the windows smaller, so that few messages fill them.
    """

    def __init__(
        self, weather: Weather | None = None, *, in_flight: int = IN_FLIGHT, queued: int = QUEUED
    ) -> None:
        self.weather = weather or Weather()
        self.in_flight = in_flight
        self.queued = queued
        self.retained: dict[str, Message] = {}
        self.sessions: dict[str, Session] = {}
        self.dropped = 0
        self.is_up = True

    def start(self, retained: dict[str, Message] | None = None) -> None:
        """Accept connections again; ``retained`` is what its file still held."""
        self.retained = dict(retained or {})
        self.is_up = True

    def kill(self) -> None:
        """Die at once: no will, and what was retained is gone."""
        self.is_up = False
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            session.end("the broker went away")
        self.retained.clear()

    def open(self, client_id: str, will: Message | None, *, manual: bool) -> Session:
        """A new session; one that has this client id already is closed. Raises ``Unreachable``."""
        if not self.is_up:
            raise Unreachable("broker", "connection refused")
        self.drop(client_id, TAKEN_OVER)
        self.sessions[client_id] = session = Session(self, client_id, will, manual=manual)
        return session

    def leave(self, session: Session) -> None:
        """An orderly end: no will."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        session.end("disconnected")

    def drop(self, client_id: str, reason: str) -> None:
        """The connection breaks: the will is published."""
        session = self.sessions.pop(client_id, None)
        if session is None:
            return
        session.end(reason)
        if session.will is not None:
            self.publish(session.will)

    def publish(self, message: Message) -> None:
        """Keep what is to be kept, then deliver: one copy to each session, at its best QoS."""
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        for session in list(self.sessions.values()):
            granted = [qos for wanted, qos in session.filters.items() if matches(wanted, message.topic)]
            if granted:
                session.offer(message, max(granted), retained=message.retain)

    def subscribe(self, session: Session, topic_filter: str, qos: int) -> None:
        """Grant, and send what is retained there."""
        session.filters[topic_filter] = qos
        for topic, message in list(self.retained.items()):
            if matches(topic_filter, topic):
                session.offer(message, qos, retained=True)

    def later(self, seconds: float, step: Callable[..., None], *arguments: object) -> None:
        """Run a step of the broker itself, in nobody's context."""
        loop, nobody = asyncio.get_running_loop(), contextvars.Context()
        if seconds > 0:
            loop.call_later(seconds, step, *arguments, context=nobody)
        else:
            loop.call_soon(step, *arguments, context=nobody)


def _answer(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
