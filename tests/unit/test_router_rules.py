"""Rules: every form loads, every operator compares, fan-out says how it joins."""

from typing import Any

import pytest
from pydantic import ValidationError

from agent2389.config.load import load_agent
from agent2389.config.model import RoutingSection
from agent2389.errors import ConfigurationError
from agent2389.router.build import NO_RULE, build_router
from agent2389.router.policy import Policy, load_policy, read_rules
from agent2389.router.port import Decision, Join, JoinPolicy, Outcome, Target
from agent2389.router.rules import Rules
from tests.support.routing import Scripted, answer, situation

DATA = '{"status": "ok", "score": 8, "tags": ["a", "b"], "note": "", "flag": true}'


async def decided(*forms: Any, **changes: Any) -> Decision:
    routing = RoutingSection(strategy="rules", rules=read_rules(forms))
    return await build_router(routing, Policy(), Scripted).decide(situation(**changes))


@pytest.mark.parametrize(
    ("form", "holds"),
    [
        ({"path": "$.data.status"}, True),
        ({"path": "$.data.missing"}, False),
        ({"path": "$.data.status", "equals": "ok"}, True),
        ({"jsonpath": "$.data.status", "operator": "!=", "value": "ok"}, False),
        ({"field": "$.data.score", "op": ">", "value": 7}, True),
        ({"path": "$.data.score", "operator": "gte", "expected": 8}, True),
        ({"path": "$.data.score", "operator": "less_than", "value": 8}, False),
        ({"path": "$.data.score", "operator": "lte", "value": "8"}, True),
        ({"path": "$.data.status", "operator": ">", "value": 1}, False),
        ({"path": "$.data.tags", "operator": "contains", "value": "b"}, True),
        ({"path": "$.data.tags", "operator": "not_contains", "value": "b"}, False),
        ({"path": "$.data.status", "operator": "in", "value": ["ok", "fine"]}, True),
        ({"path": "$.data.status", "operator": "not_in", "value": ["ok", "fine"]}, False),
        ({"path": "$.data.status", "operator": "starts_with", "value": "o"}, True),
        ({"path": "$.data.status", "operator": "endswith", "value": "x"}, False),
        ({"path": "$.data.status", "operator": "regex", "value": "^O"}, False),
        ({"path": "$.data.status", "operator": "not_matches", "value": "^O"}, True),
        ({"path": "$.data.note", "operator": "is_empty"}, True),
        ({"path": "$.data.status", "operator": "not_empty"}, True),
        ({"path": "$.data.missing", "operator": "not_exists"}, True),
        ({"path": "$.data.missing", "operator": "not_equals", "value": 1}, False),
        ({"path": "$.data.flag", "equals": 1}, False),
        ({"path": "$.output.score", "equals": 8}, True),
        ("$.data.score >= 8", True),
        ("$.data.status == 'ok'", True),
        ("$.data.status != 'ok'", False),
        ("$.candidates[?@.capability == 'judging']", True),
        ("$.candidates[?@.capability == 'dancing']", False),
    ],
)
async def test_conditions(form: Any, holds: bool) -> None:
    decision = await decided({"condition": form, "to": "writing"}, answer=DATA)
    assert bool(decision.targets) is holds
    assert (NO_RULE in decision.flags) is not holds


@pytest.mark.parametrize(
    "form",
    [
        {"path": "$.data.status", "equals": "ok", "to": "writing"},
        {"condition": {"path": "$.data.status", "operator": "equals", "value": "ok"}, "target": "writing"},
        {"if": "$.data.status == 'ok'", "then": "writing", "else": "judging"},
        {"if": "$.data.status == 'bad'", "then": "judging", "else": "writing"},
        {"when": ["$.data.status == 'ok'", "$.data.score > 100"], "logic": "or", "next_step": "writing"},
        {
            "condition": {
                "conditions": [{"variable": "$.data.score", "op": "lt", "value": 9}],
                "logic": "and",
            },
            "goto": "writing",
        },
        {"all": ["$.data.status", "$.data.score"], "to": "Writing"},
        {"any": ["$.data.nothing", "$.data.score"], "to": "writing"},
        {"to": "writing"},
    ],
)
async def test_conditional_forms_of_workflow_files(form: Any) -> None:
    decision = await decided(form, answer=DATA)
    assert [target.name for target in decision.targets] == ["writing"]


