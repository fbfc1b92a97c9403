"""Text out of an HTTP answer: which media types are readable, in which character set."""

import asyncio
import re

from agent2389.tools.guarded_http import Fetched
from agent2389.tools.html_text import Page, read_html

_READABLE = re.compile(
    r"text/[a-z0-9.+-]+|application/(?:[a-z0-9.+-]+\+)?(?:json|xml|x-ndjson|javascript|yaml)"
)
_HTML = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_CHARSETS = re.compile(
    r"utf-?8|utf-?16(?:le|be)?|us-ascii|ascii|iso-?8859-?[0-9]{1,2}|latin-?1|windows-?125[0-8]|cp125[0-8]"
    r"|gb(?:2312|k|18030)|big5|shift[_-]?jis|euc-(?:jp|kr)|koi8-[ru]|macintosh",
    re.IGNORECASE,
)
"""Only character sets: Python's codecs also unpack archives and take quadratic time over punycode."""


class NotReadable(ValueError):
    """The answer holds no text; the message is for the model."""


async def page_of(fetched: Fetched) -> Page:
    """Title and text of an answer. Raises ``NotReadable`` for pictures, archives and the like."""
    media_type = fetched.media_type
    if media_type and not _READABLE.fullmatch(media_type):
        raise NotReadable(f"the answer is {media_type[:60]}, which holds no text")
    if not media_type and b"\x00" in fetched.body[:4096]:
        raise NotReadable("the answer is of no named type and holds no text")
    # A thread: two megabytes of HTML take longer than other tasks should wait.
    return await asyncio.to_thread(_read, fetched, media_type)


def _read(fetched: Fetched, media_type: str) -> Page:
    text = fetched.body.decode(_charset(fetched), "replace").replace("\x00", "\ufffd")
    looks_like_html = not media_type and text[:512].lstrip().lower().startswith(("<!doctype html", "<html"))
    if media_type in _HTML or looks_like_html:
        return read_html(text)
    return Page("", text)


def _charset(fetched: Fetched) -> str:
    if fetched.body.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    start = fetched.body[:2048].decode("latin-1")
    found = _CHARSET.search(fetched.headers.get("content-type", "")) or _CHARSET.search(start)
    if found is None or not _CHARSETS.fullmatch(found[1]):
        return "utf-8"
    try:
        b"".decode(found[1])
    except LookupError:
        return "utf-8"
    return found[1]
