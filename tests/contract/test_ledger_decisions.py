"""Routing decisions are kept with what was known when they were made."""

import msgspec

from agent2389.insight.decisions import page_of_decisions
from agent2389.ledger.records import NextTask, RouteDecision
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger

KEPT = RouteDecision(
    strategy="llm",
    outcome="hand_off",
    reason="because",
    chosen="writing",
    candidates=({"capability": "writing", "agents": ["w"], "score": 0.5},),
    flags=("returned:writing",),
    targets=({"slot": 0, "capability": "writing", "agent": None},),
    join={"policy": "all", "needed": 1, "then": None},
    prompt_sha256="ab" * 32,
    model_calls=1,
    model_seconds=0.25,
    input_tokens=10,
    output_tokens=5,
    cost_usd=None,
)


async def two_hops(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger, "r1", "research", "writing")
    await ledger.submit(new_job())
    first = await claim_one(ledger, incarnation)
    hand_off = finish("the notes", NextTask(capability="writing", instruction="write it"))
    await ledger.finish(first.fence, msgspec.structs.replace(hand_off, decision=KEPT), first.job_id)
    await ledger.advance(0.05)
    second = await claim_one(ledger, incarnation)
    await ledger.finish(second.fence, finish("the text"), second.job_id)


async def test_they_are_read_newest_first_with_their_situation(ledger: SteppedLedger) -> None:
    await two_hops(ledger)
    last, first = await ledger.decisions(3600)
    assert (first.hop, first.capability, first.agent_id, first.answer) == (1, "research", "r1", "the notes")
    assert (first.instruction, first.max_hops, first.history) == ("do it", 16, ())
    assert first.decision == KEPT
    assert (last.hop, last.instruction, last.answer) == (2, "write it", "the text")
    assert [(step.hop, step.capability, step.text) for step in last.history] == [(1, "research", "the notes")]


async def test_an_escalated_decision_is_among_them(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    claim = await claim_one(ledger, incarnation)
    await ledger.finish(claim.fence, finish("half", escalate=True), claim.job_id)
    (row,) = await ledger.decisions(3600)
    assert row.answer == "half"


async def test_pages_join_without_gap_or_repeat(ledger: SteppedLedger) -> None:
    await two_hops(ledger)
    first, cursor = await page_of_decisions(ledger, 3600, limit=1, cursor=None)
    second, end = await page_of_decisions(ledger, 3600, limit=1, cursor=cursor)
    assert [row.hop for row in (*first, *second)] == [2, 1]
    assert end is None


async def test_older_ones_are_left_out(ledger: SteppedLedger) -> None:
    await two_hops(ledger)
    await ledger.advance(0.3)
    assert await ledger.decisions(0.2) == ()
    assert len(await ledger.decisions(60)) == 2
