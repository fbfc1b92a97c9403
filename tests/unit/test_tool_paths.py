"""No name leaves the workspace, whichever tool takes it, and no useful name is lost."""

import base64
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from agent2389.agent.files import Workspace
from agent2389.errors import InputRefused
from agent2389.ledger.memory import MemoryLedger
from agent2389.tools.dev import DevToolkit
from agent2389.tools.paths import NameRefused, parts_of
from agent2389.tools.port import ToolSettings
from agent2389.tools.registry import ToolSet
from agent2389.upkeep.accept import accept_document
from tests.support.jobs import claim_one, join
from tests.support.stepped import SteppedMemory
from tests.support.structure import ROOT
from tests.support.tool_world import ToolWorld

LINES = (ROOT / "tests/corpus/paths/names.jsonl").read_text().split("\n")[:-1]
CASES: list[dict[str, Any]] = [json.loads(line) for line in LINES]
REFUSED = [case for case in CASES if "refused" in case]
BLOCKED = [case for case in CASES if "blocked" in case]
TAKEN = [case for case in CASES if "refused" not in case and "blocked" not in case]
WITHOUT_SANDBOX = ("workspace", "document", "todo", "s3")
EVIDENCE = "Forty characters that say what was found, no less."


def name_of(case: dict[str, Any]) -> str:
    return str(case["name"]) * int(case.get("times", 1))


def why(case: dict[str, Any]) -> str:
    return str(case["why"])


