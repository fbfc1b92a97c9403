"""The gatekeeper: what it is asked, what is tried again, what ends in the fallback."""

import asyncio
import json
import time
from typing import Any

import pytest

from agent2389.config.model import Gatekeeper, RoutingSection
from agent2389.errors import ConfigurationError
from agent2389.router.build import build_router
from agent2389.router.policy import Policy, read_rules
from agent2389.router.port import Candidate, Decision, Outcome, Step
from tests.support.gatekeeper import gatekeeper
from tests.support.routing import Scripted, situation


def said(**changes: Any) -> tuple[int, str]:
    fields = {"workflow_complete": False, "next_agent": "w", "next_instruction": "go", "reasoning": "fits"}
    return 200, json.dumps(fields | changes)


async def decided(url: str, policy: Policy | None = None, **section: Any) -> Decision:
    routing = RoutingSection(strategy="gatekeeper", gatekeeper=Gatekeeper(url=url, **section))
    return await build_router(routing, policy or Policy(), Scripted).decide(
        situation(
            hop=2,
            steps=(Step(hop=1, capability="general", agent_id="g", summary="looked at it"),),
            candidates=(
                Candidate(capability="writing", description="x", agents=("w", "w2"), free_slots=1, slots=4),
                Candidate(capability="judging", description="y", agents=("j",), free_slots=4, slots=4),
            ),
        )
    )


async def test_it_is_asked_with_the_documented_fields() -> None:
    async with gatekeeper(said()) as service:
        decision = await decided(service.url)
    assert service.paths == ["/should_agents_respond"]
    assert service.asked == [
        {
            "original_query": "write a checked brief",
            "workflow_history": [
                {"agent_id": "g", "capability": "general", "action": "looked at it", "step_number": 1}
            ],
            "current_output": "some notes",
            "available_agents": [
                {"agent_id": "w", "capabilities": ["writing"], "load": 0.75},
                {"agent_id": "w2", "capabilities": ["writing"], "load": 0.75},
                {"agent_id": "j", "capabilities": ["judging"], "load": 0.0},
            ],
            "iteration_count": 2,
        }
    ]
    assert (decision.targets[0].agent, decision.reason, decision.strategy) == ("w", "fits", "gatekeeper")
    assert decision.model_seconds > 0


async def test_it_may_name_a_pool_or_say_that_all_is_done() -> None:
    async with gatekeeper(said(next_agent="Judging")) as service:
        assert (await decided(service.url + "/choose")).targets[0].capability == "judging"
        assert service.paths == ["/choose"]
    async with gatekeeper(said(workflow_complete=True)) as service:
        assert (await decided(service.url)).outcome is Outcome.DONE


async def test_its_instruction_counts_only_where_the_policy_says_so() -> None:
    async with gatekeeper(said(next_instruction="go\u0000on")) as service:
        assert (await decided(service.url)).targets[0].instruction is None
        trusted = await decided(service.url, Policy(gatekeeper_instructions=True))
    assert trusted.targets[0].instruction == "goon"


async def test_5xx_is_tried_again_and_4xx_is_not() -> None:
    async with gatekeeper((503, ""), (500, ""), said()) as service:
        decision = await decided(service.url)
    assert (len(service.asked), decision.targets[0].agent) == (3, "w")
    async with gatekeeper((404, "")) as service:
        decision = await decided(service.url)
    assert (len(service.asked), decision.fallback) == (1, "the gatekeeper failed: HTTP 404")
    async with gatekeeper((503, "")) as service:
        decision = await decided(service.url, retry_attempts=1)
    assert (len(service.asked), decision.outcome) == (2, Outcome.ESCALATE)


async def test_redirects_are_not_followed() -> None:
    async with gatekeeper((302, "")) as service:
        decision = await decided(service.url)
    assert (len(service.asked), decision.fallback) == (1, "the gatekeeper failed: HTTP 400")


async def test_one_unusable_answer_is_asked_for_once_more() -> None:
    async with gatekeeper(said(next_agent="stranger"), said()) as service:
        decision = await decided(service.url)
    assert (len(service.asked), decision.targets[0].agent, decision.fallback) == (2, "w", None)


async def test_silence_ends_at_the_timeout_and_rules_decide() -> None:
    hold = asyncio.Event()
    policy = Policy(rules=read_rules([{"to": "judging", "reason": "the rest is judged"}]))
    async with gatekeeper(said(), hold=hold) as service:
        started = time.monotonic()
        decision = await decided(service.url, policy, timeout_ms=100, retry_attempts=1)
        hold.set()
    assert time.monotonic() - started < 3
    assert (decision.strategy, decision.targets[0].name) == ("rules", "judging")
    assert decision.fallback in ("the gatekeeper failed: TimeoutError", "the gatekeeper failed: ReadTimeout")


async def test_nobody_listening_falls_back() -> None:
    async with gatekeeper(said()) as service:
        url = service.url
    decision = await decided(url, retry_attempts=1)
    assert (decision.outcome, decision.fallback) == (Outcome.ESCALATE, "the gatekeeper failed: ConnectError")


def test_the_strategy_needs_an_address() -> None:
    with pytest.raises(ConfigurationError) as refused:
        build_router(RoutingSection(strategy="gatekeeper"), Policy(), Scripted)
    assert "[routing.gatekeeper]" in (refused.value.hint or "")
