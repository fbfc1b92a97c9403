"""RFC 8785 canonical JSON, so that equal documents hash equally in every language."""

import hashlib
import math
from typing import Any

from agent2389.errors import InputRefused
from agent2389.wire.receipts import Code

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def _text(value: str) -> str:
    return (
        '"'
        + "".join(
            _ESCAPES.get(char) or (f"\\u{ord(char):04x}" if ord(char) < 0x20 else char) for char in value
        )
        + '"'
    )


def _number(value: float) -> str:
    """ECMAScript's Number::toString, which RFC 8785 section 3.2.2.3 prescribes."""
    if not math.isfinite(value):
        raise InputRefused(Code.MALFORMED, "NaN and infinities have no JSON form")
    if value == 0:
        return "0"
    mantissa, _, exponent_text = f"{abs(value)!r}e0".partition("e")
    exponent = int(exponent_text.removesuffix("e0") or 0)
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + exponent - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        body = digits + "0" * (point - count)
    elif 0 < point <= 21:
        body = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        body = "0." + "0" * -point + digits
    else:
        power = point - 1
        tail = f".{digits[1:]}" if count > 1 else ""
        body = f"{digits[0]}{tail}e{'+' if power > 0 else '-'}{abs(power)}"
    return ("-" if value < 0 else "") + body


def _write(value: Any) -> str:
    match value:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case str():
            return _text(value)
        case int():
            return str(value)
        case float():
            return _number(value)
        case list() | tuple():
            return "[" + ",".join(_write(item) for item in value) + "]"
        case dict():
            # RFC 8785 sorts by UTF-16 code units, not by code points.
            items = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
            return "{" + ",".join(f"{_text(key)}:{_write(item)}" for key, item in items) + "}"
        case _:
            raise InputRefused(Code.INVALID, f"{type(value).__name__} has no JSON form")


def canonical_json(value: Any) -> bytes:
    """The one byte form of ``value`` (RFC 8785); raises ``InputRefused`` for what JSON cannot hold."""
    return _write(value).encode()


def content_hash(value: Any) -> str:
    """Lower-case hexadecimal SHA-256 of the canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
