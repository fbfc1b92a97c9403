"""Intake, dispatch and chores on a ledger in memory: what is sent, cleared, acknowledged, and when."""

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent2389.broker.port import Properties
from agent2389.errors import InputRefused, Unreachable
from agent2389.ledger.records import Delivery
from agent2389.upkeep.accept import accept_document
from agent2389.upkeep.chores import INTERVALS, Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from agent2389.wire.topics import MeshTopics
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.recorded_broker import RecordedConnection
from tests.support.stepped import SteppedMemory
from tests.support.waiting import until

TOPICS = MeshTopics()


class House:
    """An intake with everything below it."""

    def __init__(self) -> None:
        self.ledger = SteppedMemory()
        self.broker = RecordedConnection()
        self.dispatcher = Dispatcher(self.ledger, self.broker)
        self.dropped: list[str] = []
        self.sources: list[str] = []
        self.intake = Intake(
            self.ledger,
            self.broker,
            self.dispatcher,
            on_dropped=self.dropped.append,
            on_submitted=lambda _, source: self.sources.append(source),
        )

    async def job(self, topic: str, payload: bytes | dict[str, Any], **how: Any) -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.intake.on_job(self.broker.delivery(topic, body, **how))

    async def envelope(self, agent: str, **changes: Any) -> dict[str, Any]:
        document = {
            "task_id": str(uuid.uuid4()),
            "conversation_id": "talk",
            "topic": f"/control/agents/{agent}/input",
            "instruction": "x",
            "input": {},
            "next": None,
        } | changes
        delivery = self.broker.delivery(f"/control/agents/{agent}/input", json.dumps(document).encode())
        await self.intake.on_protocol_input(delivery)
        return document

    def receipts(self, job_id: str | None) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.broker.on(TOPICS.receipt(job_id))]


@pytest.fixture
def house() -> House:
    return House()


