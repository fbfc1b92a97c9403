"""The bytes of a request's body, whatever coding its sender put on them."""

import zlib
from typing import Any, Final

from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.wire.receipts import Code

SERVED_UNDECODED: Final[dict[str, Any]] = {"auto_decompress": False}
"""How every application of ours is served: aiohttp would decode before anybody asked for the token,
and fail with a trace instead of a problem."""

_GZIP, _DEFLATE, _BARE_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_DEFLATE_METHOD = 8


async def body_bytes(request: web.Request) -> bytes:
    """The decoded body. Raises ``InputRefused`` for one that is not in the coding it names, or too large."""
    content = await request.read()
    match request.headers.get("Content-Encoding", "").strip().lower():
        case "" | "identity":
            return content
        case "gzip" | "x-gzip":
            return _inflated(content, _GZIP, request.client_max_size)
        case "deflate":
            # Many send it bare, against RFC 9110.
            framed = content[:1] and content[0] & 0xF == _DEFLATE_METHOD
            return _inflated(content, _DEFLATE if framed else _BARE_DEFLATE, request.client_max_size)
        case _:
            raise InputRefused(
                Code.MALFORMED,
                "the Content-Encoding of the body is not known here",
                hint="send it plain or with gzip",
            )


def _inflated(content: bytes, form: int, limit: int) -> bytes:
    inflated = b""
    try:
        while content:
            stream = zlib.decompressobj(form)
            # One byte more than allowed tells what is too large without unpacking all of it.
            inflated += stream.decompress(content, limit + 1 - len(inflated))
            if len(inflated) > limit:
                raise InputRefused(Code.TOO_LARGE, f"the body has more than {limit} bytes when decoded")
            if not stream.eof:
                raise InputRefused(Code.MALFORMED, "the body ends before its Content-Encoding does")
            # Gzip allows several members in a row.
            content = stream.unused_data if form == _GZIP else b""
    except zlib.error:
        raise InputRefused(Code.MALFORMED, "the body is not in the Content-Encoding that it names") from None
    return inflated
