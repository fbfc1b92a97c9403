"""Pinning what an MCP server says about its tools: a changed description is a changed instruction.

A server's descriptions and schemas go into the prompt. Whoever runs the server can change them
after the operator has read them, so the operator's file holds a hash of each.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema_rs
import msgspec

from agent2389.errors import InputRefused, ToolFailed
from agent2389.wire.canonical import content_hash

MAX_DESCRIPTION = 16 * 1024
MAX_SCHEMA = 128 * 1024
_INVISIBLE_ALLOWED = frozenset("\n\r\t\u200c\u200d\ufe0f")


class Offer(msgspec.Struct, frozen=True):
    """One tool as its server describes it."""

    name: str
    description: str
    schema: dict[str, Any]


def pin_of(offer: Offer) -> str:
    """SHA-256 over name, description and schema. Raises ``InputRefused`` for what JSON cannot hold."""
    return content_hash({"name": offer.name, "description": offer.description, "schema": offer.schema})


def chosen(offers: Iterable[Offer], allowed: Sequence[str] | None) -> list[Offer]:
    """The offers on the allow-list, in its order. Raises ``ToolFailed`` when one is not offered."""
    by_name = {offer.name: offer for offer in offers}
    if allowed is None:
        return list(by_name.values())
    absent = [name for name in allowed if name not in by_name]
    if absent:
        raise ToolFailed(f"the server offers no tool {absent[0]!r}", retryable=False)
    return [by_name[name] for name in dict.fromkeys(allowed)]


def check_pins(offers: Iterable[Offer], pins: Mapping[str, str], *, unpinned_ok: bool) -> None:
    """Raise ``ToolFailed`` unless every offer is what the operator pinned."""
    for offer in offers:
        pinned = pins.get(offer.name)
        if pinned is None and not unpinned_ok:
            raise ToolFailed(
                f"tool {offer.name!r} is not pinned; read it and pin it: agent2389 tools pin FILE",
                retryable=False,
            )
        if pinned is not None and pinned.removeprefix("sha256:") != pin_of(offer):
            raise ToolFailed(
                f"tool {offer.name!r} changed its description or schema since it was pinned; "
                "read it and pin it anew: agent2389 tools pin FILE",
                retryable=False,
            )


def check_offer(offer: Offer) -> None:
    """Raise ``ToolFailed`` for an offer that no model should see, pinned or not."""
    if reason := _what_is_wrong(offer):
        raise ToolFailed(f"tool {offer.name[:64]!r}: {reason}", retryable=False)


def _what_is_wrong(offer: Offer) -> str | None:
    if len(offer.description) > MAX_DESCRIPTION:
        return "its description is too long"
    if any(_is_hidden(char) for char in offer.name + offer.description):
        return "its description hides invisible characters"
    if len(msgspec.json.encode(offer.schema)) > MAX_SCHEMA:
        return "its schema is too large"
    try:
        # Offline: a schema may name files and addresses, and the validator would fetch them.
        jsonschema_rs.validator_for(offer.schema, offline=True)
        pin_of(offer)
    except (ValueError, InputRefused) as error:
        return f"its schema is refused: {str(error).splitlines()[0][:200]}"
    return None


def _is_hidden(char: str) -> bool:
    return char not in _INVISIBLE_ALLOWED and unicodedata.category(char) in ("Cc", "Cf", "Co")
