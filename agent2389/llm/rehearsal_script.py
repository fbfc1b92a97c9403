"""A rehearsal by script: lines of the system prompt say which tools to call and what to answer.

::

    rehearse wait 0.5
    rehearse call write_file {"path": "notes.txt", "content": "{input}"}
    rehearse call echo {"text": "{input}"}
    rehearse answer {output} > a

``{input}`` is the task's input (the instruction, when there is none), ``{output}`` what the last
tool gave back. It makes an agent's way of working reproducible without any model: tool calls,
hand-offs, slow steps.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from agent2389.llm.messages import Role, ToolCall, Turn

_LINE = re.compile(r"^rehearse (wait|call|answer) (.+)$", re.MULTILINE)
_LONGEST_WAIT = 3600.0


class Script(msgspec.Struct, frozen=True):
    """What the lines ask for: seconds to wait, calls as (tool, arguments), the answer."""

    wait: float
    calls: tuple[tuple[str, dict[str, Any]], ...]
    answer: str


def read_script(system_prompt: str) -> Script | None:
    """The script of a system prompt; ``None`` when it has no answer line or a line is malformed."""
    wait, calls, answer = 0.0, [], None
    try:
        for verb, rest in _LINE.findall(system_prompt):
            if verb == "wait":
                wait = min(max(float(rest), 0.0), _LONGEST_WAIT)
            elif verb == "answer":
                answer = rest.strip()
            else:
                tool, _, arguments = rest.partition(" ")
                calls.append((tool, dict(json.loads(arguments or "{}"))))
    except (ValueError, TypeError):
        return None
    return None if answer is None else Script(wait, tuple(calls), answer)


def scripted_calls(script: Script, given: str) -> tuple[ToolCall, ...]:
    """The script's tool calls with ``{input}`` filled in."""
    return tuple(
        ToolCall(f"call_{number}", tool, json.dumps(_filled(arguments, given), ensure_ascii=False))
        for number, (tool, arguments) in enumerate(script.calls, 1)
    )


def scripted_answer(script: Script, given: str, turns: Sequence[Turn]) -> str:
    """The script's answer with ``{input}`` and ``{output}`` filled in."""
    output = next((turn.text for turn in reversed(turns) if turn.role is Role.TOOL), "")
    return script.answer.replace("{output}", output).replace("{input}", given)


def _filled(value: Any, given: str) -> Any:
    match value:
        case str():
            return value.replace("{input}", given)
        case dict():
            return {name: _filled(item, given) for name, item in value.items()}
        case list():
            return [_filled(item, given) for item in value]
        case _:
            return value
