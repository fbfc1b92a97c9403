"""How options say which agents continue and which tool they shall use."""

import json
from collections.abc import Sequence
from typing import Any

from agent2389.wire.topics import protocol_input


def instruction_of(text: str, tool: str | None, parameters: Any) -> str:
    """The text, and with a tool the wish to use it."""
    if tool is None:
        return text
    how = f" with the parameters {json.dumps(parameters)}" if parameters is not None else ""
    return f"{text}\n\nUse the tool {tool}{how}."


def agent_links(names: Sequence[str], instruction: str) -> dict[str, Any] | None:
    """The nested ``next`` that names these agents in order."""
    link: dict[str, Any] | None = None
    for name in reversed(names):
        link = {"topic": protocol_input(name), "instruction": instruction, "input": None, "next": link}
    return link
