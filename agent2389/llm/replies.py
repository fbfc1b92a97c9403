"""Making a reply of whatever an endpoint said: nothing here trusts a type, a size or a character."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Finished, Request, TokenUsage, ToolCall
from agent2389.wire.names import new_uuid7

MOST_CALLS: Final = 128
MOST_TOKENS: Final = 1_000_000_000
LONGEST_NAME: Final = 64
LONGEST_LABEL: Final = 128
LONGEST_SIGNATURE: Final = 65_536
MASK: Final = "********"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHARACTERS_PER_TOKEN: Final = 4


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """One answer in an adapter's words, already of safe types. ``usage`` is ``None`` when none was told."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finished: Finished = Finished.STOP
    raw_reason: str = ""
    usage: TokenUsage | None = None
    model: str = ""


def peek(value: Any, name: str) -> Any:
    """The field of an SDK's object or of a plain dictionary; ``None`` when there is none."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def items(value: Any) -> Iterable[Any]:
    """The elements of a list, nothing for anything else."""
    return value if isinstance(value, list | tuple) else ()


def text_of(value: Any) -> str:
    """Text given as a string or as a list of text parts; characters no database takes are replaced."""
    if isinstance(value, str):
        # A lone surrogate cannot be written as UTF-8, and NUL is refused by Postgres.
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return "".join(text_of(part if isinstance(part, str) else peek(part, "text")) for part in items(value))


def label(value: Any) -> str:
    """A short word of the endpoint (a model's name, a reason), printable."""
    text = text_of(value) if isinstance(value, str) else ""
    return "".join(character for character in text[:LONGEST_LABEL] if character.isprintable())


def count(value: Any) -> int:
    """A number of tokens: not negative, not absurd, 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), MOST_TOKENS)) if value == value else 0  # noqa: PLR0124 - not for NaN


def tool_call(call_id: Any, name: Any, arguments: Any, signature: str = "") -> ToolCall:
    """One call. A name no provider would take back is marked, so that the model hears of its mistake."""
    written = text_of(name)
    if not _NAME.fullmatch(written):
        written = "invalid_" + re.sub(r"[^A-Za-z0-9_-]", "_", written[: LONGEST_NAME - 8])
    return ToolCall(
        label(call_id)[:LONGEST_NAME],
        written,
        arguments_text(arguments),
        signature if len(signature) <= LONGEST_SIGNATURE else "",
    )


def arguments_text(value: Any) -> str:
    """Arguments as JSON text, although some endpoints send them already parsed, or not at all."""
    if value is None or value == "":
        return "{}"
    return text_of(value if isinstance(value, str) else json.dumps(value))


def arguments_object(text: str) -> dict[str, Any]:
    """Arguments as the object that some providers want back; broken text stays visible to the model."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"unreadable_arguments": text}
    return value if isinstance(value, dict) else {"unreadable_arguments": text}


def distinct(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    """Calls with ids of their own: some endpoints send none, or one for all. At most ``MOST_CALLS``."""
    seen: set[str] = set()
    found: list[ToolCall] = []
    for call in calls:
        if len(found) == MOST_CALLS:
            break
        call_id = call.id if call.id and call.id not in seen else f"call-{new_uuid7()}"
        seen.add(call_id)
        found.append(call if call_id == call.id else msgspec.structs.replace(call, id=call_id))
    return tuple(found)


def without_secret(raw: Raw, secret: str | None) -> Raw:
    """``raw`` without the key: an endpoint that echoes its request must not put it into a result."""
    if not secret or len(secret) < 6 or secret not in raw.text + raw.model + raw.raw_reason + str(raw.calls):
        return raw

    def masked(text: str) -> str:
        return text.replace(secret, MASK)

    return msgspec.structs.replace(
        raw,
        text=masked(raw.text),
        model=masked(raw.model),
        raw_reason=masked(raw.raw_reason),
        calls=tuple(
            ToolCall(*(masked(part) for part in (call.id, call.name, call.arguments, call.signature)))
            for call in raw.calls
        ),
    )


def usage_of(raw: Raw, request: Request) -> TokenUsage:
    """What the endpoint counted; an estimate of four characters a token when it counted nothing,
    because a limit in tokens must hold for such endpoints too.
    """
    if raw.usage is not None:
        return raw.usage
    asked = sum(
        len(turn.text) + sum(len(call.arguments) for call in turn.tool_calls) for turn in request.turns
    )
    said = len(raw.text) + sum(len(call.arguments) for call in raw.calls)
    return TokenUsage(_tokens(asked), _tokens(said))


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)


def unusable(reason: str) -> ModelFailed:
    """The failure for an answer that makes no sense; another try may make some."""
    return ModelFailed(f"the model endpoint's answer is unusable: {reason}", retryable=True)
