"""The rehearsal model: keyless, offline, deterministic, and honest about it.

It follows rules over the text it is given. It knows no agent, capability or file by name: the
role comes from the words of the system prompt, facts come from the documents, and routing from
the candidates' own descriptions.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from agent2389.llm import rehearsal_steps as steps
from agent2389.llm.messages import (
    Chunk,
    Finished,
    Reply,
    Request,
    Role,
    TokenUsage,
    ToolCall,
    ToolSpec,
    Turn,
)
from agent2389.llm.rehearsal_route import by_type, routed, situation_in
from agent2389.llm.rehearsal_script import Script, read_script, scripted_answer, scripted_calls
from agent2389.llm.rehearsal_steps import Kind
from agent2389.llm.rehearsal_text import words

CHARACTERS_PER_TOKEN = 4
_FILE_LINE = re.compile(r"^- (.+) \([^()]*, \d+ bytes\)$", re.MULTILINE)
_SECTION = re.compile(
    r"\n\n## (Input|Earlier steps|What to do differently|Files in the workspace|Your answer)\n\n"
)
_READING = frozenset(words("extract text read document"))


class RehearsalModel:
    """``llm.port.Model`` without a model."""

    name = "rehearsal"
    provider = "rehearsal"

    async def answer(self, request: Request) -> Reply:
        """Tool calls while documents are unread, then the text that the role asks for."""
        prompt = "\n".join(turn.text for turn in request.turns)
        if request.schema is not None:
            value = self._structured(request)
            return _reply(prompt, text=json.dumps(value, ensure_ascii=False), structured=value)
        script = read_script(_first(request.turns, Role.SYSTEM))
        if script is not None:
            return await _follow(script, request.turns, prompt)
        calls = _unread(request)
        if calls:
            return _reply(prompt, calls=calls)
        return _reply(prompt, text=_compose(request.turns))

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The same answer, paragraph by paragraph."""
        reply = await self.answer(request)
        for piece in re.split(r"(?<=\n\n)", reply.text):
            yield Chunk(text=piece)
        yield Chunk(reply=reply)

    async def verify(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to give back."""

    def _structured(self, request: Request) -> Any:
        assert request.schema is not None
        for turn in reversed(request.turns):
            if turn.role is Role.USER and (situation := situation_in(turn.text)) is not None:
                return routed(situation)
        text = next((turn.text for turn in reversed(request.turns) if turn.role is Role.USER), "")
        return by_type(request.schema.schema, text)


def _unread(request: Request) -> tuple[ToolCall, ...]:
    """A reading tool's calls for every listed file that this conversation has not read yet."""
    tool = next((spec for spec in request.tools if _reads_documents(spec)), None)
    user = next((turn.text for turn in request.turns if turn.role is Role.USER), "")
    parts = dict(zip(_SECTION.findall(user), _SECTION.split(user)[2::2], strict=False))
    asked = {call.arguments for turn in request.turns for call in turn.tool_calls}
    if tool is None:
        return ()
    parameter = tool.parameters["required"][0]
    wanted = [
        msgspec.json.encode({parameter: name}).decode()
        for name in _FILE_LINE.findall(parts.get("Files in the workspace", ""))
    ]
    fresh = [arguments for arguments in wanted if arguments not in asked]
    return tuple(
        ToolCall(f"call_{len(asked) + number}", tool.name, arguments)
        for number, arguments in enumerate(fresh, 1)
    )


def _reads_documents(spec: ToolSpec) -> bool:
    """Whether a tool takes one name and says that it extracts the text of documents."""
    required = spec.parameters.get("required", [])
    said = set(words(spec.description))
    return len(required) == 1 and len(said & _READING) >= 3


def _first(turns: tuple[Turn, ...], role: Role) -> str:
    return next((turn.text for turn in turns if turn.role is role), "")


def _task_parts(turns: tuple[Turn, ...]) -> tuple[str, dict[str, str]]:
    """The instruction, and the sections after it by their heading."""
    pieces = _SECTION.split(f"{_first(turns, Role.USER)}\n\n")
    return pieces[0], dict(zip(pieces[1::2], pieces[2::2], strict=True))


async def _follow(script: Script, turns: tuple[Turn, ...], prompt: str) -> Reply:
    """The script's calls first, then its answer."""
    instruction, sections = _task_parts(turns)
    given = (sections.get("Input", "").strip() or instruction).strip()
    if script.calls and not any(turn.role is Role.TOOL for turn in turns):
        await asyncio.sleep(script.wait)
        return _reply(prompt, calls=scripted_calls(script, given))
    if not script.calls:
        await asyncio.sleep(script.wait)
    return _reply(prompt, text=scripted_answer(script, given, turns))


def _compose(turns: tuple[Turn, ...]) -> str:
    system = _first(turns, Role.SYSTEM)
    instruction, sections = _task_parts(turns)
    read = "\n\n".join(
        turn.text
        for turn in turns
        if turn.role is Role.TOOL and not turn.text.startswith("document rejected")
    )
    given = steps.unmarked(sections.get("Input", "")).strip()
    earlier = steps.unmarked(sections.get("Earlier steps", "")).strip()
    kind = steps.kind_of(system) or steps.kind_of(instruction) or Kind.EXTRACT
    match kind:
        case Kind.NOTES:
            body = steps.notes(read or given or earlier or instruction)
        case Kind.DRAFT:
            body = steps.draft(given or earlier or read or instruction)
        case Kind.EDITED:
            body = steps.edited(given or earlier or read or instruction)
        case Kind.VERDICT:
            body = steps.verdict(given, "\n\n".join(filter(None, (read, earlier))))
        case Kind.EXTRACT:
            body = steps.extract(read or given or earlier or instruction, instruction)
    return steps.marked(kind, body)


def _reply(prompt: str, *, text: str = "", calls: tuple[ToolCall, ...] = (), structured: Any = None) -> Reply:
    written = len(text) + sum(len(call.arguments) for call in calls)
    return Reply(
        text=text,
        tool_calls=calls,
        structured=structured,
        usage=TokenUsage(len(prompt) // CHARACTERS_PER_TOKEN, written // CHARACTERS_PER_TOKEN),
        cost_usd=0.0,
        finished=Finished.TOOL_CALLS if calls else Finished.STOP,
        model="rehearsal",
        rehearsal=True,
    )