def calls_with(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every argument of every tool that is a name."""
    return [
        ("read_file", {"path": name}),
        ("write_file", {"path": name, "content": "stolen"}),
        ("edit_file", {"path": name, "old": "one", "new": "stolen"}),
        ("copy_file", {"path": name, "to": "copy"}),
        ("move_file", {"path": name, "to": "moved"}),
        ("extract_document_text", {"path": name}),
        ("get_document_info", {"path": name}),
        ("s3_upload", {"key": "stolen", "path": name}),
        ("s3_download", {"key": "kept.txt", "path": name}),
        ("todo_complete", {"number": 1, "evidence": [{"file": name}]}),
    ]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolWorld:
    return ToolWorld(tmp_path, monkeypatch)


@pytest.fixture
async def tools(world: ToolWorld) -> ToolSet:
    tools = await world.tools(WITHOUT_SANDBOX)
    await tools.call("next_phase_todos", '{"phase": "p", "todos": ["a"]}', world.scope)
    return tools


@pytest.mark.parametrize("case", REFUSED, ids=why)
async def test_a_name_that_leaves_is_refused_by_every_tool(
    case: dict[str, Any], tools: ToolSet, world: ToolWorld
) -> None:
    name = name_of(case)
    with pytest.raises(NameRefused, match=case["refused"]):
        parts_of(name)
    calls = [
        *calls_with(name),
        ("copy_file", {"path": "notes.md", "to": name}),
        ("move_file", {"path": "notes.md", "to": name}),
        ("delete_file", {"path": name}),
        ("s3_upload", {"key": name, "path": "notes.md"}),
        ("s3_download", {"key": name, "path": "new"}),
        ("s3_delete", {"key": name}),
    ]
    for tool, arguments in calls:
        output = await tools.call(tool, json.dumps(arguments), world.scope)
        assert output.failed, (tool, output.text)
        world.check(output)
    compiler = next(tool for tool in DevToolkit(ToolSettings()).tools() if tool.name == "compile_code")
    assert (await compiler.call({"path": name}, world.scope)).text.startswith("refused: ")
    assert (world.workspace / "notes.md").read_text() == "one two\nthree\n"
    assert [path.name for path in world.objects.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("case", BLOCKED, ids=why)
async def test_what_is_no_file_of_the_workspace_is_neither_read_nor_written(
    case: dict[str, Any], tools: ToolSet, world: ToolWorld
) -> None:
    for tool, arguments in calls_with(name_of(case)):
        output = await tools.call(tool, json.dumps(arguments), world.scope)
        assert output.failed, (tool, output.text)
        world.check(output)
    assert (world.workspace / "notes.md").read_text() == "one two\nthree\n"
    assert not (world.workspace / "copy").exists()
    assert not (world.workspace / "moved").exists()


@pytest.mark.parametrize("case", TAKEN, ids=why)
async def test_a_strange_name_inside_is_a_name_like_others(
    case: dict[str, Any], tools: ToolSet, world: ToolWorld
) -> None:
    name = name_of(case)
    file = world.workspace / case.get("file", name)
    for tool, arguments, failed in (
        ("write_file", {"path": name, "content": "mine"}, False),
        ("read_file", {"path": name}, False),
        ("extract_document_text", {"path": name}, False),
        ("todo_complete", {"number": 1, "evidence": [{"file": name}]}, False),
        ("move_file", {"path": name, "to": "other/place"}, False),
        ("read_file", {"path": name}, True),
        ("copy_file", {"path": "other/place", "to": name}, False),
    ):
        output = await tools.call(tool, json.dumps(arguments), world.scope)
        assert output.failed is failed, (tool, output.text)
        world.check(output)
    assert file.read_text() == "mine"
    assert file.resolve().is_relative_to(world.workspace.resolve())
    listed = (await tools.call("list_files", "{}", world.scope)).text.split("\n")
    assert f"{case.get('file', name)} (4 bytes)" in listed
    for tool, arguments in (
        ("s3_upload", {"key": name, "path": "notes.md"}),
        ("s3_download", {"key": name, "path": "fetched"}),
        ("s3_delete", {"key": name}),
    ):
        world.check(await tools.call(tool, json.dumps(arguments), world.scope))
    assert not (await tools.call("delete_file", json.dumps({"path": name}), world.scope)).failed
    assert not file.exists()


@pytest.mark.parametrize("case", CASES, ids=why)
async def test_a_submission_takes_exactly_the_names_that_a_workspace_can_hold(
    case: dict[str, Any], tmp_path: Path
) -> None:
    name, ledger = name_of(case), SteppedMemory()
    content = base64.b64encode(b"content").decode()
    file = {"name": name, "content_base64": content}
    document = json.dumps({"instruction": "Read.", "files": [file]}).encode()
    canonical = "refused" not in case and case.get("file", name) == name and not name.endswith("/")
    if not canonical or len(name) > 255:
        with pytest.raises(InputRefused):
            await accept_document(ledger, document)
        return
    await accept_document(ledger, document)
    claim = await claim_one(ledger, await join(ledger, "g1", "general"))
    workspace = Workspace(tmp_path, ledger, "default", claim.fence.task_id)
    await workspace.lay_out(claim.manifest)
    assert (workspace.path / name).read_bytes() == b"content"
    assert list(await workspace.collect()) == [name]


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b", "a/b/c/d")])
async def test_a_submission_holds_no_file_that_is_another_ones_folder(first: str, second: str) -> None:
    files = [{"name": name, "content_base64": ""} for name in (first, second)]
    with pytest.raises(InputRefused, match="folder"):
        await accept_document(MemoryLedger(), json.dumps({"instruction": "Read.", "files": files}).encode())


def test_there_are_enough_names_and_each_only_once() -> None:
    assert len(CASES) >= 100
    assert len(REFUSED) >= 60
    assert len({name_of(case) for case in CASES}) == len({case["why"] for case in CASES}) == len(CASES)


def test_no_character_is_both_unseen_and_taken_for_the_programs_folder() -> None:
    for number in range(0x110000):
        char = chr(number)
        if unicodedata.category(char) not in ("Cf", "Cc", "Cs", "Zl", "Zp"):
            continue
        with pytest.raises(NameRefused):
            parts_of(f".agent{char}2389/x")
