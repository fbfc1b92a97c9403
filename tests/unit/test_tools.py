"""Tools: no name leaves the workspace, no document hurts the agent, arguments are checked."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent2389.config.model import AgentConfiguration, AgentSection, ToolEntry
from agent2389.tools.port import TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet
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


NAMES = [
    "", ".", "..", "/", "../outside.txt", "a/../../outside.txt", "/etc/passwd", "~/x", "~root/x", "a\x00b",
    "a\nb", "a\\b", "..\\x", "./../outside.txt", "a/b/../../../outside.txt", "x" * 300, "a/" * 20 + "b",
    "\x7f", "\ud800", "link", "folder/inside", "pipe", "//etc/passwd", "../", "a/..", "..//..//etc/passwd",
    "/proc/self/environ", "/dev/null", "a" * 1100, "\u0085/../../x", "hard",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_no_name_leaves_the_workspace(tools: ToolSet, scope: TaskScope, name: str) -> None:
    import os

    outside = scope.workspace.parent / "outside.txt"
    (scope.workspace / "link").symlink_to(outside)
    (scope.workspace / "folder").symlink_to(scope.workspace.parent)
    os.mkfifo(scope.workspace / "pipe")
    os.link(outside, scope.workspace / "hard")
    for tool, arguments in (
        ("read_file", {"path": name}),
        ("write_file", {"path": name, "content": "stolen"}),
        ("copy_file", {"path": name, "to": "copy"}),
        ("extract_document_text", {"path": name}),
    ):
        output = await call(tools, scope, tool, **arguments)
        assert output.failed, (tool, output.text)
        assert "outside" not in output.text
        assert str(scope.workspace.parent) not in output.text
    assert outside.read_text() == "outside"


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


def bomb() -> bytes:
    """A PDF whose one page inflates to 300 MB through two filters."""
    stream = zlib.compress(zlib.compress(b"0" * 300_000_000))
    head = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\nendobj\n"
    page = b"3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>\nendobj\n"
    body = (
        b"4 0 obj\n<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream\nendobj\n"
        % (len(stream), stream)
    )
    return head + page + body + b"trailer\n<< /Root 1 0 R >>\n%%EOF\n"


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
    "binary.md": lambda: b"\x00\x01\x02" * 100,
    "latin.txt": lambda: "Größe".encode("latin-1"),
    "cut.pdf": lambda: (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()[:900],
    "rubbish.pdf": lambda: b"%PDF-1.7\n" + b"rubbish" * 100,
    "encrypted.pdf": encrypted,
    "bomb.pdf": bomb,
    "blank.pdf": lambda: b"%PDF-1.4\n%%EOF",
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_document_that_cannot_be_read_is_rejected(
    tools: ToolSet, scope: TaskScope, name: str
) -> None:
    (scope.workspace / name).write_bytes(DOCUMENTS[name]())
    output = await call(tools, scope, "extract_document_text", path=name)
    assert output.failed
    assert output.text.startswith("document rejected: ")


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


def test_the_example_pdf_is_reproducible() -> None:
    import runpy

    build = runpy.run_path(str(ROOT / "scripts" / "make_example_pdf.py"))["build"]
    assert build() == (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()
