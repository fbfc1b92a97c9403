"""The rehearsal model follows a script."""

import json

import pytest

from agent2389.llm.messages import Request, Role, Turn
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.llm.rehearsal_script import read_script

PROMPT = """You are an agent of a rehearsal.
rehearse call write_file {"path": "a.txt", "content": ["{input}"]}
rehearse call echo {"text": "{input}"}
rehearse answer {output} > a
Rules follow."""
USER = "Do it.\n\n## Input\n\njob-1\n\n## Files in the workspace\n\n- x.txt (text/plain, 3 bytes)"


def request(*more: Turn, user: str = USER, system: str = PROMPT) -> Request:
    return Request(turns=(Turn(role=Role.SYSTEM, text=system), Turn(role=Role.USER, text=user), *more))


async def test_it_calls_the_tools_and_then_answers_with_their_output() -> None:
    reply = await RehearsalModel().answer(request())
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == [
        ("write_file", {"path": "a.txt", "content": ["job-1"]}),
        ("echo", {"text": "job-1"}),
    ]
    told = (
        Turn(role=Role.ASSISTANT, text="", tool_calls=reply.tool_calls),
        Turn(role=Role.TOOL, text="written", tool_call_id="call_1"),
        Turn(role=Role.TOOL, text="job-1", tool_call_id="call_2"),
    )
    assert (await RehearsalModel().answer(request(*told))).text == "job-1 > a"


async def test_without_an_input_the_instruction_is_given() -> None:
    script = "rehearse wait 0\nrehearse answer <{input}>"
    assert (await RehearsalModel().answer(request(user="job-2", system=script))).text == "<job-2>"


@pytest.mark.parametrize("prompt", ["You are a writer.", "rehearse call echo {", "rehearse wait soon", ""])
def test_other_prompts_are_no_scripts(prompt: str) -> None:
    assert read_script(prompt + "\n" + ("rehearse answer x" if "rehearse" in prompt else "")) is None
