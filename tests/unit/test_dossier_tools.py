"""Citations and requirements as a model uses them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.errors import LeaseLost
from agent2389.ledger.memory import MemoryLedger
from agent2389.tools.port import Effect, TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet
from tests.support.agent_house import ScriptedModel, call, house, says
from tests.support.jobs import claim_one, join, new_job
from tests.support.structure import ROOT

TEXT = "The gauge stood at 4.2 m.\nIt had risen over-\nnight.\n"


class Desk:
    """An agent at work on a task: its tools and its workspace."""

    def __init__(self, tools: ToolSet, scope: TaskScope) -> None:
        self.tools, self.scope = tools, scope

    async def call(self, name: str, **arguments: Any) -> ToolOutput:
        return await self.tools.call(name, json.dumps(arguments), self.scope)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    ledger = MemoryLedger()
    await ledger.submit(new_job())
    claim = await claim_one(ledger, await join(ledger))
    (tmp_path / "gauge.txt").write_text(TEXT)
    tools = ToolSet(
        AgentConfiguration(agent=AgentSection(id="a"), toolkits=("citation", "requirements")), ledger.dossier
    )
    await tools.open()
    yield Desk(
        tools,
        TaskScope(
            job_id="job-1",
            task_id=claim.fence.task_id,
            tenant="default",
            workspace=tmp_path,
            fence=claim.fence,
        ),
    )
    await tools.close()


async def test_a_document_is_cited_with_words_that_it_holds(desk: Desk) -> None:
    output = await desk.call(
        "cite_document", path="gauge.txt", claim="The water rose.", quote="risen overnight", title="Log"
    )
    assert not output.failed, output.text
    assert output.data["found"] is True
    shown = await desk.call("get_citation", number=1)
    assert "the quote was found in it" in shown.text
    assert shown.untrusted
    assert "[1] Log (gauge.txt), cited 1 times" in (await desk.call("list_sources")).text


async def test_a_made_up_quote_is_refused_and_leaves_nothing(desk: Desk) -> None:
    output = await desk.call("cite_document", path="gauge.txt", claim="It fell.", quote="the water fell")
    assert output.failed
    assert "does not occur" in output.text
    assert (await desk.call("list_sources")).text == "nothing is cited yet"


async def test_a_page_of_a_pdf_is_cited(desk: Desk) -> None:
    (desk.scope.workspace / "counters.pdf").write_bytes(
        (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()
    )
    whole = await desk.call("cite_document", path="counters.pdf", claim="They count.", page=1)
    assert not whole.failed, whole.text
    assert whole.data["place"] == "page 1"
    assert (await desk.call("cite_document", path="counters.pdf", claim="x", quote="y", page=999)).failed


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("cite_document", {"path": "../etc/passwd", "claim": "x"}, "refused"),
        ("cite_document", {"path": "absent.txt", "claim": "x"}, "cannot be read"),
        ("cite_document", {"path": "gauge.txt", "claim": ""}, "claim"),
        ("cite_document", {"path": "gauge.txt"}, "claim"),
        ("cite_web", {"url": "file:///etc/passwd", "claim": "x"}, "http(s)"),
        ("cite_web", {"url": "https://user:word@example.com/", "claim": "x"}, "user name"),
        ("cite_web", {"url": "https://[::1/", "claim": "x"}, "http(s)"),
        ("cite_web", {"url": "https://exa mple.com/", "claim": "x"}, "http(s)"),
        ("get_citation", {"number": 7}, "no citation 7"),
        ("get_citation", {"number": 0}, "number"),
        ("edit_requirement", {"number": 9, "version": 1, "status": "open"}, "no requirement 9"),
        ("edit_requirement", {"number": 1, "version": 1}, "say what to change"),
        ("add_requirement", {"text": "x", "priority": "urgent"}, "priority"),
        ("add_requirement", {"text": "x" * 4001}, "text"),
        ("list_requirements", {"status": "lost"}, "status"),
    ],
)
async def test_what_cannot_be_done_is_an_answer(
    desk: Desk, name: str, arguments: dict[str, Any], reason: str
) -> None:
    output = await desk.call(name, **arguments)
    assert output.failed
    assert reason in output.text


async def test_a_requirement_is_met_only_with_a_note_and_as_it_was_read(desk: Desk) -> None:
    await desk.call("add_requirement", text="It names its sources.")
    bare = await desk.call("edit_requirement", number=1, version=1, status="met")
    assert bare.failed
    assert "needs a note" in bare.text
    done = await desk.call("edit_requirement", number=1, version=1, status="met", note="citation 1")
    assert "changed: [1] (must, met, version 2)" in done.text
    late = await desk.call("edit_requirement", number=1, version=1, text="It names nobody.")
    assert late.failed
    assert "somebody else changed it" in late.text
    assert "note: citation 1" in (await desk.call("get_requirement", number=1)).text
    assert (await desk.call("list_requirements", status="open")).text == "there are none"


async def test_web_citations_are_listed_by_source(desk: Desk) -> None:
    await desk.call("cite_web", url="https://example.com/a", claim="First.", title="A")
    await desk.call("cite_web", url="https://example.com/b", claim="Second.", quote="two")
    listed = await desk.call("list_citations", source=2)
    assert listed.text == '[2] Second. (https://example.com/b) - "two"'
    assert len((await desk.call("list_citations")).data) == 2


async def test_without_a_ledger_every_call_says_so(tmp_path: Path) -> None:
    tools = ToolSet(AgentConfiguration(agent=AgentSection(id="a"), toolkits=("requirements",)))
    await tools.open()
    scope = TaskScope(job_id="j", task_id="t", tenant="default", workspace=tmp_path)
    output = await tools.call("list_requirements", "{}", scope)
    assert output.failed
    assert "no ledger" in output.text


async def test_an_agent_writes_in_the_name_of_its_task(tmp_path: Path) -> None:
    model = ScriptedModel(says("", call("add_requirement", text="It ends.")), "done")
    async with house(tmp_path, model, toolkits=["requirements"], job={}) as agent:
        assert await agent.work() == "completed"
        (kept,) = await agent.ledger.dossier.requirements("job-1")
        assert kept.text == "It ends."


async def test_the_call_of_a_late_worker_ends_its_attempt(desk: Desk) -> None:
    fence = desk.scope.fence
    assert fence is not None
    late = msgspec.structs.replace(fence, token="another")
    desk.scope = msgspec.structs.replace(desk.scope, fence=late)
    for name, arguments in (
        ("add_requirement", {"text": "It is late."}),
        ("cite_web", {"url": "https://example.com/", "claim": "It is late."}),
    ):
        with pytest.raises(LeaseLost):
            await desk.call(name, **arguments)
    assert (await desk.call("list_requirements")).text == "there are none"


async def test_writes_may_be_repeated_and_reads_change_nothing(desk: Desk) -> None:
    effects = {name: tool.effect for name, _, tool in desk.tools.offered()}
    writes = {name for name, effect in effects.items() if effect is Effect.IDEMPOTENT}
    assert writes == {"cite_document", "cite_web", "add_requirement", "edit_requirement"}
    assert set(effects.values()) == {Effect.IDEMPOTENT, Effect.PURE}
