"""Tasks for agents of others, on a ledger and a broker in memory: what is sent, what an answer ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from agent2389.agent.handoff import HandOff
from agent2389.agent.loop import Answer
from agent2389.agent.parts import Observer
from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.broker.port import Connection, Delivery, Message
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import FileRef, Usage
from agent2389.ledger.states import TaskState
from agent2389.router.port import Candidate, Decision, Outcome, Situation, Target
from agent2389.upkeep.chores import Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.foreign import Foreign
from agent2389.upkeep.roster import RosterReader, RosterTeller
from agent2389.wire.envelope import read_answer, write_envelope
from agent2389.wire.mesh import Stranger, read_roster
from agent2389.wire.topics import MeshTopics, conversation, protocol_input, protocol_status
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.waiting import until


class Other:
    """An agent of somebody else: remembers envelopes, says what a test lets it say."""

    def __init__(self, connection: Connection, agent_id: str = "theirs") -> None:
        self.connection = connection
        self.agent_id = agent_id
        self.envelopes: list[dict[str, Any]] = []

    async def appear(self, **changes: Any) -> None:
        await self.connection.subscribe(protocol_input(self.agent_id), self._on_input)
        await self.say_status(**changes)

    async def say_status(self, **changes: Any) -> None:
        said = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        body = {"agent_id": self.agent_id, "status": "available", "timestamp": said} | changes
        message = Message(protocol_status(self.agent_id), json.dumps(body).encode(), retain=True)
        await self.connection.publish(message)

    async def answer(self, body: dict[str, Any] | bytes, envelope: dict[str, Any] | None = None) -> None:
        envelope = envelope or self.envelopes[-1]
        if isinstance(body, dict):
            body = json.dumps({"task_id": envelope["task_id"], **body}).encode()
        topic = conversation(envelope["conversation_id"], self.agent_id)
        await self.connection.publish(Message(topic, body))

    async def _on_input(self, delivery: Delivery) -> None:
        self.envelopes.append(json.loads(delivery.payload))


class Place:
    """One mesh's ledger and two of its processes, and one other agent on the same broker."""

    def __init__(
        self, ledger: MemoryLedger, server: MemoryServer, foreign: list[Foreign], other: Other
    ) -> None:
        self.ledger = ledger
        self.server = server
        self.foreign = foreign
        self.other = other

    async def submit(self, **changes: Any) -> None:
        await self.ledger.submit(new_job("one", capability=None, agent="theirs", **changes))

    async def look(self) -> None:
        for each in self.foreign:
            await each.look()

    async def state(self) -> TaskState:
        return (await self.ledger.job("one")).tasks[0].state

    async def sent(self, count: int = 1) -> dict[str, Any]:
        async def looked() -> bool:
            await self.look()
            return len(self.other.envelopes) >= count

        await until(looked)
        return self.other.envelopes[-1]


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    ledger, server = MemoryLedger(), MemoryServer()
    broker = MemoryBroker(server)
    foreign = []
    for name in ("ops", "agent"):
        connection = await broker.connect(name)
        await connection.wait_connected(5)
        foreign.append(Foreign(ledger, connection, Dispatcher(ledger, connection)))
    theirs = await broker.connect("theirs")
    await theirs.wait_connected(5)
    yield Place(ledger, server, foreign, Other(theirs))
    await broker.close()


async def test_a_task_for_a_foreign_agent_is_sent_once_and_its_answer_is_the_result(place: Place) -> None:
    await place.other.appear()
    await place.submit(instruction="Do it.", input={"a": 1}, conversation_id="talk")
    envelope = await place.sent()
    await place.look()
    assert len(place.other.envelopes) == 1
    assert envelope["topic"] == "/control/agents/theirs/input"
    assert (envelope["instruction"], envelope["input"], envelope["next"]) == ("Do it.", {"a": 1}, None)
    assert envelope["conversation_id"] == "talk"
    assert envelope["task_id"][14] == "4"
    assert await place.state() is TaskState.FORWARDED
    await place.other.answer({"response": "It is done."})
    await until(lambda: _ended(place))
    detail = await place.ledger.job("one")
    assert json.loads(detail.final or "")["state"] == "completed"
    assert json.loads(detail.final or "")["result"]["text"] == "It is done."


async def _ended(place: Place) -> bool:
    return (await place.ledger.job("one")).final is not None


