"""Task envelopes of the 2389 protocol, versions 1 and 2, and answers on conversations."""

import uuid
from typing import Any, Final

import msgspec

from agent2389.errors import InputRefused
from agent2389.wire.limits import MAX_PROTOCOL_DEPTH, read_json
from agent2389.wire.names import is_identifier
from agent2389.wire.receipts import Code
from agent2389.wire.topics import canonical_topic, parse_protocol_agent

MAX_PIPELINE_DEPTH: Final = 16
MAX_ERROR_CHARACTERS: Final = 500


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """FR-007. ``version`` set (any string) marks v2; ``document`` is what was received."""

    task_id: str
    conversation_id: str
    topic: str
    instruction: str | None
    input: Any
    next: dict[str, Any] | None
    version: str | None
    document: dict[str, Any]


class Response(msgspec.Struct, frozen=True):
    """The answer of the last agent; ``response`` is always a string."""

    response: str
    task_id: str


class ErrorBody(msgspec.Struct, frozen=True):
    """RULE-002: no traces, paths or secrets; at most 500 characters."""

    code: str
    message: str


class ErrorResponse(msgspec.Struct, frozen=True):
    """The error message on the conversation topic."""

    error: ErrorBody
    task_id: str | None


def pipeline_depth(next_: Any) -> int:
    """How many tasks a chain holds, the task itself included (FR-013); stops counting at 64."""
    depth = 1
    while isinstance(next_, dict) and depth < MAX_PROTOCOL_DEPTH:
        depth += 1
        next_ = next_.get("next")
    return depth


def conversation_of(document: Any) -> tuple[str | None, str | None]:
    """Conversation id and task id as far as they can be read, for an error answer."""
    if not isinstance(document, dict):
        return None, None
    conversation = document.get("conversation_id")
    task = document.get("task_id")
    usable = isinstance(conversation, str) and is_identifier(conversation)
    return (conversation if usable else None), (task if isinstance(task, str) else None)


def read_document(payload: bytes) -> dict[str, Any]:
    """The JSON object of an input message. Raises ``InputRefused``."""
    document = read_json(payload, max_depth=MAX_PROTOCOL_DEPTH)
    if not isinstance(document, dict):
        raise InputRefused(Code.INVALID, "a task envelope is a JSON object")
    return document


def read_envelope(document: dict[str, Any]) -> Envelope:
    """Check an envelope's fields (steps 5 and 6 of FR-014).

    Raises ``InputRefused`` with ``pipeline_depth_exceeded`` or ``invalid``.
    """
    if pipeline_depth(document.get("next")) > MAX_PIPELINE_DEPTH:
        raise InputRefused(
            Code.PIPELINE_DEPTH_EXCEEDED, f"the pipeline is deeper than {MAX_PIPELINE_DEPTH} tasks"
        )
    for field in ("task_id", "conversation_id", "topic"):
        if not isinstance(document.get(field), str):
            raise InputRefused(Code.INVALID, f"{field} must be a string")
    try:
        task_id = str(uuid.UUID(document["task_id"]))
    except ValueError:
        raise InputRefused(Code.INVALID, "task_id must be a UUID") from None
    if not is_identifier(document["conversation_id"]):
        raise InputRefused(Code.INVALID, "conversation_id must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    if "input" not in document:
        raise InputRefused(Code.INVALID, "input is required (it may be null)")
    instruction = document.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InputRefused(Code.INVALID, "instruction must be a string or null")
    version = document.get("version")
    return Envelope(
        task_id=task_id,
        conversation_id=document["conversation_id"],
        topic=document["topic"],
        instruction=instruction,
        input=document["input"],
        next=check_next(document.get("next")),
        version=version if isinstance(version, str) else None,
        document=document,
    )


def check_next(next_: Any) -> dict[str, Any] | None:
    """A nested ``next`` whose every topic names an agent's input. Raises ``InputRefused(invalid)``."""
    if next_ is None:
        return None
    step = next_
    while step is not None:
        if not isinstance(step, dict) or not isinstance(step.get("topic"), str):
            raise InputRefused(Code.INVALID, "next must be null or an object with a topic")
        if parse_protocol_agent(step["topic"]) is None:
            raise InputRefused(
                Code.INVALID, f"next.topic {canonical_topic(step['topic'])[:100]!r} is no agent's input"
            )
        step = step.get("next")
    return dict(next_)


def write_envelope(
    *, task_id: str, conversation_id: str, topic: str, instruction: str | None, input_: Any
) -> bytes:
    """A task for another implementation, as JSON bytes: version 1, without ``next``.

    FR-007 knows text and objects as input; any other value goes as its JSON text.
    """
    if input_ is None:
        input_ = {}
    elif not isinstance(input_, str | dict):
        input_ = msgspec.json.encode(input_).decode()
    return msgspec.json.encode(
        {
            "task_id": task_id,
            "conversation_id": conversation_id,
            "topic": topic,
            "instruction": instruction,
            "input": input_,
            "next": None,
        }
    )


class Answer(msgspec.Struct, frozen=True):
    """What another agent said on a conversation: ``text`` is the response, or with ``code`` the error."""

    task_id: str
    text: str
    code: str | None = None

    @property
    def is_about_a_duplicate(self) -> bool:
        """The reference answers a redelivery of a task it works on by an error; that ends nothing."""
        return self.code == "invalid_input" and "duplicate" in self.text.lower()


def read_answer(payload: bytes) -> Answer | None:
    """An answer or error of any implementation; ``None`` for anything else on a conversation."""
    try:
        document = read_json(payload)
    except InputRefused:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("task_id"), str):
        return None
    task_id = document["task_id"].lower()
    error = document.get("error")
    if error is not None:
        body = error if isinstance(error, dict) else {"message": str(error)}
        return Answer(task_id, str(body.get("message")), str(body.get("code") or "internal_error"))
    if "response" not in document:
        return None
    said = document["response"]
    return Answer(task_id, said if isinstance(said, str) else msgspec.json.encode(said).decode())


def error_message(code: str, message: str, task_id: str | None) -> bytes:
    """The error answer as JSON bytes, cut to the protocol's 500 characters."""
    return msgspec.json.encode(ErrorResponse(ErrorBody(code, message[:MAX_ERROR_CHARACTERS]), task_id))
