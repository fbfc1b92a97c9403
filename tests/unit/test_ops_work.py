"""Transcripts, calls in doubt and budgets over HTTP."""

import json
from collections.abc import AsyncIterator

import pytest

from agent2389.insight.transcripts import as_markdown, entries
from agent2389.ledger.journal import Amounts, EffectEnd, EffectStart, Message, OwnLimits
from agent2389.ledger.records import Claim
from agent2389.ledger.states import TaskState
from tests.support.jobs import claim_one, join, new_job
from tests.support.ops import Service, running_ops

JOB = "job-1"


@pytest.fixture
async def ops() -> AsyncIterator[Service]:
    async with running_ops() as service:
        yield service


async def worked(ops: Service) -> Claim:
    """A job with one model call that cost something, and a call that was begun and not ended."""
    incarnation = await join(ops.ledger)
    await ops.ledger.submit(new_job())
    claim = await claim_one(ops.ledger, incarnation)
    model = EffectStart(step=0, call=0, kind="model", name="m", repeat="pure", request_hash="h")
    send = EffectStart(step=0, call=1, kind="tool", name="send", repeat="unsafe", request_hash="h", key="k")
    await ops.ledger.effect_begin(claim.fence, [model], OwnLimits())
    said = {
        "role": "assistant",
        "text": "````\nloud",
        "tool_calls": [{"id": "1", "name": "send", "arguments": "{}"}],
    }
    used = Amounts(cost_usd=0.5, input_tokens=7, output_tokens=3, seconds=1.0)
    message = Message(step=0, slot=0, body=json.dumps(said))
    await ops.ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0, used=used)], [message])
    await ops.ledger.effect_begin(claim.fence, [send], OwnLimits())
    return claim


async def test_a_transcript_comes_in_three_forms(ops: Service) -> None:
    await worked(ops)
    status, page = await ops.get(f"/api/v1/jobs/{JOB}/transcript?limit=1")
    assert (status, len(page["data"]), page["next"]) == (200, 1, 1)
    assert page["data"][0]["effect"]["used"]["cost_usd"] == 0.5
    response = await ops.client.get(f"/api/v1/jobs/{JOB}/transcript?format=jsonl")
    lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [(line["step"], line["slot"]) for line in lines] == [(0, 0), (0, 1)]
    response = await ops.client.get(f"/api/v1/jobs/{JOB}/transcript?format=markdown")
    text = await response.text()
    assert "`````text\n````\nloud\n`````" in text, "a fence holds what it fences"
    assert "calls `send` with `{}`" in text
    assert "7+3 tokens, 0.500000 USD" in text
    assert (await ops.get(f"/api/v1/jobs/{JOB}/transcript?format=pdf"))[0] == 422
    assert (await ops.get("/api/v1/jobs/nobody/transcript"))[0] == 404


async def test_a_call_in_doubt_is_resolved_by_a_person(ops: Service) -> None:
    claim = await worked(ops)
    await ops.ledger.escalate_task(claim.fence, "in_doubt", "send may have happened")
    body = {"task_id": claim.fence.task_id, "step": 0, "call": 1, "happened": True, "answer": "sent"}
    status, answer = await ops.post(f"/api/v1/jobs/{JOB}/resolve", body)
    assert (status, answer["task_state"]) == (200, TaskState.QUEUED)
    assert (await ops.post(f"/api/v1/jobs/{JOB}/resolve", body))[0] == 404
    assert (await ops.post(f"/api/v1/jobs/{JOB}/resolve", {**body, "happened": "yes"}))[0] == 422


async def test_limits_are_set_shown_and_taken_away(ops: Service) -> None:
    await worked(ops)
    status, answer = await ops.post("/api/v1/budget", {"period": "day", "unit": "cost_usd", "limit": 2.5})
    rows = {(row["period"], row["unit"]): row for row in answer["data"]}
    assert (status, rows["day", "cost_usd"]["limit"], rows["day", "cost_usd"]["used"]) == (200, 2.5, 0.5)
    await ops.post("/api/v1/budget", {"period": "day", "unit": "cost_usd", "limit": None})
    _, answer = await ops.get("/api/v1/budget")
    assert all(row["limit"] is None for row in answer["data"])
    for bad in (
        {"period": "hour", "unit": "tokens", "limit": 1},
        {"period": "day", "unit": "tokens", "limit": -1},
    ):
        assert (await ops.post("/api/v1/budget", bad))[0] == 422


async def test_an_empty_job_has_an_empty_transcript(ops: Service) -> None:
    await ops.ledger.submit(new_job())
    found = [entry async for entry in entries(ops.ledger, JOB)]
    assert as_markdown(JOB, found) == f"# Job {JOB}\n"
