"""Whatever a model writes as arguments: an answer that names the reason, in time, and nothing else happens."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent2389.errors import ConfigurationError
from agent2389.tools.configured import CONFIGURED
from agent2389.tools.port import ToolOutput, ToolSettings
from agent2389.tools.registry import BUILTIN_TOOLS, ON_THE_DOSSIER, TOOLKITS, ToolSet
from agent2389.tools.sandbox import Limits, Sandbox, missing_part
from tests.support.structure import ROOT
from tests.support.tool_world import ALL_TOOLKITS, CANARY, ToolWorld

CORPUS = ROOT / "tests/corpus/tool_arguments"
SECONDS = 20.0


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / name).read_text().split("\n")[:-1]]


CASES, TEXTS = read("cases.jsonl"), read("texts.jsonl")
DEV = ("run_command", "compile_code", "run_tests")
TOOLKIT_OF = (
    {tool.name: name for name, make in TOOLKITS.items() for tool in make().tools()}
    | {tool.name: name for name, make in ON_THE_DOSSIER.items() for tool in make(None).tools()}
    | {tool.name: name for name, make in CONFIGURED.items() for tool in make(ToolSettings()).tools()}
)
WITHOUT_DEV = tuple(name for name in ALL_TOOLKITS if name != "dev")


def filled(value: Any) -> Any:
    """``value`` with what would be too long to write down."""
    match value:
        case {"$repeat": [text, times]}:
            return text * times
        case {"$list": [item, times]}:
            return [item] * times
        case {"$wrap": [before, [text, times], after]}:
            return before + text * times + after
        case {"$nest": depth}:
            for _ in range(depth):
                value = [value] if isinstance(value, list) else []
            return value
        case dict():
            return {key: filled(item) for key, item in value.items()}
        case list():
            return [filled(item) for item in value]
    return value


def label(case: dict[str, Any]) -> str:
    return f"{case.get('tool', 'any tool')}: {case['why']}"


@pytest.fixture(scope="module")
def no_sandbox() -> str | None:
    """Why commands cannot run on this machine; tried once."""
    if (missing := missing_part()) is not None:
        return missing
    try:
        asyncio.run(Sandbox(Limits()).probe())
    except ConfigurationError as error:
        return str(error)
    return None


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolWorld:
    return ToolWorld(tmp_path, monkeypatch)


async def opened(world: ToolWorld, *toolkits: str) -> ToolSet:
    tools = await world.tools(toolkits)
    assert tools.skipped == {}
    await tools.call("next_phase_todos", '{"phase": "work", "todos": ["first", "second"]}', world.scope)
    return tools


@pytest.fixture
async def tools(world: ToolWorld) -> AsyncIterator[ToolSet]:
    tools = await opened(world, *WITHOUT_DEV)
    yield tools
    await tools.close()


async def answer(tools: ToolSet, world: ToolWorld, name: str, text: str) -> ToolOutput:
    async with asyncio.timeout(SECONDS):
        output = await tools.call(name, text, world.scope)
    world.check(output)
    assert "internal reason" not in output.text, output.text
    assert len(output.text) <= 250_000
    json.dumps(output.data)
    return output


@pytest.mark.parametrize("case", CASES, ids=label)
async def test_arguments_get_the_expected_answer(
    case: dict[str, Any],
    world: ToolWorld,
    no_sandbox: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if case["tool"] in DEV and no_sandbox is not None:
        pytest.skip(f"no sandbox on this machine: {no_sandbox}")
    tools = await opened(world, TOOLKIT_OF[case["tool"]])
    output = await answer(tools, world, case["tool"], json.dumps(filled(case["arguments"])))
    assert output.failed is ("refused" in case), output.text[:500]
    assert re.search(case.get("refused") or case["works"], output.text), output.text[:500]
    assert CANARY not in "".join(capsys.readouterr())
    await tools.close()


@pytest.mark.parametrize("case", TEXTS, ids=label)
async def test_what_are_no_arguments_is_refused_for_every_tool(
    case: dict[str, Any], world: ToolWorld, tools: ToolSet
) -> None:
    before = sorted(path.name for path in world.workspace.rglob("*"))
    for name, _, _ in tools.offered():
        output = await answer(tools, world, name, filled(case["text"]))
        assert output.failed, (name, output.text)
        assert re.search(case["refused"], output.text), (name, output.text)
        assert len(output.text) < 1000
    assert sorted(path.name for path in world.workspace.rglob("*")) == before


async def test_every_tool_refuses_every_wrong_type_of_every_argument(
    world: ToolWorld, tools: ToolSet
) -> None:
    """From the schemas themselves, so that a new tool is tried before anybody writes cases for it."""
    wrong = {
        "string": (5, None, True, [], {}),
        "integer": ("1", None, True, [], 1.5),
        "array": ("a", 5, None, {}),
    }
    tried = 0
    for name, _, tool in tools.offered():
        for key, schema in tool.parameters["properties"].items():
            for value in wrong.get(schema.get("type", ""), ()):
                output = await answer(tools, world, name, json.dumps({key: value}))
                assert output.failed, (name, key, value)
                tried += 1
    assert tried >= 100


async def test_what_every_tool_declares(world: ToolWorld) -> None:
    """Schemas are closed, outputs and times have caps, descriptions are for the model's eyes."""
    tools = await world.tools()
    for name, toolkit, tool in tools.offered():
        assert tool.parameters["type"] == "object", name
        assert tool.parameters["additionalProperties"] is False, name
        assert set(tool.parameters.get("required", ())) <= set(tool.parameters["properties"]), name
        assert 0 < tool.timeout <= 600, name
        assert 0 < tool.output_cap <= 250_000, name
        assert 10 <= len(tool.description) <= 300, name
        assert toolkit in ALL_TOOLKITS
    await tools.close()


async def test_a_tool_that_breaks_tells_nothing_of_its_inside(
    world: ToolWorld, tools: ToolSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError(f"{CANARY} in {world.folder}")

    monkeypatch.setattr("agent2389.tools.workspace.read_bytes", broken)
    output = await tools.call("read_file", '{"path": "notes.md"}', world.scope)
    assert output.failed
    assert output.text == "read_file failed for an internal reason"


def test_there_are_enough_arguments_for_every_tool() -> None:
    assert len(CASES) >= 250
    assert len({label(case) for case in CASES}) == len(CASES)
    assert {name for _, name in BUILTIN_TOOLS.values()} <= {case["tool"] for case in CASES}


async def test_every_tool_has_cases(world: ToolWorld, no_sandbox: str | None) -> None:
    offered = {name for name, _, _ in (await world.tools()).offered()}
    known = {case["tool"] for case in CASES}
    assert offered <= known
    assert known - offered == (set() if no_sandbox is None else set(DEV))
