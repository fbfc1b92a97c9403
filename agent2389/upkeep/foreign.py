"""Tasks for agents that are not ours: sent over the protocol, answered on their conversation."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

import structlog

from agent2389.broker.port import Connection, Delivery, Message, PublishRefused
from agent2389.errors import Agent2389Error, InputRefused, NotFound, ProtocolCode, Unreachable
from agent2389.ledger.blobs import begun, fits, stored_value
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Failure, Finish, Json, NextTask, RouteDecision, TaskResult, Usage
from agent2389.ledger.states import TaskState
from agent2389.ledger.views import ForeignTask
from agent2389.router.fixed import target_of
from agent2389.telemetry import surroundings
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.neighbours import Neighbours
from agent2389.wire.envelope import Answer, read_answer, write_envelope
from agent2389.wire.limits import MAX_MESSAGE_BYTES
from agent2389.wire.names import derived_uuid, is_sha256
from agent2389.wire.topics import (
    MeshTopics,
    agent_bound,
    conversation_filter,
    protocol_input,
)

ANSWER_SECONDS = 600.0
"""How long a foreign agent may take for one attempt; the reference does one task at a time."""
LOOKED_AT = 500
WRITE_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Foreign:
    """Forwards for one process. Any number of processes may do it: the ledger lets one send each
    attempt, and an answer that several of them hear ends the attempt once.

    At-least-once: an attempt without an answer in time is made again under another id.
    """

    def __init__(
        self,
        ledger: Ledger,
        connection: Connection,
        dispatcher: Dispatcher,
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._dispatcher = dispatcher
        self._answer_seconds = answer_seconds
        self._topics = MeshTopics(ledger.tenant)
        self.neighbours = Neighbours(connection, ledger.mesh_id, on_available=self._look_for)
        self._expected: dict[str, ForeignTask] = {}
        self._unsent: dict[str, Message] = {}
        self._waiting: frozenset[str] = frozenset()
        self._heard: set[str] = set()
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        """Send what waits for foreign agents that are available, and listen for what was sent.

        Raises ``Unreachable`` when the ledger does not answer.
        """
        async with self._looking:
            tasks = await self._ledger.foreign_tasks(LOOKED_AT)
            sent = {wire_id(task): task for task in tasks if task.state is TaskState.FORWARDED}
            if len(tasks) < LOOKED_AT:  # all there are, so the others have ended
                self._expected = {}
            self._expected |= sent
            self._unsent = {key: self._unsent[key] for key in self._unsent if key in self._expected}
            queued = [task for task in tasks if task.state is TaskState.QUEUED]
            self._waiting = frozenset(task.agent_id for task in queued)
            for agent_id in {task.agent_id for task in tasks}:
                await self._listen(agent_id)
            for key in list(self._unsent):
                await self._publish(key)
            for task in queued:
                if self.neighbours.is_available(task.agent_id):
                    await self._send(task)

    async def _listen(self, agent_id: str) -> None:
        """Subscribed to before anything is sent, so that no answer is missed."""
        await self.neighbours.follow(agent_id)
        if agent_id in self._heard:
            return
        with contextlib.suppress(Unreachable):  # a lost connection subscribes when it comes back
            await self._connection.subscribe(conversation_filter(agent_id), self._on_answer)
            await self._connection.subscribe(self._topics.wake(agent_bound(agent_id)), self._on_wake, qos=0)
        self._heard.add(agent_id)

    async def _on_wake(self, _: Delivery) -> None:
        await self._look_again()

    async def _look_for(self, agent_id: str) -> None:
        """An agent became available."""
        if agent_id in self._waiting:
            await self._look_again()

    async def _look_again(self) -> None:
        with contextlib.suppress(Unreachable):  # the next chore comes within seconds
            await self.look()

    # out ------------------------------------------------------------------------------

    async def _send(self, task: ForeignTask) -> None:
        if not self._connection.state.connected:
            return  # the attempt has not begun, so nothing is lost
        until = min(surroundings.now() + timedelta(seconds=self._answer_seconds), task.deadline)
        try:
            message = await self._message(task)
        except (InputRefused, NotFound) as refused:
            await self._cannot_send(task, until, refused)
            return
        written = await self._ledger.forward(task.task_id, until)
        if written is None:
            return  # another process sends it
        key = wire_id(task)
        self._expected[key], self._unsent[key] = task, message
        await self._publish(key)
        log.info("task forwarded", task_id=task.task_id, agent=task.agent_id, attempt=task.attempt)
        await self._dispatcher.perform(written.effects)

    async def _publish(self, key: str) -> None:
        """Sent until the broker has it: a repeat of the same id is a duplicate there."""
        try:
            await self._connection.publish(self._unsent[key])
        except Unreachable:
            return
        except PublishRefused as refused:
            failure = _failure(ProtocolCode.INTERNAL_ERROR, str(refused))
            await self._end(self._expected[key], failure)
        self._unsent.pop(key, None)

    async def _message(self, task: ForeignTask) -> Message:
        """Raises ``InputRefused`` when the task does not fit into a message."""
        topic = protocol_input(task.agent_id)
        body = write_envelope(
            task_id=wire_id(task),
            conversation_id=task.conversation_id or task.job_id,
            topic=topic,
            instruction=task.instruction,
            input_=await self._whole(task.input),
        )
        if len(body) > MAX_MESSAGE_BYTES:
            raise InputRefused(
                "too_large", f"the task has {len(body)} bytes, a message has {MAX_MESSAGE_BYTES}"
            )
        return Message(topic, body)

    async def _whole(self, value: Json) -> Json:
        """A large value itself in place of its reference: others cannot read our blobs."""
        if not isinstance(value, dict) or not is_sha256(str(value.get("sha256"))) or "preview" not in value:
            return value
        content = (await self._ledger.get_blob(value["sha256"])).content
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise InputRefused("invalid", "the input is no text, and others cannot read our blobs") from None

    async def _cannot_send(self, task: ForeignTask, until: datetime, refused: Agent2389Error) -> None:
        written = await self._ledger.forward(task.task_id, until)
        if written is not None:
            await self._dispatcher.perform(written.effects)
            await self._end(task, _failure(ProtocolCode.INVALID_INPUT, str(refused)))

    # back -----------------------------------------------------------------------------

    async def _on_answer(self, delivery: Delivery) -> None:
        answer = read_answer(delivery.payload)
        task = self._expected.get(answer.task_id) if answer is not None else None
        if answer is None or task is None or answer.is_about_a_duplicate:
            return
        await self._end(task, await self._outcome(task, answer))
        self._expected.pop(answer.task_id, None)
        self._unsent.pop(answer.task_id, None)

    async def _outcome(self, task: ForeignTask, answer: Answer) -> Finish | Failure:
        if answer.code is not None:
            return _failure(answer.code, answer.text)
        if not answer.text.strip():
            return _failure(ProtocolCode.INTERNAL_ERROR, "the answer is empty")
        result = TaskResult(text=answer.text)
        if not fits(answer.text):
            file = await stored_value(self._ledger, answer.text, "answer", {})
            result = TaskResult(text=begun(answer.text), files=(file,))
        next_ = _next_of(task, result.text)
        chosen = next_[0].capability or next_[0].agent if next_ else None
        return Finish(
            result=result,
            usage=Usage(cost_usd=None),  # nobody tells what it cost there
            decision=RouteDecision(
                strategy="fixed" if next_ else "none",
                outcome="hand_off" if next_ else "done",
                reason=f"the job's own route continues with {chosen}" if chosen else "the route ends here",
                chosen=chosen,
            ),
            next=next_,
        )

    async def _end(self, task: ForeignTask, outcome: Finish | Failure) -> None:
        """Write it down however long the ledger is away: nobody will say it again."""
        while True:
            try:
                written = await self._ledger.forward_ended(task.task_id, task.attempt, outcome, task.job_id)
            except Unreachable as error:
                log.warning("ledger away, a foreign answer waits", reason=str(error))
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
                continue
            log.info(
                "foreign attempt ended", task_id=task.task_id, agent=task.agent_id, outcome=written.verdict
            )
            await self._dispatcher.perform(written.effects)
            return


def wire_id(task: ForeignTask) -> str:
    """The id of one attempt on the wire: repeats of it are duplicates, another attempt is another task."""
    return derived_uuid("foreign", task.task_id, str(task.attempt))


def _failure(code: str, message: str) -> Failure:
    return Failure(code=code, message=f"foreign agent: {message}"[:500], retryable=True)


def _next_of(task: ForeignTask, answer: str) -> tuple[NextTask, ...]:
    """The job's own route goes on with the answer as its input."""
    target: Any = target_of(task.next) if task.next else None
    if target is None:
        return ()
    return (
        NextTask(
            capability=target.capability,
            agent=target.agent,
            instruction=target.instruction or task.instruction,
            input=answer,
            next=target.next,
            reason="the job's own route",
        ),
    )