def went_away(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> Callable[[], None]:
    """Let a method of the ledger be unreachable; the returned function brings it back."""

    async def away(*_: object, **__: object) -> None:
        raise Unreachable("ledger", "gone")

    original = getattr(target, name)
    monkeypatch.setattr(target, name, away)
    return lambda: monkeypatch.setattr(target, name, original)


# intake: jobs --------------------------------------------------------------------------


async def test_a_job_is_stored_then_told_then_cleared_then_acknowledged(house: House) -> None:
    await house.job(TOPICS.job("research", "one"), {"instruction": "x"}, retained=True)
    topics = [message.topic for message in house.broker.published]
    assert topics == [TOPICS.wake("research"), TOPICS.receipt("one"), TOPICS.job("research", "one")]
    assert house.broker.published[-1].payload == b""
    assert house.broker.published[-1].retain
    assert house.broker.acknowledged == 1
    assert house.receipts("one")[0]["verdict"] == "accepted"
    assert house.sources == ["mqtt"]


async def test_an_empty_payload_is_a_clear_and_ignored(house: House) -> None:
    for topic in (TOPICS.job("research", "one"), TOPICS.bare_job("research")):
        await house.job(topic, b"")
    await house.intake.on_cancel(house.broker.delivery(TOPICS.cancel("one"), b""))
    await house.intake.on_protocol_input(house.broker.delivery("/control/agents/r1/input", b""))
    assert house.broker.acknowledged == 4
    assert house.broker.published == []


async def test_while_the_ledger_is_away_nothing_is_acknowledged(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_back = went_away(monkeypatch, house.ledger, "submit")
    waiting = asyncio.create_task(house.job(TOPICS.job("research", "one"), {"instruction": "x"}))
    await asyncio.sleep(0.25)
    assert (house.broker.acknowledged, house.broker.published) == (0, [])
    come_back()
    await asyncio.wait_for(waiting, 10)
    assert house.broker.acknowledged == 1
    assert house.receipts("one")[0]["verdict"] == "accepted"


async def test_a_lost_clear_costs_nothing(house: House) -> None:
    topic = TOPICS.job("research", "one")
    house.broker.refused.add(topic)
    await house.job(topic, {"instruction": "x"}, retained=True)
    house.broker.refused.clear()
    await house.ledger.advance(10)
    await house.job(topic, {"instruction": "x"}, retained=True)
    assert [receipt["verdict"] for receipt in house.receipts("one")] == ["accepted", "duplicate"]
    assert house.broker.on(topic) == [b""]


async def test_a_repeat_within_two_seconds_gets_no_second_receipt(house: House) -> None:
    for _ in range(2):
        await house.job(TOPICS.job("research", "one"), {"instruction": "x"})
        await house.ledger.advance(0.5)
    assert len(house.receipts("one")) == 1
    await house.ledger.advance(5)
    await house.job(TOPICS.job("research", "one"), {"instruction": "other"})
    assert house.receipts("one")[-1]["verdict"] == "conflict"


async def test_bare_texts_of_a_minute_are_one_job(house: House) -> None:
    for _ in range(3):
        await house.job(TOPICS.bare_job("research"), b"do it")
        await house.ledger.advance(50)
    assert len(await house.ledger.jobs()) == 1, "the window slides"
    await house.ledger.advance(61)
    await house.job(TOPICS.bare_job("research"), b"do it")
    assert len(await house.ledger.jobs()) == 2


async def test_a_retained_bare_text_is_one_job_for_ever(house: House) -> None:
    for _ in range(2):
        await house.job(TOPICS.bare_job("research"), b"do it", retained=True)
        await house.ledger.advance(600)
    assert len(await house.ledger.jobs()) == 1


async def test_a_refusal_is_told_once_in_ten_seconds_and_never_stops_the_intake(house: House) -> None:
    topic = TOPICS.job("research", "bad")
    for _ in range(3):
        await house.job(topic, b"{")
    receipts = house.receipts("bad")
    assert [(receipt["verdict"], receipt["code"]) for receipt in receipts] == [("rejected", "malformed")]
    assert house.dropped == ["invalid_json"] * 3
    assert house.broker.acknowledged == 3
    await house.job(TOPICS.job("research", "good"), {"instruction": "x"})
    assert house.receipts("good")[0]["verdict"] == "accepted"


async def test_a_topic_that_is_none_of_ours_is_refused_without_an_id(house: House) -> None:
    await house.job("agent2389/v1/default/jobs/Re search/one", {"instruction": "x"})
    assert house.receipts(None)[0]["code"] == "invalid"


async def test_the_response_topic_hears_acceptance_and_refusal(house: House) -> None:
    reply = TOPICS.replies() + "me"
    properties = Properties(response_topic=reply, correlation=b"\x01\x02")
    await house.job(TOPICS.job("research", "one"), {"instruction": "x"}, properties=properties)
    await house.job(TOPICS.job("research", "two"), b"{", properties=properties)
    answers = [message for message in house.broker.published if message.topic == reply]
    assert [json.loads(answer.payload)["verdict"] for answer in answers] == ["accepted", "rejected"]
    assert {answer.properties.correlation for answer in answers} == {b"\x01\x02"}


async def test_an_answer_is_never_sent_to_a_topic_of_the_senders_choice(house: House) -> None:
    properties = Properties(response_topic="/control/agents/r1/input")
    await house.job(TOPICS.job("research", "one"), {"instruction": "x"}, properties=properties)
    assert house.receipts("one")[0]["code"] == "reply_topic"
    assert house.broker.on("/control/agents/r1/input") == []


async def test_inline_files_become_blobs_and_leave_the_document(house: House) -> None:
    content = base64.b64encode(b"some text").decode()
    await house.job(
        TOPICS.job("research", "one"),
        {"instruction": "x", "files": [{"name": "a.txt", "content_base64": content}]},
    )
    detail = await house.ledger.job("one")
    assert "content_base64" not in json.dumps(detail.submission)
    digest = detail.submission["files"][0]["sha256"]
    assert (await house.ledger.get_blob(digest)).content == b"some text"


async def test_cancellations_are_answered(house: House) -> None:
    await house.ledger.submit(new_job("one"))
    for _ in range(2):
        await house.intake.on_cancel(house.broker.delivery(TOPICS.cancel("one"), b"{}"))
    await house.intake.on_cancel(house.broker.delivery(TOPICS.cancel("nobody"), b"{}"))
    told = [(receipt["verdict"], receipt.get("state")) for receipt in house.receipts("one")]
    assert told == [("accepted", "cancelled"), ("duplicate", "cancelled")]
    assert house.receipts("nobody")[0]["code"] == "unknown_job"
    assert house.broker.acknowledged == 3


async def test_pools_are_served_and_left(house: House) -> None:
    await house.intake.serve_pools(("research",))
    await house.intake.serve_protocol("r1")
    assert set(house.broker.handlers) == {
        *TOPICS.intake_filters("research"),
        TOPICS.cancel_filter(),
        TOPICS.approval_answer_filter(),
        "/control/agents/r1/input",
    }
    await house.intake.leave_pools()
    assert set(house.broker.handlers) == {"/control/agents/r1/input"}


async def test_after_a_burst_the_intake_subscribes_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.upkeep.intake.BURST", 2)
    await house.intake.serve_pools()
    running = asyncio.create_task(house.intake.run())
    try:
        await asyncio.sleep(0)
        for number in range(2):
            await house.job(TOPICS.job("research", f"j{number}"), {"instruction": "x"})
        await until(lambda: house.broker.resubscribed)
    finally:
        running.cancel()
    assert set(house.broker.resubscribed) == set(TOPICS.intake_filters())


# intake: the protocol --------------------------------------------------------------------


async def test_an_envelope_becomes_a_job_once_and_repeats_are_silent(house: House) -> None:
    await join(house.ledger, "r1")
    document = await house.envelope("r1")
    await house.envelope("r1", **document)
    assert len(await house.ledger.jobs()) == 1
    assert house.dropped == ["duplicate"]
    assert house.receipts(None) == []
    assert house.broker.acknowledged == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"task_id": "no-uuid"}, "invalid_input"),
        ({"instruction": 5}, "invalid_input"),
        ({"next": {"topic": "elsewhere"}}, "invalid_input"),
        ({"next": 5}, "invalid_input"),
    ],
)
async def test_a_bad_envelope_is_answered_on_its_conversation(
    house: House, changes: dict[str, Any], code: str
) -> None:
    await join(house.ledger, "r1")
    await house.envelope("r1", **changes)
    answers = house.broker.on("/conversations/talk/r1")
    assert json.loads(answers[0])["error"]["code"] == code
    assert await house.ledger.jobs() == ()


