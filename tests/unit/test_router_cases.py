"""Golden cases and recorded decisions: graded, replayed, and shown on the command line."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent2389.cli import router as verbs
from agent2389.config.model import RoutingSection
from agent2389.errors import ConfigurationError, InputRefused
from agent2389.ledger.records import RouteDecision, StepSummary
from agent2389.ledger.views import DecisionRow
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.router.build import build_router
from agent2389.router.cases import Case, load_cases
from agent2389.router.evaluate import play, score
from agent2389.router.policy import load_policy
from agent2389.router.port import Decision, Outcome, Target
from agent2389.router.replay import replay
from tests.support.routing import Scripted, answer
from tests.support.structure import ROOT

CASES = load_cases(ROOT / "router" / "cases")
AREAS = {"completion", "next_step", "loop", "missing", "tie", "hostile"}
KNOWN_WEAK = {"revised-text-may-go-back", "refused-goes-back"}
"""Tuning cases that the rehearsal model gets wrong: it does not read verdicts."""


def chosen_by(strategy: Any) -> Any:
    return build_router(RoutingSection(strategy=strategy), load_policy(), RehearsalModel)


def test_there_are_enough_cases_of_every_kind() -> None:
    assert len(CASES) >= 60
    for split in ("tuning", "held_out"):
        assert {case.covers for case in CASES if case.split == split} == AREAS
        assert sum(case.split == split for case in CASES) >= 30
    assert max(Counter((case.split, case.name) for case in CASES).values()) == 1


async def test_rules_are_right_wherever_a_tuning_case_has_one() -> None:
    played = await play(chosen_by("rules"), [case for case in CASES if case.split == "tuning"])
    found = score("rules", "tuning", played)
    assert [item.case for item in played if item.by_rule and not item.right] == []
    assert (found.right_with_rule, found.out_of_list) == (found.with_rule, 0)
    assert found.with_rule >= 50


async def test_the_rehearsal_model_is_right_but_for_what_is_known() -> None:
    played = await play(chosen_by("llm"), [case for case in CASES if case.split == "tuning"])
    assert {item.case for item in played if not item.right} == KNOWN_WEAK
    assert {item.model for item in played} - {None} == {"rehearsal"}


@pytest.mark.parametrize("strategy", ["rules", "llm", "hybrid"])
async def test_held_out_cases_stay_in_their_list(strategy: str) -> None:
    played = await play(chosen_by(strategy), [case for case in CASES if case.split == "held_out"])
    assert len(played) >= 60
    assert all(item.listed for item in played)
    assert all(item.fallback in (None, "hop_limit") for item in played)


async def test_a_wrong_decision_is_graded_wrong() -> None:
    case = next(case for case in CASES if case.name == "notes-to-report")
    always_last = build_router(
        RoutingSection(strategy="llm"), load_policy(), lambda: Scripted(answer(next=3), answer(next=3))
    )
    played = await play(always_last, [case])
    assert [item.right for item in played] == [False, True]
    assert score("llm", "held_out", played).accuracy == 0.5
    assert score("llm", "held_out", played).cost_usd == pytest.approx(0.02)


def test_a_case_may_expect_a_fan_out() -> None:
    case = Case(name="x", instruction="i", own="a", answer="b", expected=("writing+judging",))
    targets = (Target(capability="judging"), Target(capability="writing", slot=1))
    decision = Decision(outcome=Outcome.HAND_OFF, strategy="x", reason="x", targets=targets)
    assert case.is_right(decision)
    assert not case.is_right(msgspec.structs.replace(decision, targets=targets[:1]))


@pytest.mark.parametrize(
    "text", ["covers = 1", "[[case]]\nname = 'x'", "not toml", 'covers = "x"\ncase = []\nx = 1']
)
def test_a_broken_case_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pools.toml").write_text('a = "does it"')
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "bad.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"bad\.toml"):
        load_cases(tmp_path)


def test_eval_prints_figures_and_fails_below_the_aim(capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {
        "strategies": ["rules"],
        "cases": ROOT / "router" / "cases",
        "split": "tuning",
        "agent": None,
        "policy": None,
        "wrong": True,
    }
    verbs.evaluate(**options, at_least=None, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["data"][0]["strategy"] == "rules"
    assert (
        document["data"][0]["right"]
        <= document["data"][0]["plays"]
        == len(document["meta"]["plays"]["rules"])
    )
    with pytest.raises(verbs.BelowAim):
        verbs.evaluate(**options, at_least=0.999, as_json=False)
    shown = capsys.readouterr().out
    assert "tuning/renamed (given)  expected beta, got done" in shown
    with pytest.raises(InputRefused):
        verbs.evaluate(**(options | {"strategies": ["guess"]}), at_least=None, as_json=False)


def row(decision: RouteDecision, **changes: Any) -> DecisionRow:
    fields: dict[str, Any] = {
        "job_id": "job",
        "task_id": "task",
        "hop": 2,
        "max_hops": 16,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "capability": "writing",
        "agent_id": "writer",
        "instruction": "Write a notice and have it checked.",
        "answer": "The pool is closed.",
        "next": None,
        "decision": decision,
        "history": (StepSummary(hop=1, capability="research", agent_id="r", text="closed"),),
    }
    return DecisionRow(**(fields | changes))


def recorded(**changes: Any) -> RouteDecision:
    pools = [
        {"capability": name, "description": name, "agents": [f"{name}-1"], "free_slots": 1, "score": 0.5}
        for name in ("editing", "judging")
    ]
    fields: dict[str, Any] = {
        "strategy": "llm",
        "outcome": "hand_off",
        "reason": "why",
        "chosen": "editing",
        "candidates": tuple(pools),
        "cost_usd": 0.5,
    }
    return RouteDecision(**(fields | changes))


async def test_recorded_decisions_are_asked_again() -> None:
    rows = [row(recorded()), row(recorded(strategy="fixed")), row(recorded(candidates=()))]
    found, skipped = await replay(chosen_by("rules"), rows)
    assert skipped == 2
    assert [(item.recorded, item.replayed, item.same) for item in found] == [("editing", "judging", False)]
    assert (found[0].recorded_cost_usd, found[0].cost_usd) == (0.5, 0.0)
    again, _ = await replay(chosen_by("rules"), [row(recorded(chosen="judging"))])
    assert again[0].same


def test_a_decision_is_explained_line_by_line() -> None:
    decision = {
        "hop": 1,
        "agent_id": "r",
        "capability": "research",
        "strategy": "llm",
        "outcome": "hand_off",
        "chosen": "writing, judging",
        "reason": "both",
        "fallback": "the model failed",
        "flags": ["returned:writing"],
        "join": {"policy": "all", "needed": 2, "then": {"capability": "editing"}},
        "candidates": [{"capability": "writing", "agents": ["w"], "free_slots": 2, "score": 0.75}],
        "rejected": [{"capability": "general", "why": "no"}],
        "model": "m",
        "model_calls": 2,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": None,
        "prompt_sha256": "ab" * 32,
        "seconds": 1.5,
        "model_seconds": 1.25,
    }
    text = "\n".join(verbs.explained(decision))
    for part in (
        "hop 1  r  → writing, judging  by llm",
        "why: both",
        "fallback: the model failed",
        "flags: returned:writing",
        "join: all, 2 have to complete, then editing",
        "* writing  score 0.75  1 agents, 2 free",
        "not general: no",
        "m: 2 calls, 15 tokens, price unknown, prompt abababababab",
        "took 1.5 s, of which 1.2 s waiting",
    ):
        assert part in text
    old = {
        "hop": 1,
        "agent_id": None,
        "capability": "a",
        "strategy": "none",
        "outcome": "done",
        "reason": "x",
        "seconds": 0,
    }
    assert verbs.explained(old)[0] == "hop 1  a  → done  by none"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_durations(text: str, seconds: int) -> None:
    assert verbs.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["7", "d", "0d", "-1d", "7w", "1.5h", ""])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(InputRefused):
        verbs.seconds_of(text)