async def test_nothing_is_sent_to_somebody_unknown_gone_silent_or_ours(place: Place) -> None:
    await place.submit()
    await place.other.connection.subscribe(protocol_input("theirs"), place.other._on_input)
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for changes in (
        None,
        {"status": "unavailable"},
        {"timestamp": long_ago},
        {"timestamp": (datetime.now(UTC) - timedelta(seconds=30)).isoformat(), "interval_s": 10},
        {"mesh_id": await place.ledger.mesh_id()},
        {"capabilities": {"no": "list"}},
    ):
        if changes is not None:
            await place.other.say_status(**changes)
        for _ in range(3):
            await place.look()
            await asyncio.sleep(0)
        assert place.other.envelopes == []
        assert await place.state() is TaskState.QUEUED
    await place.other.say_status(timestamp=long_ago, interval_s=4000)
    await until(lambda: place.other.envelopes)


async def test_a_waiting_task_goes_out_when_the_agent_comes(place: Place) -> None:
    await place.submit()
    await place.look()
    await place.other.appear()
    await until(lambda: place.other.envelopes)  # nobody looked again: the status did it


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"response": '{"result": "kept as it is"}'}, '{"result": "kept as it is"}'),
        ({"response": {"parsed": [1, 2]}}, '{"parsed":[1,2]}'),
        ({"response": 5}, "5"),
        ({"response": "x" * 200_000}, None),
    ],
    ids=["string", "object", "number", "large"],
)
async def test_answers_of_every_shape_are_taken(place: Place, body: dict[str, Any], text: str | None) -> None:
    await place.other.appear()
    await place.submit()
    await place.sent()
    await place.other.answer(body)
    await until(lambda: _ended(place))
    result = json.loads((await place.ledger.job("one")).final or "")["result"]
    if text is not None:
        assert result["text"] == text
    else:
        blob = await place.ledger.get_blob(result["files"][0]["sha256"])
        assert len(blob.content) == 200_000


async def test_an_error_is_a_failed_attempt_and_the_next_has_another_id(place: Place) -> None:
    await place.other.appear()
    await place.submit()
    first = await place.sent()
    await place.other.answer({"error": {"code": "llm_error", "message": "the model is away"}})

    async def retried() -> bool:
        return (await place.ledger.job("one")).tasks[0].attempt == 1

    await until(retried)
    second = await place.sent(2)
    assert second["task_id"] != first["task_id"]
    await place.other.answer({"response": "late"}, first)  # the first attempt is over
    await place.other.answer({"response": "in time"})
    await until(lambda: _ended(place))
    assert json.loads((await place.ledger.job("one")).final or "")["result"]["text"] == "in time"


async def test_what_is_no_answer_ends_nothing(place: Place) -> None:
    await place.other.appear()
    await place.submit()
    envelope = await place.sent()
    for body in (
        b"",
        b"not json",
        b"[]",
        b'{"response": "whose?"}',
        b'{"task_id": "' + envelope["task_id"].encode() + b'"}',
        b'{"task_id": 5, "response": "x"}',
        b"[" * 100_000,
    ):
        await place.other.answer(body)
    await place.other.answer({"error": {"code": "invalid_input", "message": "Duplicate task_id"}})
    await place.other.answer({"response": "x", "task_id": "another"})
    await place.other.answer({"response": "it"})
    await until(lambda: _ended(place))
    task = (await place.ledger.job("one")).tasks[0]
    assert task.attempt == 0


async def test_a_chain_goes_on_from_a_foreign_agent_to_one_of_ours(place: Place) -> None:
    incarnation = await join(place.ledger, "ours", "writing")
    await place.other.appear()
    link = {"topic": "/control/agents/ours/input", "instruction": "Then this.", "input": None, "next": None}
    await place.submit(next=link)
    await place.sent()
    await place.other.answer({"response": "half way"})

    async def claimable() -> bool:
        return len((await place.ledger.job("one")).tasks) == 2

    await until(claimable)
    claim = await claim_one(place.ledger, incarnation)
    assert (claim.instruction, claim.input) == ("Then this.", "half way")
    await place.ledger.finish(claim.fence, finish("all of it"), "one")
    route = json.loads((await place.ledger.job("one")).final or "")["route"]
    assert [hop["agent_id"] for hop in route] == ["theirs", "ours"]


async def test_a_large_input_goes_out_whole_and_one_too_large_is_told(place: Place) -> None:
    await place.other.appear()
    content = "a line\n" * 30_000
    digest = await place.ledger.put_blob(content.encode(), "text/plain")
    file = FileRef(digest, len(content), "text/plain", "input.txt", "a line")
    reference = {"sha256": digest, "size": len(content), "media_type": "text/plain", "name": "input.txt"}
    await place.submit(input={**reference, "preview": "a line"}, files=(file,))
    assert (await place.sent())["input"] == content
    await place.other.answer({"response": "read"})
    await until(lambda: _ended(place))
    too_large = await place.ledger.put_blob(b"x" * 300_000, "text/plain")
    given = {**reference, "sha256": too_large, "preview": "x"}
    await place.ledger.submit(new_job("two", capability=None, agent="theirs", input=given))
    await place.look()
    task = (await place.ledger.job("two")).tasks[0]
    assert task.attempt == 1
    assert "bytes" in (task.error or {})["message"]