async def test_retained_foreign_and_mismatched_envelopes_are_ignored(house: House) -> None:
    await join(house.ledger, "r1")
    await house.envelope("stranger")
    await house.envelope("r1", topic="/control/agents/other/input")
    retained = house.broker.delivery("/control/agents/r1/input", b"{}", retained=True)
    await house.intake.on_protocol_input(retained)
    assert house.dropped == ["topic_mismatch", "retained"]
    assert house.broker.published == []
    assert house.broker.acknowledged == 3


async def test_slashes_more_or_less_are_the_same_topic(house: House) -> None:
    await join(house.ledger, "r1")
    await house.envelope("r1", topic="control//agents/r1/input/")
    assert len(await house.ledger.jobs()) == 1


# accept ----------------------------------------------------------------------------------


async def test_a_stored_blob_may_be_named_instead_of_sent(house: House) -> None:
    digest = await house.ledger.put_blob(b"large", "text/plain")
    body = {"instruction": "x", "files": [{"name": "a", "sha256": digest}]}
    submitted = await accept_document(house.ledger, json.dumps(body).encode())
    assert submitted.verdict == "accepted"
    body["files"] = [{"name": "a", "sha256": "0" * 64}]
    with pytest.raises(InputRefused, match="no blob"):
        await accept_document(house.ledger, json.dumps(body).encode())


# dispatch --------------------------------------------------------------------------------


async def test_what_could_not_be_sent_stays_and_goes_out_later(house: House) -> None:
    house.broker.away = True
    await house.job(TOPICS.job("research", "one"), {"instruction": "x"})
    assert house.broker.published == []
    house.broker.away = False
    await house.ledger.advance(3)
    await house.dispatcher.send_leftovers()
    assert house.receipts("one")[0]["verdict"] == "accepted"
    await house.ledger.advance(30)
    await house.dispatcher.send_leftovers()
    assert len(house.receipts("one")) == 1


