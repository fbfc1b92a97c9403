"""Intake over MQTT: messages become rows of the ledger before they are acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from agent2389.broker.port import Connection, Delivery, Message, Properties, PublishRefused
from agent2389.errors import Conflict, InputRefused, NotFound, Unreachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Rejection, Submitted
from agent2389.telemetry import surroundings
from agent2389.upkeep.accept import accept, accept_envelope, payload_hash
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.wire.envelope import conversation_of, error_message, read_document, read_envelope
from agent2389.wire.mesh import ApprovalAnswer, encode, read_approval_answer
from agent2389.wire.receipts import Code, Receipt, Verdict
from agent2389.wire.submission import read_submission
from agent2389.wire.topics import (
    MeshTopics,
    canonical_topic,
    conversation,
    parse_approval_answer,
    parse_job_topic,
    parse_last_level,
    parse_protocol_agent,
    protocol_input,
    protocol_input_filter,
)

EXCERPT_BYTES = 256
BURST = 500
"""After this many stored messages the broker's queue may have overflowed: subscribe again."""
RESUBSCRIBE_SECONDS = 60.0

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")


class Intake:
    """Ingests for one tenant on one manually acknowledged connection.

    Nothing is acknowledged and no retained message cleared before the ledger's commit;
    while the ledger is away the handler waits, and the broker holds the rest back.
    """

    def __init__(
        self,
        ledger: Ledger,
        connection: Connection,
        dispatcher: Dispatcher,
        *,
        on_dropped: Callable[[str], None] = lambda reason: None,
        on_submitted: Callable[[Submitted, str], None] = lambda submitted, source: None,
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._dispatcher = dispatcher
        self._topics = MeshTopics(ledger.tenant)
        self._on_dropped = on_dropped
        self._on_submitted = on_submitted
        self._known_agents: frozenset[str] = frozenset()
        self._stored = 0
        self._filters: tuple[str, ...] = ()

    async def serve_pools(self, capabilities: tuple[str, ...] = ("+",)) -> None:
        """Listen to the intake topics of ``capabilities`` (all by default) and to cancellations."""
        for capability in capabilities:
            for topic_filter in self._topics.intake_filters(capability):
                await self._connection.subscribe(topic_filter, self.on_job)
                self._filters += (topic_filter,)
        await self._connection.subscribe(self._topics.cancel_filter(), self.on_cancel)
        await self._connection.subscribe(self._topics.approval_answer_filter(), self.on_approval_answer)

    async def leave_pools(self) -> None:
        """Stop listening to what ``serve_pools`` asked for."""
        others = (self._topics.cancel_filter(), self._topics.approval_answer_filter())
        for topic_filter in (*self._filters, *others):
            await self._connection.unsubscribe(topic_filter)
        self._filters = ()

    async def serve_protocol(self, agent_id: str | None = None) -> None:
        """Listen to protocol input, of one agent or of every agent in the ledger."""
        if agent_id is not None:
            self._known_agents = frozenset({agent_id})
        topic_filter = protocol_input(agent_id) if agent_id else protocol_input_filter()
        await self._connection.subscribe(topic_filter, self.on_protocol_input)

    async def run(self) -> None:
        """Subscribe again after bursts and every minute until that brings nothing new."""
        while True:
            before = self._stored
            deadline = asyncio.get_running_loop().time() + RESUBSCRIBE_SECONDS
            while asyncio.get_running_loop().time() < deadline and self._stored - before < BURST:
                await asyncio.sleep(1)
            if self._stored > before:
                for topic_filter in self._filters:
                    await self._connection.resubscribe(topic_filter)

    # handlers --------------------------------------------------------------------

    async def on_job(self, delivery: Delivery) -> None:
        """A submission on ``jobs/{capability}`` or ``jobs/{capability}/{job_id}``."""
        if not delivery.payload:
            await delivery.acknowledge()
            return
        self._stored += 1
        topic = parse_job_topic(delivery.topic, self._ledger.tenant)
        reply = delivery.properties.response_topic
        try:
            if topic is None:
                raise InputRefused(Code.INVALID, "the topic is not jobs/{capability}[/{job_id}]")
            received = read_submission(delivery.payload, topic, retained=delivery.retained)
            submitted = await self._until_answered(
                lambda: accept(
                    self._ledger,
                    received,
                    source="mqtt",
                    response_topic=reply,
                    correlation=delivery.properties.correlation,
                )
            )
        except InputRefused as refused:
            await self._refuse(delivery, refused, topic.job_id if topic else None)
        else:
            self._on_submitted(submitted, "mqtt")
            await self._dispatcher.perform(submitted.effects)
        await self._clear(delivery.topic)
        await delivery.acknowledge()

    async def on_cancel(self, delivery: Delivery) -> None:
        """``cancel/{job_id}``: answered by a receipt."""
        if not delivery.payload:  # a retained clear, on every topic
            await delivery.acknowledge()
            return
        job_id = parse_last_level(delivery.topic)
        try:
            written = await self._until_answered(lambda: self._ledger.cancel(job_id, "producer"))
        except NotFound:
            receipt = Receipt(job_id, Verdict.REJECTED, Code.UNKNOWN_JOB, "there is no such job")
        else:
            verdict = Verdict.ACCEPTED if written.verdict == "ok" else Verdict.DUPLICATE
            receipt = Receipt(job_id, verdict, state=written.job_state, note="cancel")
            await self._dispatcher.perform(written.effects)
        await self._dispatcher.publish(Message(self._topics.receipt(job_id), encode(receipt)))
        await delivery.acknowledge()

    async def on_approval_answer(self, delivery: Delivery) -> None:
        """``approvals/{approval_id}/answer``: counts only for the arguments whose hash it names."""
        answer = read_approval_answer(delivery.payload)
        if answer is not None:
            await self._decide(parse_approval_answer(delivery.topic), answer)
        elif delivery.payload:
            self._on_dropped("schema")
            log.warning("answer to an approval is not readable", topic=delivery.topic)
        await delivery.acknowledge()

    async def _decide(self, approval_id: str, answer: ApprovalAnswer) -> None:
        try:
            written = await self._until_answered(
                lambda: self._ledger.decide_approval(
                    approval_id,
                    "approved" if answer.approves else "rejected",
                    answer.arguments_sha256,
                    answer.actor,
                    reason=answer.reason,
                )
            )
        except (NotFound, Conflict, InputRefused) as refused:
            self._on_dropped("schema")
            log.warning("answer to an approval refused", approval_id=approval_id, reason=str(refused))
            return
        await self._dispatcher.perform(written.effects)

    async def on_protocol_input(self, delivery: Delivery) -> None:
        """A task envelope (FR-014, steps 1 to 6); duplicates are discarded silently."""
        if delivery.payload and not delivery.retained:
            await self._take_envelope(delivery)
        elif delivery.payload:
            self._on_dropped("retained")
        await delivery.acknowledge()

    # steps -----------------------------------------------------------------------

    async def _take_envelope(self, delivery: Delivery) -> None:
        agent_id = parse_protocol_agent(delivery.topic)
        if agent_id is None or not await self._is_ours(agent_id):
            return
        document = None
        try:
            document = read_document(delivery.payload)
            said = document.get("topic")
            if isinstance(said, str) and canonical_topic(said) != canonical_topic(delivery.topic):
                log.warning("envelope names another topic", topic=delivery.topic)
                self._on_dropped("topic_mismatch")
                return
            envelope = read_envelope(document)
            submitted = await self._until_answered(lambda: accept_envelope(self._ledger, envelope, agent_id))
        except InputRefused as refused:
            await self._answer_error(delivery, document, agent_id, refused)
            return
        if submitted.verdict != Verdict.ACCEPTED:
            self._on_dropped("duplicate")
            return
        self._on_submitted(submitted, "protocol")
        await self._dispatcher.perform(submitted.effects)

    async def _answer_error(
        self, delivery: Delivery, document: object, agent_id: str, refused: InputRefused
    ) -> None:
        deep = refused.code == Code.PIPELINE_DEPTH_EXCEEDED
        self._on_dropped("depth" if deep else "schema")
        conversation_id, task_id = conversation_of(document)
        log.warning("task envelope refused", agent_id=agent_id, code=refused.code, reason=str(refused))
        # Ops and the agent itself hear every envelope; the one that records the refusal answers it.
        if not await self._record(delivery, refused) or conversation_id is None:
            return
        code = "pipeline_depth_exceeded" if deep else "invalid_input"
        body = error_message(code, str(refused), task_id)
        await self._dispatcher.publish(Message(conversation(conversation_id, agent_id), body))

    async def _is_ours(self, agent_id: str) -> bool:
        if agent_id not in self._known_agents:
            rows = await self._until_answered(self._ledger.agents)
            self._known_agents |= {row.agent_id for row in rows if row.role == "agent"}
        return agent_id in self._known_agents

    async def _refuse(self, delivery: Delivery, refused: InputRefused, job_id: str | None) -> None:
        self._on_dropped(_dropped_reason(refused.code))
        log.warning("submission refused", topic=delivery.topic, code=refused.code, reason=str(refused))
        if not await self._record(delivery, refused):
            return
        message = f"{refused} ({refused.hint})" if refused.hint else str(refused)
        receipt = encode(Receipt(job_id, Verdict.REJECTED, refused.code, message))
        await self._dispatcher.publish(Message(self._topics.receipt(job_id), receipt))
        reply = delivery.properties.response_topic
        if reply and reply.startswith(self._topics.replies()):
            properties = Properties(correlation=delivery.properties.correlation)
            await self._dispatcher.publish(Message(reply, receipt, properties=properties))

    async def _record(self, delivery: Delivery, refused: InputRefused) -> bool:
        rejection = Rejection(
            topic=delivery.topic,
            payload_sha256=payload_hash(delivery.payload),
            size=len(delivery.payload),
            code=refused.code,
            excerpt=_excerpt(delivery.payload),
        )
        return await self._until_answered(lambda: self._ledger.reject(rejection))

    async def _clear(self, topic: str) -> None:
        """Clear the intake topic. On MQTT 3.1.1 a live delivery does not tell whether it is
        retained, so every ingested topic is cleared; clearing an empty one is harmless.
        """
        try:
            await self._connection.publish(Message(topic, b"", retain=True))
        except (Unreachable, PublishRefused) as error:
            # It comes again at the next subscription and is a duplicate then.
            log.info("intake topic not cleared", topic=topic, reason=str(error))

    async def _until_answered(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask the ledger until it answers: the message stays unacknowledged meanwhile."""
        delay = 0.1
        while True:
            try:
                return await call()
            except Unreachable as error:
                log.warning("ledger away, intake waits", reason=str(error))
                await asyncio.sleep(delay * surroundings.chance().uniform(0.5, 1.5))
                delay = min(delay * 2, 5.0)


def _dropped_reason(code: str) -> str:
    match code:
        case Code.TOO_LARGE:
            return "too_large"
        case Code.TOO_DEEP | Code.PIPELINE_DEPTH_EXCEEDED:
            return "depth"
        case Code.MALFORMED | Code.DUPLICATE_KEY:
            return "invalid_json"
        case Code.MISMATCH:
            return "topic_mismatch"
        case _:
            return "schema"


def _excerpt(payload: bytes) -> str:
    text = payload[:EXCERPT_BYTES].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "·" for char in text)
