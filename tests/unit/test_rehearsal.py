"""The rehearsal model is honest: facts come from the text, the judge rejects what was doctored."""

import pytest

from agent2389.agent.prompt import RULES
from agent2389.config.load import load_agent
from agent2389.llm import rehearsal_steps as steps
from agent2389.llm.messages import Finished, Request, Role, Schema, ToolSpec, Turn
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.llm.rehearsal_text import numbers
from tests.support.structure import ROOT

DOCUMENT = """# The glass roof of Ostby station

The station of Ostby got a new glass roof between April 2021 and May 2022. The roof weighs 310 tonnes and
covers 4,800 square metres. Architect Mirela Danci won the competition against 22 others. The work cost
18.6 million euros, 1.2 million less than planned. During the work 14 trains a day were moved to platform 9.
Two panes broke in a storm in January 2022 and were replaced within 3 days. Passengers may now wait without
being rained on, which 91 percent of them welcome.
"""
READ = ToolSpec(
    "read_it",
    "Extract the text of a document in the workspace.",
    {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]},
)


def role(name: str) -> str:
    return load_agent(ROOT / "agents" / f"{name}.toml", environ={}).configuration.llm.system_prompt


async def run(system: str, user: str, *, document: str | None = None) -> str:
    turns: tuple[Turn, ...] = (
        Turn(role=Role.SYSTEM, text=system + RULES),
        Turn(role=Role.USER, text=user),
    )
    model = RehearsalModel()
    reply = await model.answer(Request(turns=turns, tools=(READ,)))
    if document is not None:
        assert reply.finished is Finished.TOOL_CALLS
        assert [call.name for call in reply.tool_calls] == ["read_it"]
        turns = (
            *turns,
            Turn(role=Role.ASSISTANT, tool_calls=reply.tool_calls),
            Turn(role=Role.TOOL, text=document, tool_call_id=reply.tool_calls[0].id),
        )
        reply = await model.answer(Request(turns=turns, tools=(READ,)))
    assert reply.rehearsal
    assert steps.MARK in reply.text
    return reply.text


FILES = "\n\n## Files in the workspace\n\n- strange name.pdf (application/pdf, 12 bytes)"


async def brief() -> tuple[str, str]:
    notes = await run(role("researcher"), "Write a brief." + FILES, document=DOCUMENT)
    draft = await run(role("writer"), f"Write a brief.\n\n## Input\n\n{notes}")
    edited = await run(role("editor"), f"Write a brief.\n\n## Input\n\n{draft}")
    return notes, edited


async def test_every_figure_of_the_way_stands_in_the_document() -> None:
    notes, edited = await brief()
    assert numbers(steps.unmarked(notes)) <= numbers(DOCUMENT)
    assert numbers(steps.unmarked(edited)) <= numbers(DOCUMENT)
    assert len(numbers(steps.unmarked(edited))) >= 5
    assert "Mirela Danci" in edited


async def judge(text: str) -> str:
    return await run(role("judge"), f"Check it.\n\n## Input\n\n{text}" + FILES, document=DOCUMENT)


async def test_the_judge_approves_what_is_supported() -> None:
    _, edited = await brief()
    assert "Verdict: approve" in await judge(edited)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("310 tonnes", "410 tonnes", "410"),
        ("18.6 million", "16.8 million", "16.8"),
        ("Mirela Danci", "Mirela Popescu", "Popescu"),
        ("22 others", "23 others", "23"),
    ],
)
async def test_the_judge_rejects_a_doctored_text(old: str, new: str, found: str) -> None:
    doctored = DOCUMENT.replace(old, new)
    verdict = await judge(doctored)
    assert "Verdict: reject" in verdict
    assert f"not in the sources: {found}" in verdict


async def test_the_judge_rejects_without_sources() -> None:
    reply = await RehearsalModel().answer(
        Request(
            turns=(
                Turn(role=Role.SYSTEM, text=role("judge")),
                Turn(role=Role.USER, text=f"Check it.\n\n## Input\n\n{DOCUMENT}"),
            )
        )
    )
    assert "Verdict: reject" in reply.text


async def test_an_answer_fits_any_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "blue"]},
            "count": {"type": "integer", "minimum": 2, "maximum": 5},
            "names": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "ok": {"type": "boolean"},
        },
    }
    turns = (Turn(role=Role.USER, text="yes, 9 blue ones"),)
    reply = await RehearsalModel().answer(Request(turns=turns, schema=Schema("thing", schema)))
    assert reply.structured == {"colour": "blue", "count": 5, "names": ["yes, 9 blue ones"], "ok": True}
