"""A person's word on ``approvals/{id}/answer``: counted once, for exactly what was shown, else refused."""

import hashlib
import json
from typing import Any

import pytest

from agent2389.errors import Unreachable
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import ApprovalRequest, Waiting
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from agent2389.wire.topics import MeshTopics, parse_approval_answer
from tests.support.jobs import claim_one, join, new_job
from tests.support.recorded_broker import RecordedConnection

TOPICS = MeshTopics()
SHA256 = hashlib.sha256(b"{}").hexdigest()


class Desk:
    """An intake, and a task that asks for one approval."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.broker = RecordedConnection()
        self.dropped: list[str] = []
        dispatcher = Dispatcher(self.ledger, self.broker)
        self.intake = Intake(self.ledger, self.broker, dispatcher, on_dropped=self.dropped.append)

    async def ask(self) -> None:
        incarnation = await join(self.ledger)
        await self.ledger.submit(new_job())
        claim = await claim_one(self.ledger, incarnation)
        asked = ApprovalRequest(
            approval_id="ask-1", tool="delete", arguments="{}", arguments_sha256=SHA256, question="?"
        )
        await self.ledger.wait(claim.fence, Waiting(reason="approval", approvals=(asked,)))

    async def say(self, payload: bytes | dict[str, Any], approval_id: str = "ask-1") -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        delivery = self.broker.delivery(TOPICS.approval_answer(approval_id), body)
        await self.intake.on_approval_answer(delivery)

    async def state(self) -> str:
        return (await self.ledger.approvals())[0].state


@pytest.fixture
async def desk() -> Desk:
    desk = Desk()
    await desk.ask()
    return desk


def word(**changes: Any) -> dict[str, Any]:
    return {"decision": "approved", "arguments_sha256": SHA256, "actor": "ann", "nonce": "n1"} | changes


def test_the_topic_names_the_approval() -> None:
    assert parse_approval_answer(TOPICS.approval_answer("ask-1")) == "ask-1"
    assert TOPICS.approval_answer("+") == TOPICS.approval_answer_filter()


@pytest.mark.parametrize(
    ("said", "state"),
    [("approved", "approved"), ("approve", "approved"), ("rejected", "rejected"), ("reject", "rejected")],
)
async def test_a_decision_is_kept_and_the_task_woken(desk: Desk, said: str, state: str) -> None:
    await desk.say(word(decision=said, reason="because"))
    row = (await desk.ledger.approvals())[0]
    assert (row.state, row.actor, row.reason) == (state, "ann", "because")
    assert len(desk.broker.on(TOPICS.wake("research"))) == 1
    assert desk.broker.acknowledged == 1
    await desk.say(word(decision=said, nonce="n2"))
    assert (desk.broker.acknowledged, desk.dropped) == (2, [])
    assert len(desk.broker.on(TOPICS.wake("research"))) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"yes",
        b"[]",
        b"[" * 5000,
        b"x" * 9000,
        b"\xff",
        word(decision="maybe"),
        word(arguments_sha256="short"),
        word(arguments_sha256=hashlib.sha256(b"else").hexdigest()),
        word(actor=""),
        word(actor="a" * 65),
        word(actor="a\u0000b"),
        word(actor="a\nb"),
        word(reason="a\u0000b"),
        word(reason="x" * 501),
        word(actor=5),
        {"decision": "approved", "actor": "ann"},
    ],
)
async def test_anything_else_is_dropped_and_counted(desk: Desk, payload: Any) -> None:
    await desk.say(payload)
    assert (await desk.state(), desk.dropped, desk.broker.acknowledged) == ("pending", ["schema"], 1)
    await desk.say(word())
    assert await desk.state() == "approved"


async def test_decisions_about_nothing_or_too_late_are_dropped(desk: Desk) -> None:
    await desk.say(word(), "ask-2")
    await desk.say(word())
    await desk.say(word(decision="rejected"))
    assert (await desk.state(), desk.dropped) == ("approved", ["schema", "schema"])


async def test_a_cleared_topic_says_nothing(desk: Desk) -> None:
    await desk.say(b"")
    assert (await desk.state(), desk.dropped, desk.broker.acknowledged) == ("pending", [], 1)


async def test_the_answer_waits_for_the_ledger(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = desk.ledger.decide_approval
    away = [True]

    async def sometimes(*arguments: Any, **named: Any) -> Any:
        if away and away.pop():
            assert desk.broker.acknowledged == 0
            raise Unreachable("ledger", "gone")
        return await decide(*arguments, **named)

    monkeypatch.setattr(desk.ledger, "decide_approval", sometimes)
    await desk.say(word())
    assert (await desk.state(), desk.broker.acknowledged) == ("approved", 1)
