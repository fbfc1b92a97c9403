"""Where a check stands: sends what other implementations would send, and hears what the agent says."""

import asyncio
import json
import secrets
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from agent2389.broker.port import Connection, Delivery, Message
from agent2389.errors import NotFound
from agent2389.proving.conformance.model import KitModel
from agent2389.proving.conformance.packets import Publish
from agent2389.proving.conformance.subject import Subject
from agent2389.proving.conformance.tap import Tap
from agent2389.wire.status import timestamp
from agent2389.wire.topics import (
    canonical_topic,
    conversation,
    conversation_filter,
    protocol_input,
    protocol_status,
    protocol_topics_filter,
)

START_SECONDS = 60.0
QUIET_SECONDS = 0.3
"""How long an answer that must not come is given after one that came later in order."""
STEP_SECONDS = 0.01

Value = TypeVar("Value")


class Heard(msgspec.Struct, frozen=True):
    """One message of the agent or of its peer."""

    topic: str
    payload: bytes
    qos: int
    retained: bool

    def read(self) -> dict[str, Any] | None:
        """The JSON object in it, or ``None``."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


class Task(msgspec.Struct, frozen=True):
    """An envelope as a check sends it."""

    token: str
    document: dict[str, Any]

    @property
    def conversation_id(self) -> str:
        """Where its answer goes."""
        return str(self.document["conversation_id"])


class Bench:
    """One agent under test. ``tap``, ``model`` and ``subject`` exist only when the kit starts the agent."""

    def __init__(
        self,
        connection: Connection,
        agent_id: str,
        *,
        strict: bool,
        timeout: float,
        tap: Tap | None = None,
        model: KitModel | None = None,
        subject: Subject | None = None,
    ) -> None:
        self._connection = connection
        self.agent_id = agent_id
        self.strict = strict
        self.timeout = timeout
        self.tap = tap
        self.model = model
        self.subject = subject
        self.run_id = secrets.token_hex(4)
        self.peer_id = f"conformance-{self.run_id}"
        self.started_at = 0
        self.heard: list[Heard] = []
        self._sent: set[bytes] = set()

    # life -------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen, and appear as another agent on the broker."""
        await self._connection.subscribe(protocol_topics_filter(), self._on_message)
        await self._connection.subscribe(conversation_filter(), self._on_message)
        await self.announce_peer(protocol_status(self.peer_id), {})

    async def close(self) -> None:
        """Leave nothing retained behind."""
        await self._connection.publish(Message(protocol_status(self.peer_id), b"", retain=True))
        await self._connection.publish(Message(protocol_input(self.agent_id), b"", retain=True))

    async def announce_peer(self, topic: str, more: dict[str, Any]) -> None:
        """The retained status of the agent that the kit plays."""
        status = {
            "agent_id": self.peer_id,
            "status": "available",
            "timestamp": timestamp(),
            "capabilities": ["conformance"],
            "description": "Plays the other implementation of a conformance run.",
            **more,
        }
        await self._connection.publish(Message(topic, json.dumps(status).encode(), retain=True))

    async def start(self) -> None:
        """Start the agent and wait until it is available and, if it ever does so, subscribed.

        Raises ``NotFound`` when it does not become available.
        """
        if self.subject is None or self.tap is None or self.model is None:
            return
        begun = len(self.heard)
        self.started_at = len(self.tap.seen)
        await self.subject.start(self.tap.url, self.model.url)
        try:
            await self._until(lambda: self._is_available(begun) and self._is_subscribed(), START_SECONDS)
        except TimeoutError:
            raise NotFound(
                f"{self.agent_id} did not become available and subscribed within {START_SECONDS:g} s",
                hint=f"see {self.subject.log_file}; the command must use MQTT_BROKER_URL and LLM_BASE_URL",
            ) from None

    async def find(self) -> None:
        """Raises ``NotFound`` unless the running agent's retained status is there."""
        try:
            await self._until(lambda: self._is_available(0), self.timeout)
        except TimeoutError:
            raise NotFound(
                f"no retained status of {self.agent_id} says available",
                hint="start the agent, or let the kit start it: --start COMMAND",
            ) from None

    def statuses(self, since: int = 0) -> list[Heard]:
        """What was heard on the agent's status topic."""
        topic = protocol_status(self.agent_id)
        return [item for item in self.heard[since:] if item.topic == topic and item.payload]

    def _is_available(self, since: int) -> bool:
        return any((item.read() or {}).get("status") == "available" for item in self.statuses(since))

    def _is_subscribed(self) -> bool:
        if self.tap is None:
            return True
        return bool(self.tap.inputs_asked(protocol_input(self.agent_id), since=self.started_at))

    # sending ------------------------------------------------------------------------

    def task(self, wish: str = "answer", **changes: Any) -> Task:
        """A correct envelope; ``wish`` is what the kit's model shall do."""
        token = secrets.token_hex(4)
        document = {
            "task_id": str(uuid.uuid4()),
            "conversation_id": f"kit-{self.run_id}-{token}",
            "topic": protocol_input(self.agent_id),
            "instruction": f"Answer with one short sentence. [kit:{wish}:{token}]",
            "input": {"text": f"Conformance run, task {token}."},
            "next": None,
        }
        return Task(token, document | changes)

    async def send(self, task: Task, payload: bytes | None = None, *, retain: bool = False) -> None:
        """Publish an envelope (or other bytes in its place) on the agent's input."""
        await self.send_bytes(payload or json.dumps(task.document).encode(), retain=retain)

    async def send_bytes(self, payload: bytes, *, retain: bool = False) -> None:
        """Publish anything on the agent's input."""
        self._sent.add(payload)
        await self._connection.publish(Message(protocol_input(self.agent_id), payload, retain=retain))

    async def ask(self, task: Task, payload: bytes | None = None) -> dict[str, Any] | None:
        """Send, and wait for an answer or an error; ``None`` when none came in time."""
        await self.send(task, payload)
        return await self.answer(task)

    async def answer(self, task: Task) -> dict[str, Any] | None:
        """The first answer or error in the task's conversation; ``None`` when none came in time."""
        try:
            return await self._until(lambda: next(iter(self.answers(task)), None), self.timeout)
        except TimeoutError:
            return None

    def answers(self, task: Task) -> list[dict[str, Any]]:
        """Everything the agent said in the task's conversation."""
        topic = conversation(task.conversation_id, self.agent_id)
        return [item.read() or {} for item in self.heard if item.topic == topic]

    async def settled(self) -> bool:
        """Whether a good task sent now is answered; what was sent before it had its time then."""
        answer = await self.ask(self.task())
        await asyncio.sleep(QUIET_SECONDS)
        return answer is not None and "response" in answer

    # the other agent -------------------------------------------------------------------

    def link(self, **changes: Any) -> dict[str, Any]:
        """A ``next`` that names the agent which the kit plays."""
        link = {"topic": protocol_input(self.peer_id), "instruction": "Confirm.", "input": None, "next": None}
        return link | changes

    def forwarded(self, task: Task) -> list[dict[str, Any]]:
        """Envelopes that reached the other agent in the task's conversation."""
        topic = protocol_input(self.peer_id)
        read = [item.read() or {} for item in self.heard if item.topic == topic]
        return [document for document in read if document.get("conversation_id") == task.conversation_id]

    async def until_forwarded(self, task: Task) -> dict[str, Any] | None:
        """The envelope that the other agent got; ``None`` when none came in time."""
        try:
            return await self._until(lambda: next(iter(self.forwarded(task)), None), self.timeout)
        except TimeoutError:
            return None

    # everything it said ------------------------------------------------------------------

    def said(self) -> list[Heard]:
        """Every message of the agent on the protocol's topics, from the tap and from the broker."""
        own = [item for item in self.heard if self._is_of_agent(item.topic)]
        if self.tap is None:
            return own
        tapped = [
            Heard(packet.topic, packet.payload, packet.qos, packet.retain)
            for _, packet in self.tap.packets(Publish)
            if is_protocol(packet.topic)
        ]
        return own + tapped

    def errors(self) -> list[dict[str, Any]]:
        """Every error body that the agent published."""
        read = [item.read() or {} for item in self.said()]
        return [found["error"] for found in read if isinstance(found.get("error"), dict)]

    def _is_of_agent(self, topic: str) -> bool:
        levels = topic.split("/")
        if levels[1:2] == ["conversations"]:
            return levels[-1] == self.agent_id and levels[2].startswith(f"kit-{self.run_id}")
        return levels[3:4] == [self.agent_id] and levels[4:] != ["input"]

    async def _on_message(self, delivery: Delivery) -> None:
        if delivery.payload in self._sent:
            return  # our own words
        levels = canonical_topic(delivery.topic).split("/")
        if self.run_id not in delivery.topic and levels[3:4] != [self.agent_id]:
            return  # somebody else's work on the same broker
        self.heard.append(Heard(delivery.topic, delivery.payload, delivery.qos, delivery.retained))
        if canonical_topic(delivery.topic) == protocol_input(self.peer_id):
            await self._play_peer(delivery.payload)

    async def _play_peer(self, payload: bytes) -> None:
        """Answer as the other agent, so that whoever waits for it can go on."""
        document = Heard("", payload, 1, False).read() or {}
        conversation_id = document.get("conversation_id")
        if not isinstance(conversation_id, str) or not conversation_id.startswith(f"kit-{self.run_id}"):
            return
        answer = {"response": "The other agent confirms.", "task_id": document.get("task_id")}
        message = Message(conversation(conversation_id, self.peer_id), json.dumps(answer).encode())
        await self._connection.publish(message)

    async def _until(self, condition: Callable[[], Value], seconds: float) -> Value:
        """The condition's value once it is true. Raises ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            while not (value := condition()):
                await asyncio.sleep(STEP_SECONDS)
            return value

    async def until(self, condition: Callable[[], object]) -> bool:
        """Whether the condition becomes true in time."""
        try:
            await self._until(condition, self.timeout)
        except TimeoutError:
            return False
        return True


def is_protocol(topic: str) -> bool:
    """Whether a topic belongs to the protocol, spelled well or badly."""
    return canonical_topic(topic).split("/")[1] in ("control", "conversations")
