"""Todo items close only with evidence, and a job with open items is not complete."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent2389.agent.files import Workspace, without_state
from agent2389.config.model import AgentConfiguration, AgentSection, ToolEntry
from agent2389.errors import ToolFailed
from agent2389.ledger.memory import MemoryLedger
from agent2389.tools.paths import RESERVED
from agent2389.tools.port import OpenItem, Progress, TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet

FINDING = "The ferry carried 148,200 passengers in 2023, says the harbour report."


@pytest.fixture
def scope(tmp_path: Path) -> TaskScope:
    return TaskScope(job_id="j", task_id="t", tenant="default", workspace=tmp_path)


async def opened(*tools: str, **settings: object) -> ToolSet:
    configuration = AgentConfiguration(
        agent=AgentSection(id="a"),
        toolkits=() if tools else ("workspace", "todo"),
        tools=tuple(ToolEntry(name=name) for name in tools),
        toolkit_config={"todo": settings},
    )
    tool_set = ToolSet(configuration)
    await tool_set.open()
    return tool_set


@pytest.fixture
async def tools() -> ToolSet:
    return await opened()


async def call(tools: ToolSet, scope: TaskScope, name: str, **arguments: Any) -> ToolOutput:
    return await tools.call(name, json.dumps(arguments), scope)


async def planned(tools: ToolSet, scope: TaskScope, *todos: str) -> None:
    output = await call(tools, scope, "next_phase_todos", phase="research", todos=list(todos))
    assert not output.failed, output.text


async def close(tools: ToolSet, scope: TaskScope, number: int, **evidence: str) -> ToolOutput:
    return await call(tools, scope, "todo_complete", number=number, evidence=[evidence])


async def test_a_job_goes_through_phases_to_its_end(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "read the report", "note the figures")
    (scope.workspace / "notes.md").write_text("# Notes\n148,200\npassengers\n")
    assert not (await close(tools, scope, 1, finding=FINDING)).failed
    assert (await call(tools, scope, "mark_complete", summary="read")).failed
    assert not (await close(tools, scope, 2, file="notes.md", quote="148,200 passengers")).failed
    assert "all todos are closed" in (await call(tools, scope, "todo_list")).text
    assert not (await call(tools, scope, "mark_complete", summary="the figures are noted")).failed
    assert (await tools.progress(scope)).phase == ""
    output = await call(tools, scope, "next_phase_todos", phase="writing", todos=["write the summary"])
    assert "[x] research: the figures are noted" in output.text
    (scope.workspace / "summary.md").write_text("148,200 passengers in 2023.")
    assert not (await close(tools, scope, 1, file="summary.md")).failed
    output = await call(tools, scope, "job_complete", summary="the summary is written")
    assert not output.failed
    assert output.changed_files
    assert await tools.progress(scope) == Progress(tracked=True, completed="the summary is written")
    assert (await call(tools, scope, "next_phase_todos", phase="more", todos=["x"])).failed


async def test_a_job_with_open_todos_is_not_complete(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "first", "second", "third")
    await close(tools, scope, 2, finding=FINDING)
    output = await call(tools, scope, "job_complete", summary="done")
    assert output.text == "refused: todos are still open in phase 'research': 1, 3"
    assert output.failed
    progress = await tools.progress(scope)
    assert progress.open_items == (OpenItem("research", 1, "first"), OpenItem("research", 3, "third"))
    assert progress.completed is None
    assert (await call(tools, scope, "next_phase_todos", phase="next", todos=["a"])).failed


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ([], "less than 1"),
        ([{}], "evidence.0"),
        ([{"finding": "done"}], "shorter than 40"),
        ([{"finding": " " * 50}], "at least 40 characters"),
        ([{"finding": "Read  the whole long report of the harbour in 2023"}], "repeats the item"),
        ([{"file": "absent.md"}], "cannot be read: No such file"),
        ([{"file": "empty.md"}], "is empty"),
        ([{"file": "blank.md"}], "is empty"),
        ([{"file": "../outside.md"}], "leaves the workspace"),
        ([{"file": "link.md"}], "cannot be read"),
        ([{"file": f"{RESERVED}/x"}], "kept by the program"),
        ([{"file": "notes.md", "quote": "nobody wrote this"}], "does not stand in"),
        ([{"file": "notes.md", "quote": "  "}], "does not stand in"),
        ([{"quote": "148,200"}], "a quote needs the file"),
        ([{"file": "notes.md"}, {"file": "absent.md"}], "cannot be read"),
        ([{"file": "notes.md", "checked": True}], "checked"),
        ("notes.md", "not of type"),
        ([{"file": "notes.md"}] * 11, "more than 10"),
    ],
)
async def test_an_item_does_not_close_without_evidence(
    tools: ToolSet, scope: TaskScope, evidence: object, reason: str
) -> None:
    await planned(tools, scope, "read the whole long report of the harbour in 2023")
    (scope.workspace / "notes.md").write_text("148,200 passengers")
    (scope.workspace / "empty.md").touch()
    (scope.workspace / "blank.md").write_text(" \n")
    (scope.workspace / "link.md").symlink_to("/etc/passwd")
    output = await call(tools, scope, "todo_complete", number=1, evidence=evidence)
    assert output.failed
    assert reason in output.text
    assert len((await tools.progress(scope)).open_items) == 1


async def test_one_finding_closes_one_item(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "first", "second")
    assert not (await close(tools, scope, 1, finding=FINDING)).failed
    assert "repeats" in (await close(tools, scope, 2, finding=FINDING.upper())).text
    assert not (await close(tools, scope, 1, finding=FINDING)).failed, "a repeated call is no second one"


async def test_an_agent_may_ask_for_files_only(scope: TaskScope) -> None:
    tools = await opened(evidence="file")
    await planned(tools, scope, "first")
    assert "finding" in (await close(tools, scope, 1, finding=FINDING)).text
    (scope.workspace / "a").write_text("x")
    assert not (await close(tools, scope, 1, file="a")).failed


async def test_evidence_that_is_gone_keeps_the_job_open(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "write it")
    (scope.workspace / "a.md").write_text("x")
    await close(tools, scope, 1, file="a.md")
    await call(tools, scope, "delete_file", path="a.md")
    output = await call(tools, scope, "job_complete", summary="done")
    assert "todo 1 of phase 'research' has lost its evidence" in output.text
    assert not (await call(tools, scope, "todo_rewind", number=1, reason="the file is gone")).failed
    assert (await tools.progress(scope)).open_items == (OpenItem("research", 1, "write it"),)
    assert "(reopened: the file is gone)" in (await call(tools, scope, "todo_list")).text


async def test_a_rewind_reopens_phase_and_job(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "first")
    await close(tools, scope, 1, finding=FINDING)
    await call(tools, scope, "job_complete", summary="done")
    assert not (await call(tools, scope, "todo_rewind", number=1, reason="the judge disagrees")).failed
    progress = await tools.progress(scope)
    assert progress.completed is None
    assert progress.phase == "research"
    assert (await call(tools, scope, "todo_rewind", number=2, reason="x")).failed


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("todo_complete", {"number": 1, "evidence": [{"finding": FINDING}]}),
        ("todo_rewind", {"number": 1, "reason": "x"}),
        ("mark_complete", {"summary": "x"}),
        ("job_complete", {"summary": "x"}),
        ("next_phase_todos", {"phase": " ", "todos": ["a"]}),
        ("next_phase_todos", {"phase": "p", "todos": ["a", " a "]}),
        ("next_phase_todos", {"phase": "p", "todos": []}),
        ("next_phase_todos", {"phase": "p", "todos": ["x"] * 31}),
    ],
)
async def test_nothing_is_closed_before_it_was_planned(
    tools: ToolSet, scope: TaskScope, name: str, arguments: dict[str, object]
) -> None:
    assert (await call(tools, scope, name, **arguments)).failed
    assert await tools.progress(scope) == Progress(tracked=True)


async def test_a_job_may_be_completed_without_a_plan_where_the_file_says_so(scope: TaskScope) -> None:
    tools = await opened(plan_required=False)
    assert not (await call(tools, scope, "job_complete", summary="it was one line")).failed


async def test_repeated_calls_change_nothing(tools: ToolSet, scope: TaskScope) -> None:
    for _ in range(2):
        await planned(tools, scope, "first")
    for _ in range(2):
        assert not (await close(tools, scope, 1, finding=FINDING)).failed
    for _ in range(2):
        assert not (await call(tools, scope, "mark_complete", summary="over")).failed
    for _ in range(2):
        assert not (await call(tools, scope, "job_complete", summary="over")).failed


async def test_calls_of_one_turn_do_not_lose_one_another(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, *(f"item {number}" for number in range(1, 21)))
    await asyncio.gather(
        *(close(tools, scope, number, finding=f"{FINDING} ({number})") for number in range(1, 21))
    )
    assert (await tools.progress(scope)).open_items == ()


async def test_the_list_resumes_elsewhere_and_stays_with_its_task(
    tools: ToolSet, scope: TaskScope, tmp_path: Path
) -> None:
    ledger = MemoryLedger()
    here, there = (Workspace(tmp_path / name, ledger, "default", "t") for name in ("here", "there"))
    await here.lay_out({})
    await planned(tools, _at(here, "t"), "first", "second")
    manifest = await here.collect()
    await there.lay_out(manifest)
    assert len((await (await opened()).progress(_at(there, "t"))).open_items) == 2
    assert (await tools.progress(_at(there, "the job's next task"))).open_items == ()
    assert without_state(manifest) == {}


def _at(workspace: Workspace, task_id: str) -> TaskScope:
    return TaskScope(job_id="j", task_id=task_id, tenant="default", workspace=workspace.path)


async def test_no_tool_of_the_model_reaches_the_list(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "first")
    file = next((scope.workspace / RESERVED).iterdir())
    name = f"{RESERVED}/{file.name}"
    before = file.read_bytes()
    for tool, arguments in (
        ("write_file", {"path": name, "content": "{}"}),
        ("delete_file", {"path": name}),
        ("move_file", {"path": name, "to": "x"}),
        ("copy_file", {"path": name, "to": "x"}),
        ("read_file", {"path": name}),
    ):
        assert (await call(tools, scope, tool, **arguments)).failed
    assert RESERVED not in (await call(tools, scope, "list_files")).text
    assert file.read_bytes() == before


async def test_a_damaged_list_is_an_answer_and_never_an_end(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "first")
    next((scope.workspace / RESERVED).iterdir()).write_bytes(b'{"phases": 5}')
    assert "damaged" in (await call(tools, scope, "job_complete", summary="done")).text
    with pytest.raises(ToolFailed):
        await tools.progress(scope)


async def test_a_plan_binds_only_where_its_tools_are_offered(tools: ToolSet, scope: TaskScope) -> None:
    await planned(tools, scope, "first")
    allowed = {spec.name for spec in tools.specs(remove=("todo",))}
    assert await tools.progress(scope, allowed=allowed) == Progress()
    assert await (await opened("echo")).progress(scope) == Progress()


async def test_single_tools_can_be_required_by_name() -> None:
    tools = await opened("todo_write", "job_complete")
    assert tools.unavailable == {}
    assert {spec.name for spec in tools.specs()} == {"todo_write", "job_complete"}