async def test_rules_stand_in_an_agents_file(tmp_path: Any) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[agent]\nid = "a"\n[llm]\nprovider = "rehearsal"\n[routing]\nstrategy = "rules"\n'
        '[[routing.rules]]\ncondition = "$.data.status == \'ok\'"\nthen = "writing"\nelse = "judging"\n'
        '[[routing.rules]]\npath = "$.answer"\nto = ["writing", "judging"]\njoin = 1\nthen = "editing"\npriority = -1\n'
    )
    routing = load_agent(path).configuration.routing
    decision = await build_router(routing, Policy(), Scripted).decide(situation(answer=DATA))
    assert decision.targets == (Target(capability="writing"),)
    path.write_text(path.read_text().replace('then = "writing"', 'then = "writing"\npriorty = 3'))
    with pytest.raises(ConfigurationError) as refused:
        load_agent(path)
    assert "priorty" in "".join(refused.value.problems)


@pytest.mark.parametrize(
    ("join", "policy", "needed"),
    [("all", JoinPolicy.ALL, 3), ("first", JoinPolicy.FIRST, 1), (2, JoinPolicy.K_OF_N, 2)],
)
async def test_a_rule_may_fan_out(join: Any, policy: JoinPolicy, needed: int) -> None:
    form = {"path": "$.answer", "to": ["writing", "judging", "judging"], "join": join, "then": "research"}
    decision = await decided(form)
    assert [(target.slot, target.name) for target in decision.targets] == [
        (0, "writing"),
        (1, "judging"),
        (2, "judging"),
    ]
    # Who fans out may gather.
    assert decision.join == Join(policy=policy, needed=needed, then=Target(capability="research"))


async def test_a_fan_out_to_somebody_absent_is_passed_over() -> None:
    decision = await decided(
        {"path": "$.answer", "to": ["writing", "dancing"], "priority": 2, "reason": "both"},
        {"path": "$.answer", "to": "judging", "priority": 1},
    )
    assert [target.name for target in decision.targets] == ["judging"]
    assert ("dancing", "both: not a live candidate") in {(i.capability, i.why) for i in decision.rejected}


async def test_a_rule_may_ask_a_person() -> None:
    decision = await decided({"path": "$.answer", "escalate": True, "reason": "money is asked for"})
    assert (decision.outcome, decision.reason) == (Outcome.ESCALATE, "money is asked for")


@pytest.mark.parametrize(
    "form",
    [
        {"path": "$[", "to": "a"},
        {"path": "$.a", "operator": "matches", "value": "(", "to": "a"},
        {"path": "$.a"},
        {"path": "$.a", "to": ["a", "b"], "join": 3},
        {"path": "$.a", "to": ["a", "b"], "join": 0},
        {"path": "$.a | $.b", "to": "a"},
    ],
)
def test_a_rule_that_cannot_work_is_refused_at_the_start(form: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Rules(read_rules([form]))
    assert refused.value.hint


def test_unknown_operators_and_keys_are_refused() -> None:
    for form in ({"path": "$.a", "operator": "about", "value": 1, "to": "a"}, {"path": "$.a", "too": "a"}):
        with pytest.raises(ValidationError):
            read_rules([form])


@pytest.mark.parametrize(
    "text",
    [
        "max_hops = 0",
        "max_fan_out = 9",
        'on_failure = "shrug"',
        "[loops]\nturns = 1",
        "x = 1",
        "[[rules]]\npath = 1",
    ],
)
def test_a_broken_policy_is_refused_with_its_file(tmp_path: Any, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"policy\.toml"):
        load_policy(path)


async def test_hybrid_asks_the_model_for_the_rest() -> None:
    rules = read_rules([{"path": "$.answer", "equals": "some notes", "to": "writing"}])
    routing = RoutingSection(strategy="hybrid", rules=rules)
    model = Scripted(answer(next=1))
    router = build_router(routing, Policy(), lambda: model)
    by_rule = await router.decide(situation())
    assert (by_rule.strategy, by_rule.targets[0].name, model.requests) == ("rules", "writing", [])
    by_model = await router.decide(situation(answer="else"))
    assert (by_model.strategy, by_model.targets[0].name) == ("llm", "judging")
    away = await router.decide(situation(answer="else"))
    assert (away.outcome, away.fallback) == (Outcome.ESCALATE, "the model failed: away")


async def test_a_job_may_choose_among_the_agents_strategies() -> None:
    rules = read_rules([{"path": "$.answer", "to": "writing"}])
    model = Scripted(answer(next=1), answer(next=1))
    router = build_router(RoutingSection(strategy="llm", rules=rules), Policy(), lambda: model)
    assert (await router.decide(situation())).targets[0].name == "judging"
    assert (await router.decide(situation(strategy="rules"))).targets[0].name == "writing"
    assert (await router.decide(situation(strategy="none"))).outcome is Outcome.DONE
    asked = await router.decide(situation(strategy="gatekeeper"))
    assert asked.targets[0].name == "judging"
    assert "which this agent does not have" in (asked.fallback or "")
