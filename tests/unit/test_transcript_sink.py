"""The copy of transcripts never holds an agent up, never fails it, and writes in order."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from agent2389.errors import Unreachable
from agent2389.insight import transcript_sink
from agent2389.insight.transcript_sink import TranscriptRecord, TranscriptSink
from agent2389.ledger.journal import Message
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import Claim
from tests.support.jobs import claim_one, join, new_job
from tests.support.waiting import until


class Store:
    """Keeps what it is given; fails as often as ``failures`` says, waits while ``gate`` is closed."""

    def __init__(self, *failures: Exception) -> None:
        self.records: list[TranscriptRecord] = []
        self.failures = list(failures)
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    async def write(self, records: Sequence[TranscriptRecord]) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.records += records

    async def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_sink, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(transcript_sink, "LAST_SECONDS", 0.3)


@pytest.fixture
async def claim() -> Claim:
    ledger = MemoryLedger()
    await ledger.submit(new_job())
    return await claim_one(ledger, await join(ledger))


def message(step: int, body: str = '{"role": "user", "text": "hello"}') -> Message:
    return Message(step=step, slot=0, body=body)


def opened(store: Store, queue: int = 1000) -> tuple[TranscriptSink, list[int]]:
    dropped: list[int] = []
    sink = TranscriptSink(store, agent_id="r1", queue=queue, on_dropped=dropped.append)
    sink.open()
    return sink, dropped


async def test_messages_are_written_in_order_with_their_place(claim: Claim) -> None:
    store = Store()
    sink, dropped = opened(store)
    sink.offer(claim, [message(step) for step in range(250)])
    await sink.close()
    assert [record.step for record in store.records] == list(range(250))
    first = store.records[0]
    assert (first.job_id, first.task_id, first.agent_id) == ("job-1", claim.fence.task_id, "r1")
    assert first.place == f"default/{claim.fence.task_id}/{claim.fence.epoch}/0/0"
    assert first.at <= datetime.now(UTC)
    assert (dropped, store.closed) == ([], True)


async def test_a_store_that_hangs_holds_nobody_up_and_what_does_not_fit_is_counted(claim: Claim) -> None:
    store = Store()
    store.gate.clear()
    sink, dropped = opened(store, queue=10)
    sink.offer(claim, [message(step) for step in range(50)])
    assert sum(dropped) == 40
    await sink.close()
    assert sum(dropped) == 50, "what was never written is counted too"
    assert store.closed
    assert store.records == []


async def test_a_store_that_comes_back_gets_the_batch(claim: Claim) -> None:
    store = Store(Unreachable("transcripts", "away"), Unreachable("transcripts", "away"))
    sink, dropped = opened(store)
    sink.offer(claim, [message(1)])
    await until(lambda: store.records)
    assert dropped == []
    await sink.close()


@pytest.mark.parametrize("failures", [[Unreachable("transcripts", "away")] * 3, [RuntimeError("strange")]])
async def test_a_batch_that_is_not_taken_is_dropped_and_the_next_one_is_not(
    claim: Claim, failures: list[Any]
) -> None:
    store = Store(*failures)
    sink, dropped = opened(store)
    sink.offer(claim, [message(1)])
    await until(lambda: dropped)
    sink.offer(claim, [message(2)])
    await sink.close()
    assert dropped == [1]
    assert [record.step for record in store.records] == [2]


async def test_a_huge_message_is_cut_and_says_so(claim: Claim) -> None:
    store = Store()
    sink, _ = opened(store)
    sink.offer(claim, [message(1, "x" * (transcript_sink.LONGEST_BODY + 1)), message(2)])
    await sink.close()
    assert [(len(record.body), record.cut) for record in store.records] == [
        (transcript_sink.LONGEST_BODY, True),
        (len(message(2).body), False),
    ]
