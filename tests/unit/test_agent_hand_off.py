"""What an agent writes when it is through: verdicts, branches and joins, feedback, a person's matter."""

from pathlib import Path
from typing import Any

import pytest

from agent2389.agent.verdict import verdict_of, written_verdict
from agent2389.config.rules import Rule
from agent2389.errors import ModelFailed
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.states import JobState, TaskState
from agent2389.router.policy import Policy, Verify
from tests.support.agent_house import ScriptedModel, house, says, shown
from tests.support.jobs import join

CHECKED = Policy(verify=Verify(by="judging", of=("research",)))


async def two(tmp_path: Path, ledger: MemoryLedger, author: ScriptedModel, judge: ScriptedModel) -> list[str]:
    """The outcomes of an author's and a judge's work on one job until nothing is left to do."""
    await join(ledger, "j1", "judging")
    outcomes = []
    async with (
        house(tmp_path, author, ledger=ledger, policy=CHECKED, job={"instruction": "write"}) as first,
        house(tmp_path, judge, ledger=ledger, agent_id="j1", capabilities=["judging"]) as second,
    ):
        while any(task.state is TaskState.QUEUED for task in (await ledger.job("job-1")).tasks):
            for agent in (first, second):
                for claim in await ledger.claim_batch(agent.incarnation, 1):
                    outcomes.append(f"{claim.capability} {await agent.work(claim)}")
    return outcomes


async def test_a_result_counts_after_somebody_else_approved_it(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    author, judge = ScriptedModel("the text"), ScriptedModel("Verdict: approve\n\nall of it is there")
    assert await two(tmp_path, ledger, author, judge) == ["research completed", "judging completed"]
    detail = await ledger.job("job-1")
    assert detail.job.state is JobState.COMPLETED
    assert '"text":"the text"' in (detail.final or "")
    asked = shown(judge.requests[0])
    assert "the text" in asked
    assert "Verdict: approve" in asked
    assert "write" in asked


async def test_a_refused_result_is_done_again_with_what_the_judge_said(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    author = ScriptedModel("a first try", "a second try")
    judge = ScriptedModel("Verdict: reject\n\nthe figure is missing", "Verdict: approve\n\ngood")
    await two(tmp_path, ledger, author, judge)
    assert "the figure is missing" in shown(author.requests[1])
    assert "a first try" not in shown(author.requests[1]), "a new generation begins anew"
    assert '"text":"a second try"' in ((await ledger.job("job-1")).final or "")


async def test_a_judge_without_a_verdict_leaves_it_to_a_person(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    judge = ScriptedModel("hm, hard to say", ModelFailed("away"))
    await two(tmp_path, ledger, ScriptedModel("the text"), judge)
    assert (await ledger.job("job-1")).job.state is JobState.WAITING


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Verdict: approve\n\nfine", "approved"),
        ("**Verdict: Reject**", "refused"),
        ("verdict - accept", "approved"),
        ('{"verdict": "refused", "why": "x"}', "refused"),
        ("I would say: approve", None),
        ("x" * 500 + "\nVerdict: approve", None),
        ("[" * 100_000, None),
    ],
)
def test_verdicts_are_read_where_they_were_asked_for(answer: str, verdict: str | None) -> None:
    assert written_verdict(answer) == verdict


@pytest.mark.parametrize(
    ("structured", "verdict"),
    [({"verdict": "refused"}, "refused"), ({"verdict": "maybe"}, None), (None, None)],
)
async def test_an_unclear_judge_is_asked_once_more_in_a_structure(
    structured: Any, verdict: str | None
) -> None:
    model = ScriptedModel(says("", structured=structured))
    assert await verdict_of("hard to say", model, 5.0) == verdict
    assert model.requests[0].schema is not None


async def test_branches_are_joined_by_whoever_the_rule_names(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    for name in ("left", "right", "merging"):
        await join(ledger, name, name)
    rule = Rule(conditions=({"path": "$.hop"},), to=("left", "right"), then="merging")  # type: ignore[arg-type]
    routing = {"strategy": "rules", "rules": (rule,)}
    async with house(
        tmp_path, ScriptedModel("begin"), ledger=ledger, job={"instruction": "both"}, routing=routing
    ) as first:
        await first.work()
    for name in ("left", "right"):
        async with house(
            tmp_path, ScriptedModel(f"{name} did"), ledger=ledger, agent_id=name, capabilities=[name]
        ) as branch:
            await branch.work()
    merger = ScriptedModel("together")
    async with house(tmp_path, merger, ledger=ledger, agent_id="merging", capabilities=["merging"]) as last:
        assert await last.work() == "completed"
        assert "left did" in shown(merger.requests[0])
        assert "right did" in shown(merger.requests[0])
        assert await last.text_of() == "together"


@pytest.mark.parametrize(("section", "state"), [("dead", JobState.FAILED), ("escalate", JobState.WAITING)])
async def test_whether_a_person_is_asked_when_the_attempts_are_used_up(
    tmp_path: Path, section: str, state: JobState
) -> None:
    model = ScriptedModel(ModelFailed("no", retryable=False))
    lifecycle = {"on_failure": section}
    async with house(tmp_path, model, job={"instruction": "x"}, lifecycle=lifecycle) as agent:
        assert await agent.work() == "failed"
        assert (await agent.ledger.job("job-1")).job.state is state