async def test_another_process_picks_the_answer_up_when_the_sender_died(place: Place) -> None:
    await place.other.appear()
    await place.submit()
    first, second = place.foreign
    await until(lambda: _sent_by(first, place))
    await second.look()
    place.server.drop("ops", "it died")
    await place.other.answer({"response": "heard by the other"})
    await until(lambda: _ended(place))
    assert json.loads((await place.ledger.job("one")).final or "")["result"]["text"] == "heard by the other"


async def _sent_by(foreign: Foreign, place: Place) -> bool:
    await foreign.look()
    return bool(place.other.envelopes)


async def test_the_chore_forwards(place: Place) -> None:
    await place.other.appear()
    await place.submit()
    chores = Chores(place.ledger, place.foreign[0]._dispatcher, foreign=place.foreign[0])
    await chores.run_due(["foreign"])
    await until(lambda: place.other.envelopes)


def test_input_of_any_type_has_a_form_that_others_know() -> None:
    for given, expected in ((None, {}), ("text", "text"), ({"a": 1}, {"a": 1}), ([1, 2], "[1,2]"), (5, "5")):
        body = write_envelope(task_id="t", conversation_id="c", topic="/x", instruction=None, input_=given)
        assert json.loads(body)["input"] == expected


def test_an_error_in_any_shape_has_a_code() -> None:
    answer = read_answer(b'{"task_id": "ABC", "error": "just text"}')
    assert answer is not None
    assert (answer.task_id, answer.code, answer.text) == ("abc", "internal_error", "just text")


# what others can do ----------------------------------------------------------------------


async def test_agents_learn_from_one_topic_who_else_is_there(place: Place) -> None:
    neighbours = place.foreign[0].neighbours
    await neighbours.follow_all()
    connection = place.other.connection
    teller = RosterTeller(neighbours, connection, "default")
    reader = await RosterReader.listening(connection, "default")
    await place.other.say_status(capabilities=["Painting", "not a name!"], description="Paints.")
    await until(neighbours.available)
    await teller.tell()
    listed = await until(reader.strangers)
    expected = [Stranger(agent_id="theirs", capabilities=("painting",), description="Paints.")]
    assert list(listed) == expected
    await teller.tell()  # nothing changed, nothing is said
    assert place.server.retained[MeshTopics().neighbours()].payload
    await place.other.say_status(status="unavailable")
    await until(lambda: not neighbours.available())
    await teller.tell()
    await until(lambda: not reader.strangers())
    assert MeshTopics().neighbours() not in place.server.retained


class Chooses:
    """A router that hands on to one capability of the candidates, and remembers them."""

    def __init__(self, capability: str) -> None:
        self.capability = capability
        self.seen: tuple[Candidate, ...] = ()

    async def decide(self, situation: Situation) -> Decision:
        self.seen = situation.candidates
        target = Target(capability=self.capability)
        return Decision(outcome=Outcome.HAND_OFF, strategy="test", reason="it fits", targets=(target,))


@pytest.mark.parametrize(
    ("capability", "bound"), [("painting", "theirs"), ("research", None), ("writing", None)]
)
async def test_a_hand_off_reaches_others_for_what_only_they_can_do(
    capability: str, bound: str | None
) -> None:
    ledger = MemoryLedger()
    incarnation = await join(ledger, "ours", "research", "writing")
    strangers = (
        Stranger(agent_id="theirs", capabilities=("painting", "writing"), description="Paints."),
        Stranger(agent_id="nobody", capabilities=()),
    )
    handoff = HandOff(ledger, "ours", Observer(), strangers=lambda: strangers)
    await ledger.submit(new_job("one"))
    claim = await claim_one(ledger, incarnation)
    router, answer = Chooses(capability), Answer("done", "model", rehearsal=False)
    decision, seconds = await handoff.decide(claim, answer, router)
    assert {item.capability: item.agents for item in router.seen} == {
        "research": ("ours",),
        "writing": ("ours",),
        "painting": ("theirs",),
    }
    made = await handoff.finish(claim, answer, decision, seconds=seconds, used=Usage(), manifest={})
    (task,) = made.next
    assert (task.agent, task.capability) == (bound, None if bound else capability)
    await ledger.finish(claim.fence, made, "one")
    waiting = await ledger.foreign_tasks(10)
    assert [task.agent_id for task in waiting] == ([bound] if bound else [])


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b'{"agents": 5}', b'{"agents": [{"agent_id": 5}]}'], ids=str
)
def test_a_broken_roster_is_an_empty_one(body: bytes) -> None:
    assert read_roster(body) == ()
