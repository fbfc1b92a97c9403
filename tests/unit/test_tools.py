"""Tools: no name leaves the workspace, no document hurts the agent, arguments are checked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent2389.config.model import AgentConfiguration, AgentSection, ApprovalsSection, ToolEntry
from agent2389.tools.configured import CONFIGURED
from agent2389.tools.echo import EchoToolkit
from agent2389.tools.port import TaskScope, Toolkit, ToolOutput, ToolSettings
from agent2389.tools.registry import (
    BUILTIN_TOOLS,
    ON_THE_DOSSIER,
    TOOLKITS,
    ToolSet,
    is_known_tool,
    is_known_toolkit,
)
from tests.support.structure import ROOT


def configuration(*toolkits: str, tools: tuple[str, ...] = ()) -> AgentConfiguration:
    entries = tuple(ToolEntry(name=name) for name in tools)
    return AgentConfiguration(agent=AgentSection(id="a"), toolkits=toolkits, tools=entries)


@pytest.fixture
def scope(tmp_path: Path) -> TaskScope:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "outside.txt").write_text("outside")
    return TaskScope(job_id="j", task_id="t", tenant="default", workspace=workspace)


@pytest.fixture
async def tools() -> ToolSet:
    tools = ToolSet(configuration("workspace", "document", "echo"))
    await tools.open()
    return tools


async def call(tools: ToolSet, scope: TaskScope, name: str, **arguments: object) -> ToolOutput:
    return await tools.call(name, json.dumps(arguments), scope)


async def test_files_are_written_read_edited_searched_and_moved(tools: ToolSet, scope: TaskScope) -> None:
    assert (await call(tools, scope, "write_file", path="notes/a.md", content="one two\nthree")).changed_files
    assert (await call(tools, scope, "read_file", path="notes/a.md")).text == "one two\nthree"
    assert not (await call(tools, scope, "edit_file", path="notes/a.md", old="two", new="2")).failed
    assert (await call(tools, scope, "edit_file", path="notes/a.md", old="absent", new="")).failed
    assert "notes/a.md:1: one 2" in (await call(tools, scope, "search_files", text="one")).text
    assert not (await call(tools, scope, "move_file", path="notes/a.md", to="b.md")).failed
    assert (await call(tools, scope, "list_files")).text == "b.md (11 bytes)"
    assert not (await call(tools, scope, "delete_file", path="b.md")).failed
    assert (await call(tools, scope, "list_files")).text == "the workspace is empty"


async def test_a_slip_in_the_names_of_guarded_tools_is_found(tools: ToolSet) -> None:
    section = ApprovalsSection(always=("write_file", "wirte_file"), never=("echo", "sned"))
    assert tools.unknown(section) == ["sned", "wirte_file"]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({}, "one\ntwo\r\nthree\n"),
        ({"from_line": 2}, "two\r\nthree\n"),
        ({"from_line": 2, "lines": 1}, "two\r\n"),
        ({"lines": 1}, "one\n"),
        ({"from_line": 3, "lines": 9}, "three\n"),
        ({"start": 4}, "two\r\nthree\n"),
        ({"from_line": 2, "start": 5}, "three\n"),
        ({"start": 15}, ""),
    ],
)
async def test_a_part_of_a_file(tools: ToolSet, scope: TaskScope, part: dict[str, int], text: str) -> None:
    await call(tools, scope, "write_file", path="a.txt", content="one\ntwo\r\nthree\n")
    assert (await call(tools, scope, "read_file", path="a.txt", **part)).text == text


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"from_line": 4}, "the file has 3 lines"),
        ({"start": 99}, "there are 13 characters"),
        ({"from_line": 0}, "arguments are refused"),
        ({"lines": 0}, "arguments are refused"),
        ({"start": -1}, "arguments are refused"),
    ],
)
async def test_a_part_that_is_not_there(
    tools: ToolSet, scope: TaskScope, part: dict[str, int], reason: str
) -> None:
    await call(tools, scope, "write_file", path="a.txt", content="one\ntwo\nthree")
    output = await call(tools, scope, "read_file", path="a.txt", **part)
    assert output.failed
    assert reason in output.text


@pytest.mark.parametrize("line_length", [7, 200_000])
async def test_a_long_file_is_read_in_parts_to_its_end(
    tools: ToolSet, scope: TaskScope, line_length: int
) -> None:
    """Following the notes gives the whole file, even one that is a single line."""
    line = "x" * (line_length - 2) + "é\n"
    content = line * (50_000 // line_length + 1)
    await call(tools, scope, "write_file", path="a.txt", content=content)
    found, start, parts = "", 0, 0
    while start >= 0:
        text = (await call(tools, scope, "read_file", path="a.txt", start=start)).text
        assert len(text) <= 20_200
        piece, _, note = text.partition("\n[cut: characters ")
        found, parts = found + piece, parts + 1
        start = int(note.partition("start=")[2].rstrip("]")) if note else -1
    assert found == content
    assert parts == -(-len(content) // 20_000)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        '{"path": 5}',
        "{}",
        '{"path": "a", "more": 1}',
        "[" * 50_000,
        '{"path":"a","path":"b"}',
    ],
    ids=range(10),
)
async def test_wrong_arguments_are_an_answer(tools: ToolSet, scope: TaskScope, arguments: str) -> None:
    assert (await tools.call("read_file", arguments, scope)).failed


async def test_unknown_tools_are_an_answer(tools: ToolSet, scope: TaskScope) -> None:
    assert (await tools.call("rm -rf", "{}", scope)).failed


def encrypted() -> bytes:
    import io

    import pypdf

    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


DOCUMENTS: dict[str, Callable[[], bytes]] = {
    "empty.txt": lambda: b"",
    "latin.txt": lambda: "Größe".encode("latin-1"),
    "cut.pdf": lambda: (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()[:900],
    "rubbish.pdf": lambda: b"%PDF-1.7\n" + b"rubbish" * 100,
    "encrypted.pdf": encrypted,
}


async def test_documents_are_read(tools: ToolSet, scope: TaskScope) -> None:
    for name in ("bicycle-counters.pdf", "harbour-ferry.md"):
        (scope.workspace / name).write_bytes((ROOT / "examples" / name).read_bytes())
    pdf = await call(tools, scope, "extract_document_text", path="bicycle-counters.pdf")
    assert "6,420" in pdf.text
    part = await call(tools, scope, "extract_document_text", path="bicycle-counters.pdf", pages="2-9")
    assert 0 < len(part.text) < len(pdf.text)
    info = await call(tools, scope, "get_document_info", path="bicycle-counters.pdf")
    assert "title: Counting bicycles in Halmby: a field report" in info.text
    assert "148,200" in (await call(tools, scope, "extract_document_text", path="harbour-ferry.md")).text


async def test_optional_toolkits_are_skipped_and_required_tools_are_not() -> None:
    tools = ToolSet(
        configuration("workspace", "nothing-like-it", tools=("echo", "file_read", "missing_tool"))
    )
    await tools.open()
    assert "nothing-like-it" in tools.skipped
    assert set(tools.unavailable) == {"missing_tool"}
    names = {spec.name for spec in tools.specs()}
    assert {"echo", "file_read", "read_file"} <= names
    assert "read_file" not in {spec.name for spec in tools.specs(remove=("workspace",))}


async def test_a_tool_the_job_removed_does_not_run(tools: ToolSet, scope: TaskScope) -> None:
    allowed = {spec.name for spec in tools.specs(remove=("workspace",))}
    arguments = '{"path": "a", "content": "b"}'
    assert (await tools.call("write_file", arguments, scope, allowed=allowed)).failed
    assert list(scope.workspace.iterdir()) == []
    assert not (await tools.call("echo", '{"text": "x"}', scope, allowed=allowed)).failed


async def test_moves_neither_nest_folders_nor_leave_them_behind(tools: ToolSet, scope: TaskScope) -> None:
    await call(tools, scope, "write_file", path="a/b", content="x")
    assert (await call(tools, scope, "move_file", path="a", to="c/d/a")).failed
    assert (await call(tools, scope, "move_file", path="absent", to="e/f/g")).failed
    assert [path.name for path in scope.workspace.iterdir()] == ["a"]


async def test_a_full_workspace_takes_changes_but_nothing_new(
    tools: ToolSet, scope: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.tools.workspace.MAX_FILES", 3)
    assert not (await call(tools, scope, "write_file", path="a/b/c", content="x")).failed
    assert (await call(tools, scope, "write_file", path="d", content="x")).failed
    assert (await call(tools, scope, "copy_file", path="a/b/c", to="d")).failed
    assert (await call(tools, scope, "move_file", path="a/b/c", to="e/d")).failed
    assert not (await call(tools, scope, "write_file", path="a/b/c", content="y")).failed
    assert (await call(tools, scope, "read_file", path="a/b/c")).text == "y"


async def test_a_cut_document_says_so(tools: ToolSet, scope: TaskScope) -> None:
    (scope.workspace / "whole.txt").write_text("a" * 200_000)
    (scope.workspace / "long.txt").write_text("a" * 200_001)
    assert (await call(tools, scope, "extract_document_text", path="whole.txt")).text == "a" * 200_000
    assert (
        "[cut after 200000 characters"
        in (await call(tools, scope, "extract_document_text", path="long.txt")).text
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rubbish.pdf", "it is broken"),
        ("cut.pdf", "it is broken"),
        ("encrypted.pdf", "it is encrypted"),
        ("empty.txt", "it is empty"),
        ("latin.txt", "it is not UTF-8 text"),
    ],
)
async def test_a_rejected_document_has_a_reason_for_people(
    tools: ToolSet, scope: TaskScope, name: str, reason: str
) -> None:
    (scope.workspace / name).write_bytes(DOCUMENTS[name]())
    assert reason in (await call(tools, scope, "extract_document_text", path=name)).text


@pytest.mark.parametrize("pages", ["9-9", "3-2", "0"])
async def test_pages_that_are_not_there_are_named(tools: ToolSet, scope: TaskScope, pages: str) -> None:
    (scope.workspace / "a.pdf").write_bytes((ROOT / "examples" / "bicycle-counters.pdf").read_bytes())
    output = await call(tools, scope, "extract_document_text", path="a.pdf", pages=pages)
    assert output.failed
    assert "it has pages 1 to" in output.text


def test_the_second_pdf_reader_reads_the_same() -> None:
    from agent2389.tools.document_child import read_with_pdfium, read_with_pypdf

    content = (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()
    text, facts = read_with_pdfium(content, None, 200_000)
    usual, usual_facts = read_with_pypdf(content, None, 200_000)
    assert text.split() == usual.split()
    assert facts == usual_facts
    for name, reason in (("rubbish.pdf", "broken"), ("encrypted.pdf", "encrypted")):
        with pytest.raises(ValueError, match=reason):
            read_with_pdfium(DOCUMENTS[name](), None, 200_000)


LIMITS = {
    "memory": ("bytearray(2 * 1024**3)", "MemoryError"),
    "files": ("[open('/dev/null') for _ in range(100)]", "Too many open files"),
    "disk": ("open(target, 'wb', 0).write(b'x')", "File too large"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_of_the_child_bite(name: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    action, expected = LIMITS[name]
    program = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "target = sys.argv[2]\n"
        "runpy.run_path(sys.argv[1])['limit']()\n"
        f"{action}\n"
    )
    child = ROOT / "agent2389" / "tools" / "document_child.py"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(child), str(tmp_path / "file")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert expected in done.stderr


async def test_a_toolkit_that_breaks_while_opening_is_skipped_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(EchoToolkit):
        async def open(self) -> None:
            raise OSError("/home/somebody/secret")

    monkeypatch.setattr("agent2389.tools.registry.TOOLKITS", {"broken": Broken, "echo": EchoToolkit})
    tools = ToolSet(configuration("broken", "echo"))
    await tools.open()
    assert tools.skipped == {"broken": "it failed to open: OSError"}
    assert [spec.name for spec in tools.specs()] == ["echo"]


def test_the_example_pdf_is_reproducible() -> None:
    import runpy

    build = runpy.run_path(str(ROOT / "scripts" / "make_example_pdf.py"))["build"]
    assert build() == (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()


TABLE = {
    "workspace": {
        "read_file": "pure", "write_file": "idempotent", "edit_file": "idempotent", "list_files": "pure",
        "delete_file": "idempotent", "search_files": "pure", "move_file": "idempotent", "copy_file": "idempotent",
    },
    "todo": {
        "next_phase_todos": "idempotent", "todo_complete": "idempotent", "todo_rewind": "idempotent",
        "mark_complete": "idempotent", "job_complete": "idempotent", "todo_list": "pure",
    },
    "web": {"web_search": "pure", "fetch_url": "pure"},
    "document": {"extract_document_text": "pure", "get_document_info": "pure"},
    "s3": {"s3_upload": "idempotent", "s3_download": "idempotent", "s3_list": "pure", "s3_delete": "idempotent"},
    "dev": {"run_command": "unsafe", "compile_code": "unsafe", "run_tests": "unsafe"},
    "citation": {
        "cite_document": "idempotent", "cite_web": "idempotent", "list_sources": "pure", "get_citation": "pure",
        "list_citations": "pure",
    },
    "requirements": {
        "list_requirements": "pure", "get_requirement": "pure", "add_requirement": "idempotent",
        "edit_requirement": "idempotent",
    },
    "neo4j": {
        "execute_cypher_query": "pure", "get_database_schema": "pure", "validate_schema_compliance": "pure",
    },
    "http": {"http_request": "unsafe"},
    "echo": {"echo": "pure"},
}  # fmt: skip
"""Names that configuration files and prompts rely on, and what a second call of each may do."""


@pytest.mark.parametrize("name", TABLE)
def test_a_toolkit_has_the_tools_it_promises(name: str) -> None:
    toolkit: Toolkit
    if name in ON_THE_DOSSIER:
        toolkit = ON_THE_DOSSIER[name](None)
    else:
        toolkit = TOOLKITS[name]() if name in TOOLKITS else CONFIGURED[name](ToolSettings())
    assert toolkit.name == name
    assert {tool.name: tool.effect.value for tool in toolkit.tools()} == TABLE[name]
    assert all(is_known_tool(tool) for tool in TABLE[name])
    assert is_known_toolkit(name)


@pytest.mark.parametrize(("other", "toolkit"), [("file_read", "workspace"), ("todo_write", "todo")])
def test_other_names_mean_a_tool_that_there_is(other: str, toolkit: str) -> None:
    assert BUILTIN_TOOLS[other][0] == toolkit
    assert BUILTIN_TOOLS[other][1] in TABLE[toolkit]