async def test_what_the_broker_refuses_for_a_while_goes_out_when_it_may(house: House) -> None:
    house.broker.refused.add(TOPICS.receipt("one"))
    await house.job(TOPICS.job("research", "one"), {"instruction": "x"})
    await house.ledger.advance(60)
    await house.dispatcher.send_leftovers()
    assert house.receipts("one") == []
    house.broker.refused.clear()
    await house.ledger.advance(60)
    await house.dispatcher.send_leftovers()
    assert house.receipts("one")[0]["verdict"] == "accepted"


async def test_a_reply_topic_that_is_not_ours_to_use_is_given_up(house: House) -> None:
    reply = TOPICS.replies() + "me"
    house.broker.refused.add(reply)
    properties = Properties(response_topic=reply)
    await house.job(TOPICS.job("research", "one"), {"instruction": "x"}, properties=properties)
    assert house.receipts("one")[0]["verdict"] == "accepted"
    await house.ledger.advance(60)
    assert await house.ledger.take_outbox(10) == ()


async def test_a_refused_board_topic_is_sent_again_when_it_may(house: House) -> None:
    submitted = await house.ledger.submit(new_job("one"))
    (task,) = (await house.ledger.job("one")).tasks
    topic = TOPICS.open("research", task.task_id, task.epoch)
    house.broker.refused.add(topic)
    await house.dispatcher.perform(submitted.effects)
    await flush_later(house)
    house.broker.refused.clear()
    await flush_later(house)
    assert house.broker.on(topic) == [], "somebody may still be sending it"
    await house.ledger.advance(11)
    await flush_later(house)
    assert len(house.broker.on(topic)) == 1


async def flush_later(house: House) -> None:
    """The board is brought in line at most five times a second."""
    await house.ledger.advance(1)
    await house.dispatcher.flush()


async def test_the_board_shows_what_is_open_claimed_and_done(house: House) -> None:
    incarnation = await join(house.ledger)
    submitted = await house.ledger.submit(new_job("one"))
    await house.dispatcher.perform(submitted.effects)
    await flush_later(house)
    claim = await claim_one(house.ledger, incarnation)
    shown_open = TOPICS.open("research", claim.fence.task_id, claim.fence.epoch - 1)
    assert len(house.broker.on(shown_open)) == 1
    assert b"do it" not in house.broker.on(shown_open)[0], "ids only, no instructions"
    await flush_later(house)
    shown_claim = TOPICS.claim(claim.fence.task_id, claim.fence.epoch)
    assert house.broker.on(shown_open)[-1] == b""
    assert json.loads(house.broker.on(shown_claim)[0])["agent_id"] == "r1"
    assert claim.fence.token.encode() not in b"".join(m.payload for m in house.broker.published)
    written = await house.ledger.finish(claim.fence, finish("text"), "one")
    await house.dispatcher.perform(written.effects)
    await flush_later(house)
    assert house.broker.on(shown_claim)[-1] == b""
    assert json.loads(house.broker.on(TOPICS.result("one"))[0])["result"]["text"] == "text"
    kinds = [json.loads(payload)["type"] for payload in house.broker.on(TOPICS.event("one"))]
    assert kinds[0] == "job.accepted"
    assert kinds[-1] == "job.completed"


async def test_a_board_row_that_did_not_go_out_is_sent_again(house: House) -> None:
    await house.ledger.submit(new_job("one"))
    await house.ledger.cancel("one", "me")
    house.broker.away = True
    await house.dispatcher.flush()
    house.broker.away = False
    await house.dispatcher.flush()
    assert len(house.broker.on(TOPICS.result("one"))) == 1
    await house.ledger.board_reset()
    await house.dispatcher.flush()
    assert len(house.broker.on(TOPICS.result("one"))) == 2


