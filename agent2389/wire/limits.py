"""Checks on bytes before any parser sees them, and the one strict JSON reader.

100,000 opening brackets raise RecursionError inside the usual parsers, which an ordinary
``except`` misses; duplicate keys, NUL and lone surrogates mean different things to
different readers. So size, nesting and characters are checked by a scan first.
"""

import json
import math
from typing import Any, Final, NoReturn

from agent2389.errors import InputRefused
from agent2389.wire.receipts import Code

MAX_MESSAGE_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 32
MAX_PROTOCOL_DEPTH: Final = 64
"""Protocol input may nest deeper so that a long ``next`` chain gets its own error."""
MAX_SAFE_INTEGER: Final = 2**53

_OPENING = frozenset(b"[{")
_CLOSING = frozenset(b"]}")
_QUOTE, _BACKSLASH = 0x22, 0x5C


def check_size(payload: bytes, limit: int = MAX_MESSAGE_BYTES) -> None:
    """Raise ``InputRefused(too_large)`` above ``limit`` bytes."""
    if len(payload) > limit:
        raise InputRefused(
            Code.TOO_LARGE,
            f"the message has {len(payload)} bytes, the limit is {limit}",
            hint="upload large values with PUT /api/v1/blobs/{sha256} and send the reference",
        )


def check_depth(payload: bytes, limit: int = MAX_DEPTH) -> None:
    """Raise ``InputRefused(too_deep)`` when brackets outside strings nest deeper than ``limit``."""
    depth = 0
    in_string = escaped = False
    for byte in payload:
        if in_string:
            if escaped:
                escaped = False
            elif byte == _BACKSLASH:
                escaped = True
            elif byte == _QUOTE:
                in_string = False
        elif byte == _QUOTE:
            in_string = True
        elif byte in _OPENING:
            depth += 1
            if depth > limit:
                raise InputRefused(Code.TOO_DEEP, f"the message nests deeper than {limit} levels")
        elif byte in _CLOSING:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InputRefused(Code.DUPLICATE_KEY, f"the key {key[:64]!r} stands twice in one object")
            seen.add(key)
    return document


def _refuse_constant(text: str) -> NoReturn:
    raise InputRefused(Code.MALFORMED, f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InputRefused(Code.MALFORMED, "a number is larger than a double can hold")
    return value


def _whole(text: str) -> int:
    if len(text) > 20:
        raise InputRefused(Code.MALFORMED, "an integer is larger than 2^53")
    value = int(text)
    if abs(value) > MAX_SAFE_INTEGER:
        raise InputRefused(Code.MALFORMED, "an integer is larger than 2^53")
    return value


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise InputRefused(Code.MALFORMED, "a text contains the character U+0000")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InputRefused(Code.MALFORMED, "a text contains half of a surrogate pair") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def read_json(payload: bytes, *, max_depth: int = MAX_DEPTH, limit: int = MAX_MESSAGE_BYTES) -> Any:
    """Parse one JSON value under all limits.

    Raises ``InputRefused`` with a receipt code; never anything else, whatever the bytes.
    """
    check_size(payload, limit)
    check_depth(payload, max_depth)
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputRefused(Code.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except json.JSONDecodeError as error:
        raise InputRefused(
            Code.MALFORMED, f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    _check_text(value)
    return value
