"""Turns of a conversation with a model: vendor-neutral, frozen."""

from enum import StrEnum
from typing import Any

import msgspec


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call the model wants; ``arguments`` is the JSON text as the model wrote it, unchecked.

    ``signature`` is opaque: some providers want it back, unchanged, with the call's result.
    """

    id: str
    name: str
    arguments: str
    signature: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. ``tool_calls`` only on assistant turns, ``tool_call_id`` only on tool turns."""

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as a model sees it; ``parameters`` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Schema(msgspec.Struct, frozen=True):
    """The structure an answer must have: a strict JSON Schema object with a name."""

    name: str
    schema: dict[str, Any]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One model call. ``timeout`` and ``first_token_timeout`` are seconds."""

    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...] = ()
    schema: Schema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float = 180.0
    first_token_timeout: float = 60.0


class TokenUsage(msgspec.Struct, frozen=True):
    """Tokens of one call; ``cached`` is the part of ``input`` read from the provider's cache."""

    input: int = 0
    output: int = 0
    cached: int = 0


class Finished(StrEnum):
    """Why a reply ended; providers' unknown words become ``OTHER`` and are kept in ``Reply.raw_reason``."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    REFUSED = "refused"
    OTHER = "other"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer. ``structured`` is the parsed value when the request had a schema.

    ``cost_usd`` is ``None`` when the price is unknown, 0.0 when the model is free.
    ``model`` is what the endpoint calls itself, ``asked`` the name under which it was asked for.
    ``rehearsal`` marks answers of the keyless offline model.
    """

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    structured: Any = None
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    finished: Finished = Finished.STOP
    raw_reason: str = ""
    model: str
    asked: str = ""
    rehearsal: bool = False


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer; the last one carries the complete ``reply``."""

    text: str = ""
    reply: Reply | None = None
