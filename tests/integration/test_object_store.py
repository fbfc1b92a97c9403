"""The s3 toolkit on a folder and on an S3-compatible server that is not ours."""

import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.telemetry.children import is_free
from agent2389.tools.port import TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet
from tests.support.npm import Missing, installed
from tests.support.structure import ROOT

FOLDER = ROOT / "tests" / "support" / "object_store"
KEY = "S3RVER"  # the one login that the server knows; it looks at its id, not at the signature

Call = Callable[..., Awaitable[ToolOutput]]
Settings = dict[str, Any]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server with the bucket ``box``."""
    try:
        program = installed(FOLDER) / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    except Missing as reason:
        pytest.skip(str(reason))
    port = str(next(port for port in range(22000, 23000) if is_free(port, "127.0.0.1")))
    with tempfile.TemporaryDirectory() as data:
        command = [
            "node",
            str(program),
            "-d",
            data,
            "-a",
            "127.0.0.1",
            "-p",
            port,
            "--configure-bucket",
            "box",
        ]
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            assert any("listening on" in line for line in process.stdout), "the server ended"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()


@pytest.fixture(params=["folder", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty store."""
    if request.param == "folder":
        return {"url": (tmp_path / "objects").as_uri()}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    prefix = tmp_path.name
    return {"url": f"s3://box/{prefix}", "endpoint": request.getfixturevalue("endpoint"), "allow_http": True}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
async def opened(workspace: Path) -> AsyncIterator[Callable[..., Awaitable[Call]]]:
    """Opens the toolkit with settings and gives how to call its tools."""
    async with AsyncExitStack() as stack:

        async def open_tools(settings: Settings) -> Call:
            configuration = AgentConfiguration(
                agent=AgentSection(id="a"), toolkits=("s3",), toolkit_config={"s3": settings}
            )
            tools = ToolSet(configuration)
            await tools.open()
            stack.push_async_callback(tools.close)
            assert tools.skipped == {}
            scope = TaskScope(job_id="j", task_id="t", tenant="default", workspace=workspace)

            async def call(name: str, **arguments: Any) -> ToolOutput:
                return await tools.call(name, json.dumps(arguments), scope)

            return call

        yield open_tools


Open = Callable[..., Awaitable[Call]]


async def test_files_go_there_and_come_back(store: Settings, opened: Open, workspace: Path) -> None:
    call = await opened(store)
    (workspace / "report.bin").write_bytes(bytes(range(256)) * 100)
    sent = await call("s3_upload", key="out/größe 1.bin", path="report.bin")
    assert sent.text == "stored 25600 bytes as out/größe 1.bin"
    assert "out/größe 1.bin (25600 bytes)" in (await call("s3_list")).text
    assert (await call("s3_list", prefix="in")).text == "no objects"
    got = await call("s3_download", key="out/größe 1.bin", path="back.bin")
    assert (got.failed, got.changed_files, got.untrusted) == (False, True, True)
    assert (workspace / "back.bin").read_bytes() == (workspace / "report.bin").read_bytes()


async def test_an_object_is_replaced_and_deleted_as_often_as_asked(
    store: Settings, opened: Open, workspace: Path
) -> None:
    call = await opened(store)
    for text in ("one", "two"):
        (workspace / "a.txt").write_text(text)
        assert not (await call("s3_upload", key="a.txt")).failed
    await call("s3_download", key="a.txt", path="b.txt")
    assert (workspace / "b.txt").read_text() == "two"
    for _ in range(2):
        assert not (await call("s3_delete", key="a.txt")).failed
    gone = await call("s3_download", key="a.txt")
    assert gone.failed
    assert "no such object" in gone.text


async def test_an_object_too_large_is_not_fetched(store: Settings, opened: Open, workspace: Path) -> None:
    call = await opened(store)
    with (workspace / "large.bin").open("wb") as file:
        file.truncate(9 * 1024 * 1024)
    refused = await call("s3_upload", key="large.bin")
    assert refused.failed
    assert "larger than 8 MiB" in refused.text


async def test_a_reader_has_no_tools_that_write(store: Settings, opened: Open) -> None:
    call = await opened({**store, "read_only": True})
    assert (await call("s3_list")).text == "no objects"
    assert "there is no tool" in (await call("s3_delete", key="a.txt")).text


async def test_prefixes_are_walls(
    endpoint: str, opened: Open, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    ours, theirs = [
        await opened({"url": f"s3://box/{name}", "endpoint": endpoint, "allow_http": True})
        for name in ("team-a", "team-b")
    ]
    (workspace / "secret.txt").write_text("theirs")
    await theirs("s3_upload", key="secret.txt")
    for key in (
        "../team-b/secret.txt",
        "/team-b/secret.txt",
        "x/../../team-b/secret.txt",
        "..%2fteam-b/secret.txt",
    ):
        assert (await ours("s3_download", key=key, path="stolen.txt")).failed
    assert (await ours("s3_list")).text == "no objects"
    assert not (workspace / "stolen.txt").exists()


async def test_a_wrong_key_is_an_answer_without_the_key(
    endpoint: str, opened: Open, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-0a1b-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-7f3a91c2-key")
    call = await opened({"url": "s3://box/x", "endpoint": endpoint, "allow_http": True})
    (workspace / "a.txt").write_text("a")
    output = await call("s3_upload", key="a.txt")
    assert output.failed
    assert output.text.startswith("the store answered with ")
    assert "canary" not in output.text


async def test_a_store_that_is_away_is_an_answer(
    opened: Open, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    settings = {"url": "s3://box/x", "endpoint": "http://127.0.0.1:9", "allow_http": True, "seconds": 2}
    output = await (await opened(settings))("s3_list")
    assert output.failed
    assert "longer than 2 seconds" in output.text or "the store answered with" in output.text
