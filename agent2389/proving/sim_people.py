"""The people around a simulated mesh: producers who repeat until they are answered, one who decides."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import msgspec

from agent2389.broker.memory import MemoryBroker
from agent2389.broker.port import Delivery, Message
from agent2389.errors import Agent2389Error, Unreachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Written
from agent2389.ledger.states import JobState, TaskState
from agent2389.proving.sim_ledger import over
from agent2389.proving.sim_loop import EPOCH
from agent2389.proving.sim_world import World
from agent2389.telemetry import surroundings
from agent2389.upkeep.accept import accept_document
from agent2389.wire.receipts import Code, Receipt, Verdict
from agent2389.wire.status import timestamp
from agent2389.wire.topics import MeshTopics, parse_last_level

CAPABILITIES = ("research", "research", "writing", "editing", "general")
HUMAN_PAUSE = 12.0
TOPICS = MeshTopics()


class Wish(msgspec.Struct, frozen=True):
    """One job that somebody wants done. Times are seconds of the simulation."""

    job_id: str
    capability: str
    at: float
    door: str
    deadline_after: float | None = None
    cancel_after: float | None = None
    quarrel: bool = False

    def document(self, instruction: str) -> bytes:
        """The submission."""
        body: dict[str, Any] = {"instruction": instruction, "capability": self.capability}
        body["job_id"] = self.job_id
        if self.deadline_after is not None:
            moment = EPOCH + timedelta(seconds=round(self.at + self.deadline_after))
            body["deadline"] = timestamp(moment)
        return json.dumps(body, sort_keys=True).encode()


def wishes(world: World, count: int, seconds: float) -> list[Wish]:
    """``count`` different jobs over ``seconds``."""
    chance = world.chance
    return [
        Wish(
            job_id=f"job-{number}",
            capability=chance.choice(CAPABILITIES),
            at=chance.uniform(0.0, seconds),
            door=chance.choice(("retained", "retained", "message", "http")),
            deadline_after=chance.uniform(20.0, 150.0) if chance.random() < 0.1 else None,
            cancel_after=chance.uniform(0.5, 30.0) if chance.random() < 0.2 else None,
            quarrel=chance.random() < 0.1,
        )
        for number in range(count)
    ]


class Producers:
    """Rule: no receipt, so say it again. ``receipts`` and ``results`` are what the broker told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger: Ledger = over(world.wire, "producers", world.ledger)
        self.receipts: dict[str, list[Receipt]] = {}
        self.results: dict[str, set[bytes]] = {}
        self.accepted: set[str] = set()

    async def run(self, wanted: list[Wish]) -> None:
        """Until every job is accepted or refused."""
        broker = MemoryBroker(self._world.server)
        self._connection = await broker.connect("producers")
        await self._connection.subscribe(TOPICS.receipt("+"), self._on_receipt)
        await self._connection.subscribe(TOPICS.result_filter(), self._on_result)
        async with asyncio.TaskGroup() as group:
            for wish in wanted:
                group.create_task(self._one(wish))
                if wish.cancel_after is not None:
                    group.create_task(self._cancel(wish))
        self._world.note("producers: every job is answered")

    async def _on_receipt(self, delivery: Delivery) -> None:
        receipt = msgspec.json.decode(delivery.payload, type=Receipt)
        job_id = parse_last_level(delivery.topic)
        self._world.note(f"producers: receipt {job_id} {receipt.verdict} {receipt.code or ''}")
        if receipt.note == "cancel":
            return
        self.receipts.setdefault(job_id, []).append(receipt)
        if receipt.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE):
            self.accepted.add(job_id)

    async def _on_result(self, delivery: Delivery) -> None:
        if delivery.payload:
            job_id = parse_last_level(delivery.topic)
            self._world.note(f"producers: result {job_id} {len(delivery.payload)} bytes")
            self.results.setdefault(job_id, set()).add(delivery.payload)

    async def _one(self, wish: Wish) -> None:
        await asyncio.sleep(wish.at)
        document = wish.document("do it")
        while not self._is_answered(wish):
            await (self._post(wish, document) if wish.door == "http" else self._publish(wish, document))
            await asyncio.sleep(surroundings.chance().uniform(4.0, 15.0))
        if wish.quarrel:
            await self._publish(wish, wish.document("do something else"))

    def _is_answered(self, wish: Wish) -> bool:
        told = self.receipts.get(wish.job_id, [])
        late = any(item.verdict is Verdict.REJECTED and item.code == Code.EXPIRED for item in told)
        return wish.job_id in self.accepted or late

    async def _publish(self, wish: Wish, document: bytes) -> None:
        topic = TOPICS.job(wish.capability, wish.job_id)
        await self._send(Message(topic, document, retain=wish.door == "retained"))

    async def _post(self, wish: Wish, document: bytes) -> None:
        """HTTP through a process that dies after its commit: no doorbell rings."""
        try:
            submitted = await accept_document(self._ledger, document)
        except Unreachable:
            return
        except Agent2389Error as error:
            self.receipts.setdefault(wish.job_id, []).append(
                Receipt(wish.job_id, Verdict.REJECTED, getattr(error, "code", None))
            )
            return
        self.accepted.add(submitted.job_id)

    async def _cancel(self, wish: Wish) -> None:
        await asyncio.sleep(wish.at + (wish.cancel_after or 0.0))
        await self._send(Message(TOPICS.cancel(wish.job_id), b"stop"))

    async def _send(self, message: Message) -> None:
        try:
            await self._connection.publish(message)
        except Unreachable:
            return  # it is said again when no receipt comes


class Person:
    """Answers whatever waits for a person, one way or another."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger: Ledger = over(world.wire, "person", world.ledger)
        self.decided = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(surroundings.chance().uniform(2.0, HUMAN_PAUSE))
            try:
                for row in await self._ledger.jobs(state=JobState.WAITING, limit=20):
                    await self._look_at(row.job_id)
            except Agent2389Error as error:
                self._world.note(f"person: {error}")

    async def _look_at(self, job_id: str) -> None:
        detail = await self._ledger.job(job_id)
        for task in detail.tasks:
            if task.state is not TaskState.ESCALATED:
                continue
            has_result = task.result is not None
            action = surroundings.chance().choice(("retry", "answer", "cancel", "accept"))
            if action == "accept" and not has_result:
                action = "answer"
            written: Written = await self._ledger.decide(
                task.task_id, action, job_id=job_id, actor="ann", words="because I say so"
            )
            self.decided += written.verdict == "ok"
