"""Records as tests need them."""

from typing import Any

from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Claim, Finish, NewJob, NextTask, RouteDecision, TaskResult, Usage
from agent2389.ledger.states import AgentState


def new_job(job_id: str = "job-1", **changes: Any) -> NewJob:
    fields: dict[str, Any] = {
        "job_id": job_id,
        "content_hash": f"hash of {job_id}",
        "instruction": "do it",
        "capability": "research",
        "submission": {"instruction": "do it"},
    }
    return NewJob(**(fields | changes))


async def join(ledger: Ledger, agent_id: str = "r1", *capabilities: str, state: str = "running") -> str:
    """Register an agent and let it beat; its incarnation."""
    incarnation = f"{agent_id}-incarnation"
    await ledger.register(
        AgentRecord(
            agent_id=agent_id, incarnation=incarnation, capabilities=capabilities or ("research",), slots=4
        )
    )
    await ledger.beat(Beat(incarnation=incarnation, state=AgentState(state), free_slots=4))
    return incarnation


async def claim_one(ledger: Ledger, incarnation: str) -> Claim:
    claims = await ledger.claim_batch(incarnation, 1)
    assert len(claims) == 1
    return claims[0]


def finish(text: str = "answer", *next_: NextTask, **changes: Any) -> Finish:
    decision = RouteDecision(strategy="test", outcome="hand_off" if next_ else "done", reason="because")
    usage = Usage(input_tokens=3, output_tokens=2, model_calls=1, tool_calls=0, cost_usd=0.25)
    return Finish(result=TaskResult(text=text), usage=usage, decision=decision, next=next_, **changes)
