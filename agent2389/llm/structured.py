"""Getting an answer of a given structure from models that can do it natively, by a tool, or when told."""

import json
from enum import StrEnum
from typing import Any, Final

import jsonschema_rs
import msgspec

from agent2389.llm.messages import Request, Role, Schema, ToolSpec, Turn
from agent2389.llm.replies import Raw, text_of


class Mechanism(StrEnum):
    """How an endpoint is made to answer in a structure, best first."""

    NATIVE = "native"
    TOOL = "tool"
    PROMPT = "prompt"


MECHANISMS: Final = tuple(Mechanism)


class Asked(msgspec.Struct, frozen=True):
    """A request as an adapter sends it.

    ``request.schema`` is set only where the provider's own mechanism is wanted;
    ``forced`` is the one tool that the model must call.
    """

    request: Request
    forced: str | None = None


def asked(request: Request, mechanism: Mechanism) -> Asked:
    """``request`` for an endpoint that gets its structure by ``mechanism``."""
    schema = request.schema
    if schema is None or mechanism is Mechanism.NATIVE:
        return Asked(request)
    if mechanism is Mechanism.TOOL:
        spec = ToolSpec(schema.name, "Give the answer by calling this function.", schema.schema)
        tools = (*request.tools, spec)
        forced = None if request.tools else schema.name
        return Asked(msgspec.structs.replace(request, tools=tools, schema=None), forced)
    order = (
        f"Answer with one JSON object that fits this JSON Schema, nothing else: {json.dumps(schema.schema)}"
    )
    return Asked(
        msgspec.structs.replace(
            request, turns=(*request.turns, Turn(role=Role.USER, text=order)), schema=None
        )
    )


def split(raw: Raw, schema: Schema) -> tuple[Raw, dict[str, Any] | None, str]:
    """The reply without the answering tool, its value, and what is wrong when there is none."""
    answers = [call for call in raw.calls if call.name == schema.name]
    if answers:
        rest = tuple(call for call in raw.calls if call.name != schema.name)
        text = raw.text or answers[0].arguments
        raw = msgspec.structs.replace(raw, calls=rest, text=text)
        value = parsed(answers[0].arguments)
    else:
        value = parsed(raw.text)
    if value is None:
        return raw, None, "that is not one JSON object"
    problem = misfit(value, schema)
    return raw, None if problem else value, problem


def misfit(value: dict[str, Any], schema: Schema) -> str:
    """What keeps ``value`` from fitting, empty when it fits."""
    found = next(jsonschema_rs.iter_errors(schema.schema, value), None)
    if found is None:
        return ""
    where = ".".join(str(part) for part in found.instance_path) or "the object"
    return f"{where}: {str(found.message)[:300]}"


def repair(request: Request, said: str, problem: str) -> Request:
    """The one further try: what was said, and what is wrong with it."""
    order = f"{problem}. Answer with one JSON object that fits the schema, nothing else."
    turns = (
        *request.turns,
        Turn(role=Role.ASSISTANT, text=said or "(nothing)"),
        Turn(role=Role.USER, text=order),
    )
    return msgspec.structs.replace(request, turns=turns)


def parsed(text: str) -> dict[str, Any] | None:
    """The JSON object in a reply: the whole text, or the object between its first and last brace."""
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            value = _storable(json.loads(candidate, parse_constant=_refuse))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def _storable(value: Any) -> Any:
    """``value`` without the characters that JSON can spell but no database takes."""
    match value:
        case str():
            return text_of(value)
        case dict():
            return {text_of(name): _storable(part) for name, part in value.items()}
        case list():
            return [_storable(part) for part in value]
        case _:
            return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
