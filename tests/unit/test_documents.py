"""Documents that lie, break or never end: each gets its answer, in time, and the agent stays as it was."""

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent2389.tools import document, document_child
from agent2389.tools.port import ToolOutput
from tests.support.documents import MAKERS, content, pdf
from tests.support.structure import ROOT
from tests.support.tool_world import ToolWorld
from tests.support.waiting import until

CASES: list[dict[str, Any]] = tomllib.loads((ROOT / "tests/corpus/documents/cases.toml").read_text())["case"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolWorld:
    return ToolWorld(tmp_path, monkeypatch)


async def read(world: ToolWorld, file: str, name: str = "extract_document_text") -> ToolOutput:
    tools = await world.tools(("document",))
    output = await tools.call(name, json.dumps({"path": file}), world.scope)
    world.check(output)
    assert "internal reason" not in output.text
    return output


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["made"]))
async def test_a_document_gets_the_expected_answer(case: dict[str, Any], world: ToolWorld) -> None:
    file = world.workspace / case["file"]
    file.write_bytes(MAKERS[case["made"]]())
    text = await read(world, case["file"])
    assert text.failed is ("refused" in case), text.text[:500]
    assert re.search(case.get("refused") or case["says"], text.text), text.text[:500]
    assert text.failed or text.untrusted
    assert text.text.startswith("document rejected: ") is text.failed
    assert "root:" not in text.text, "a file of this machine was read"
    assert len(text.text) <= document.MAX_CHARACTERS + document.CUT_NOTE_CHARACTERS


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("good", "kind: PDF\npages: 1\nbytes: [0-9]+$"),
        ("300 pages", "pages: 300"),
        ("a title of a megabyte in a pdf", "title: t{200}$"),
        ("a title with zeros", "title: \ufffdA"),
        ("a title of a megabyte", "title: t{198,200}$"),
        ("an instruction", "title: Ignore all"),
        ("count of a thousand million pages", "kind: PDF"),
        ("zip", "rejected: it is neither PDF nor text"),
        ("password, RC4-128", "rejected: it is encrypted"),
        ("pages round in a circle", "rejected: it is broken"),
        ("nothing", "rejected: it is empty"),
    ],
)
async def test_facts_of_a_document_are_short_and_true(world: ToolWorld, made: str, says: str) -> None:
    (world.workspace / "a.pdf").write_bytes(MAKERS[made]())
    output = await read(world, "a.pdf", "get_document_info")
    assert re.search(says, output.text), output.text[:500]
    assert len(output.text) < 1000
    assert output.failed or output.untrusted


def test_every_maker_has_its_expected_answer() -> None:
    assert [case["made"] for case in CASES] == list(MAKERS)
    assert len(CASES) >= 100


@pytest.mark.parametrize("name", ["extract_document_text", "get_document_info"])
async def test_a_file_of_ten_gigabytes_is_not_read(world: ToolWorld, name: str) -> None:
    with (world.workspace / "huge.pdf").open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(10 * 1024**3)
    assert "larger than 32 MiB" in (await read(world, "huge.pdf", name)).text


async def test_a_document_that_takes_too_long_is_given_up(
    world: ToolWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "PARSE_SECONDS", 0.01)
    (world.workspace / "slow.pdf").write_bytes(pdf())
    assert "takes longer than 0.01 seconds" in (await read(world, "slow.pdf")).text


@pytest.mark.parametrize("sign", ["KILL", "SEGV", "XCPU"])
async def test_a_reader_that_dies_is_an_answer(
    world: ToolWorld, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    child = tmp_path_factory.mktemp("child") / "child.py"
    child.write_text(f"import os, signal\nos.kill(os.getpid(), signal.SIG{sign})\n")
    monkeypatch.setattr(document, "CHILD", child)
    (world.workspace / "a.pdf").write_bytes(pdf())
    assert "needs more time or memory than allowed" in (await read(world, "a.pdf")).text


async def test_a_cancelled_reading_leaves_no_process(
    world: ToolWorld, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path_factory.mktemp("child") / "child.py"
    started = child.with_name("started")
    child.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(1000)\n"
    )
    monkeypatch.setattr(document, "CHILD", child)
    (world.workspace / "a.pdf").write_bytes(pdf())
    reading = asyncio.create_task(read(world, "a.pdf"))
    pid = int(await until(lambda: started.exists() and started.read_text()))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "made",
    ["password, RC4-128", "rubbish", "pages that are their own", "an unknown filter", "a root that is itself",
     "100,000 brackets", "a form that shows itself", "zeros in the text", "count of a thousand million pages"],
)  # fmt: skip
def test_the_second_reader_ends_too(made: str) -> None:
    """Whatever it makes of them, an answer or a rejection: nothing else may leave it."""
    try:
        text, facts = document_child.read_with_pdfium(MAKERS[made](), None, 200_000)
    except document_child.Rejected as rejected:
        assert str(rejected).startswith("it is ")
    else:
        assert facts["kind"] == "PDF"
        assert len(text) < 1_000_000


def test_pages_that_share_one_content_count_every_time() -> None:
    body = content(b"BT /F 12 Tf 1 1 Td (" + b"a" * 60_000 + b") Tj ET")
    text, _ = document_child.read_with_pypdf(body, None, 1000)
    assert len(text) >= 60_000, "the limit ends reading after a page, the caller cuts"
