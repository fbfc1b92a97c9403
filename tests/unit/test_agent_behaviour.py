"""A generic agent behaves by what its job says: profile, override, toolkits, phases."""

from pathlib import Path
from typing import Any

import pytest

from agent2389.agent.compaction import compacted
from agent2389.config.profiles import Profile, load_profiles, overridden
from agent2389.errors import ConfigurationError
from agent2389.llm.messages import Role, Turn
from tests.support.agent_house import ScriptedModel, call, house, says, shown

TERSE = Profile.model_validate(
    {"llm": {"system_prompt": "Be terse.", "temperature": 0.1}, "toolkits": ["echo"]}
)


def job(**submission: Any) -> dict[str, Any]:
    return {"instruction": "x", "submission": {"instruction": "x", **submission}}


async def test_a_job_names_a_profile(tmp_path: Path) -> None:
    model = ScriptedModel("done")
    async with house(
        tmp_path,
        model,
        toolkits=["workspace", "echo"],
        profiles={"terse": TERSE},
        job=job(profile="terse"),
        llm={"system_prompt": "Be long.", "temperature": 0.9},
    ) as agent:
        assert await agent.work() == "completed"
    (request,) = model.requests
    assert (request.temperature, [spec.name for spec in request.tools]) == (0.1, ["echo"])
    assert "Be terse." in shown(request)
    assert "Be long." not in shown(request)


async def test_an_override_is_nearer_than_the_profile(tmp_path: Path) -> None:
    model = ScriptedModel("done")
    override = {"llm": {"temperature": 0.5}, "toolkits": {"add": ["workspace"], "remove": ["echo"]}}
    async with house(
        tmp_path,
        model,
        toolkits=["workspace", "echo"],
        profiles={"terse": TERSE},
        job=job(config_name="terse", config_override=override),
    ) as agent:
        await agent.work()
    (request,) = model.requests
    assert request.temperature == 0.5
    assert "Be terse." in shown(request)
    assert {spec.name for spec in request.tools} >= {"read_file"}
    assert "echo" not in {spec.name for spec in request.tools}


@pytest.mark.parametrize(
    ("submission", "reason"),
    [
        ({"profile": "nobody"}, "no profile 'nobody'"),
        ({"config_override": {"llm": {"base_url": "http://evil.example"}}}, "base_url"),
        ({"config_override": {"budget": {"max_iterations": 0}}}, "max_iterations"),
        ({"config_override": {"agent": {"id": "other"}}}, "agent"),
    ],
)
async def test_what_the_agent_does_not_have_is_refused_at_once(
    tmp_path: Path, submission: dict[str, Any], reason: str
) -> None:
    model = ScriptedModel()
    async with house(tmp_path, model, job=job(**submission)) as agent:
        assert await agent.work() == "failed"
        detail = await agent.ledger.job("job-1")
    assert model.requests == []
    assert detail.tasks[0].error is not None
    assert detail.tasks[0].error["code"] == "invalid_input"
    assert reason in detail.tasks[0].error["message"]


async def test_a_job_may_only_lower_limits(tmp_path: Path) -> None:
    looping = [says("", call("echo", f"c{number}", text="x")) for number in range(9)]
    override = {"budget": {"max_iterations": 50, "max_tool_calls": 2}}
    model = ScriptedModel(*looping)
    async with house(
        tmp_path, model, toolkits=["echo"], budget={"max_iterations": 4}, job=job(config_override=override)
    ) as agent:
        assert await agent.work() == "failed"
    assert len(model.requests) == 3, "the third call would have been the third tool call"


async def test_an_agent_in_phases_plans_before_it_acts_and_ends_by_the_plan(tmp_path: Path) -> None:
    def names(request: Any) -> set[str]:
        return {spec.name for spec in request.tools}

    planned = says("", call("next_phase_todos", phase="draft", todos=["write it"]))
    wrote = says("", call("write_file", path="a.txt", content="text"))
    closed = says("", call("todo_complete", number=1, evidence=[{"file": "a.txt"}]))
    over = says("", call("mark_complete", summary="written"))
    whole = says("", call("job_complete", summary="all"))
    model = ScriptedModel("at once", planned, "too early", wrote, closed, over, whole, "now")
    async with house(
        tmp_path,
        model,
        toolkits=["workspace", "todo"],
        agent={"id": "r1", "capabilities": ("research",), "phases": True},
        job={"instruction": "x"},
    ) as agent:
        assert await agent.work() == "completed", model.requests[-1].turns[-1]
        assert await agent.text_of() == "now"
    assert "write_file" not in names(model.requests[0])
    assert "next_phase_todos" in names(model.requests[0])
    assert "does not count yet" in model.requests[1].turns[-1].text
    assert "write_file" in names(model.requests[2])
    assert "1: write it" in model.requests[3].turns[-1].text


def test_profiles_are_files_of_a_folder(tmp_path: Path) -> None:
    assert load_profiles(None) == {}
    (tmp_path / "terse.toml").write_text('toolkits = ["echo"]\n[llm]\nsystem_prompt = "Be terse."\n')
    assert load_profiles(tmp_path)["terse"].toolkits.only == ("echo",)
    (tmp_path / "bad.toml").write_text("[llm]\ntemperature = 9\n")
    with pytest.raises(ConfigurationError, match=r"bad\.toml.*temperature"):
        load_profiles(tmp_path)
    with pytest.raises(ConfigurationError, match="no folder"):
        load_profiles(tmp_path / "nowhere")
    assert overridden(TERSE, {}) == TERSE


def test_only_old_tool_results_are_shortened_and_always_the_same() -> None:
    turns = [Turn(role=Role.SYSTEM, text="s"), Turn(role=Role.USER, text="u" * 3000)]
    for number in range(10):
        turns += [Turn(role=Role.ASSISTANT, text=f"a{number}"), Turn(role=Role.TOOL, text=f"{number}" * 3000)]
    assert compacted(turns, 100_000) == tuple(turns)
    shown_turns = compacted(turns, 6_000)
    assert shown_turns == compacted(turns, 6_000)
    assert shown_turns[:3] == tuple(turns[:3])
    assert shown_turns[-6:] == tuple(turns[-6:])
    shortened = [turn for turn in shown_turns if "[shortened: 2400 more characters" in turn.text]
    assert 0 < len(shortened) <= 7
    assert all(turn.role is Role.TOOL for turn in shortened)
    assert sum(len(turn.text) for turn in shown_turns) <= 6_000 * 3
