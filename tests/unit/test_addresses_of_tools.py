"""The corpus of addresses through the tools themselves: asked for, and as the target of a redirect."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agent2389.tools.http_request import HttpToolkit
from agent2389.tools.port import TaskScope, Tool, ToolSettings
from agent2389.tools.web import WebToolkit
from tests.support.structure import ROOT
from tests.support.web_server import WebServer, web_server

CORPUS = ROOT / "tests" / "corpus" / "addresses" / "spellings.jsonl"
REFUSED = [case for case in map(json.loads, CORPUS.read_text().splitlines()) if "refused" in case]
REDIRECTABLE = [case for case in REFUSED if case["url"].isascii() and case["url"].isprintable()]


class Names:
    """A resolver that knows the test's own server and the name of the case at hand."""

    def __init__(self) -> None:
        self.answer: Sequence[str] = ()

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        if host == "origin.example":
            return ["127.0.0.1"]
        if not self.answer:
            raise OSError("not known")
        return self.answer


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with web_server() as running:
        yield running


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture(params=[WebToolkit, HttpToolkit], ids=["fetch_url", "http_request"])
async def tool(request: pytest.FixtureRequest, server: WebServer, names: Names) -> AsyncIterator[Tool]:
    """The tool, which may reach the test's server under one name and nothing else that is private."""
    settings = ToolSettings(values={"allow_private": [f"origin.example:{server.port}"]})
    toolkit = request.param(settings, resolve=names)
    await toolkit.open()
    found = {item.name: item for item in toolkit.tools()}
    yield found.get("fetch_url") or found["http_request"]
    await toolkit.close()


@pytest.fixture
def scope(tmp_path: Path) -> TaskScope:
    return TaskScope(job_id="j", task_id="t", tenant="default", workspace=tmp_path)


def told(text: str) -> None:
    for address in ("127.0.0.1", "10.0.0.", "169.254."):
        assert address not in text, "a refusal must not tell what a name resolves to"


async def test_no_spelling_gets_through(
    tool: Tool, names: Names, server: WebServer, scope: TaskScope
) -> None:
    assert len(REFUSED) >= 100
    for case in REFUSED:
        names.answer = case.get("resolves", ())
        output = await tool.call({"url": case["url"]}, scope)
        assert output.failed, case
        assert case["refused"] in output.text, (case, output.text)
        told(output.text.replace(case["url"], ""))
    assert server.requests == []


async def test_no_spelling_gets_through_by_a_redirect(
    tool: Tool, names: Names, server: WebServer, scope: TaskScope
) -> None:
    assert len(REDIRECTABLE) >= 80
    origin = f"http://origin.example:{server.port}/moved?to="
    for case in REDIRECTABLE:
        names.answer = case.get("resolves", ())
        before = len(server.requests)
        output: Any = await tool.call({"url": origin + quote(case["url"], safe="")}, scope)
        # What is no address at all may also be read as a place on the same server, which says 404.
        assert output.failed, (case, output.text)
        assert all(
            request.headers["host"].startswith("origin.example") for request in server.requests[before:]
        )