async def test_a_delivery_that_cannot_be_forgotten_is_sent_again_and_stops_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(ids: object) -> None:
        raise Unreachable("ledger", "the connection broke after the statement")

    topic = TOPICS.job("research", "one")
    with monkeypatch.context() as broken:
        broken.setattr(house.ledger, "outbox_sent", away)
        await house.job(topic, {"instruction": "x"}, retained=True)
    assert house.broker.acknowledged == 1
    assert house.broker.on(topic) == [b""], "cleared although the ledger went away after the commit"
    await house.ledger.advance(3)
    await house.dispatcher.send_leftovers()
    await house.dispatcher.send_leftovers()
    assert len(house.broker.on(TOPICS.receipt("one"))) == 2


async def test_board_rows_are_not_sent_on_a_lease_that_is_nearly_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job_id in ("one", "two"):
        await house.ledger.submit(new_job(job_id))
        await house.ledger.cancel(job_id, "me")
    await house.ledger.advance(1)
    loop, sent = asyncio.get_running_loop(), len(house.broker.published)
    moments = iter((0.0, 1.0, 9.0))
    monkeypatch.setattr(loop, "time", lambda: next(moments, 9.0))
    await house.dispatcher.flush()
    monkeypatch.undo()
    assert len(house.broker.published) == sent + 1


async def test_events_can_be_switched_off(house: House) -> None:
    silent = Dispatcher(house.ledger, house.broker, events=False)
    await silent.perform((await house.ledger.submit(new_job("one"))).effects)
    await silent.flush()
    assert house.broker.on(TOPICS.event("one")) == []


async def test_a_burst_is_flushed_by_the_runner(house: House) -> None:
    running = asyncio.create_task(house.dispatcher.run())
    try:
        await house.dispatcher.perform((await house.ledger.submit(new_job("one"))).effects)
        await until(lambda: house.broker.on(TOPICS.event("one")))
    finally:
        running.cancel()
    assert house.broker.on(TOPICS.wake("research"))


def test_a_delivery_without_a_topic_goes_to_the_receipts(house: House) -> None:
    row = Delivery(id=1, tenant="default", kind="receipt", job_id=None, body="{}")
    asyncio.run(house.dispatcher.deliver([row]))
    assert house.broker.published[0].topic == TOPICS.receipt(None)


# chores ----------------------------------------------------------------------------------


async def test_a_chore_is_taken_by_one_of_many(house: House) -> None:
    await house.ledger.submit(new_job("one"))
    await house.ledger.cancel("one", "me")
    chores = [Chores(house.ledger, house.dispatcher) for _ in range(5)]
    await asyncio.gather(*(each.run_due(["board", "unknown"]) for each in chores))
    assert len(house.broker.on(TOPICS.result("one"))) == 1


async def test_chores_ring_reap_and_clear_presence(house: House) -> None:
    chores = Chores(house.ledger, house.dispatcher)
    incarnation = await join(house.ledger)
    await house.ledger.submit(new_job("one"))
    await claim_one(house.ledger, incarnation)
    await house.ledger.advance(40)
    await chores.run_due(["reap"])
    await house.ledger.advance(400)
    await chores.run_due(["ring"])
    rings = [json.loads(payload) for payload in house.broker.on(TOPICS.wake("research"))]
    assert [ring["job_id"] for ring in rings] == ["one"]
    await chores.run_due(["retention"])
    assert house.broker.on(TOPICS.presence("r1", incarnation)) == [b""]


async def test_a_chore_survives_the_loss_of_the_ledger(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.upkeep.chores.INTERVALS", dict.fromkeys(INTERVALS, 0.02))
    come_back = went_away(monkeypatch, house.ledger, "take_chore")
    await house.ledger.submit(new_job("one"))
    await house.ledger.cancel("one", "me")
    with capture_logs() as lines:
        running = asyncio.create_task(Chores(house.ledger, house.dispatcher).run())
        try:
            await asyncio.sleep(0.1)
            assert not running.done()
            assert house.broker.published == []
            come_back()
            await until(lambda: house.broker.on(TOPICS.result("one")))
        finally:
            running.cancel()
    told = [line["event"] for line in lines if line.get("chore") == "board"]
    assert told == ["chore waits", "chore runs again"], "one line at each end of an outage"
