"""Readable text out of HTML in one linear pass, whatever the HTML looks like.

The standard library's parser takes quadratic time on some broken documents, and whoever writes
a page chooses how broken it is. Here an unfinished construct swallows the rest of the document,
as the HTML standard's tokenizer has it at the end of a file, so no byte is looked at twice.
"""

import html
import re

import msgspec

_TAG_NAME = re.compile(r"/?[A-Za-z][A-Za-z0-9:-]{0,40}")
_HREF = re.compile(r"""\shref\s*=\s*("[^"]{0,2000}"|'[^']{0,2000}'|[^\s"'>]{1,2000})""", re.IGNORECASE)
_QUOTE_OR_END = re.compile(r"=\s*([\"'])|>")
_SPACES = re.compile(r"[ \t\r\f\v\u00a0]+")
_LINES = re.compile(r" ?\n[ \n]*\n ?")
_RAW = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "textarea", "math", "object"})
_BLOCK = frozenset(
    {
        "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figure",
        "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol",
        "p", "pre", "section", "table", "tr", "ul",
    }
)  # fmt: skip


class Page(msgspec.Struct, frozen=True):
    """What a reader sees of a page: its title and its text, links as ``text (address)``."""

    title: str
    text: str


def read_html(source: str) -> Page:
    """Title and text of ``source``. Never raises; takes time linear in its length."""
    reader = _Reader(source)
    reader.read()
    text = _LINES.sub("\n\n", _SPACES.sub(" ", "".join(reader.pieces)))
    lines = [line.strip() for line in text.splitlines()]
    return Page(" ".join("".join(reader.title).split())[:300], "\n".join(lines).strip())


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._folded = source.lower()
        if len(self._folded) != len(source):  # a letter whose lower case is longer
            self._folded = source
        self.pieces: list[str] = []
        self.title: list[str] = []
        self._into = self.pieces
        self._links: list[str] = []

    def read(self) -> None:
        """Walk from one ``<`` to the next."""
        position, end = 0, len(self._source)
        while position < end:
            opening = self._source.find("<", position)
            if opening < 0:
                opening = end
            if opening > position:
                self._text(self._source[position:opening])
            position = self._markup(opening) if opening < end else end

    def _text(self, text: str) -> None:
        # A newline in HTML is a space; only block tags break lines.
        self._into.append(html.unescape(text).replace("\n", " "))

    def _markup(self, opening: int) -> int:
        """Handle what begins at ``opening``; where to go on."""
        if self._source.startswith("<!--", opening):
            return self._after("-->", opening + 4)
        if self._source.startswith(("<!", "<?"), opening):
            return self._after(">", opening)
        name = _TAG_NAME.match(self._source, opening + 1)
        if name is None:
            self._into.append("<")
            return opening + 1
        closing = self._end_of_tag(name.end())
        tag = name[0].lower()
        if tag in _RAW:
            return self._skip_raw(tag, closing)
        self._tag(tag, self._source[name.end() : min(closing, name.end() + 4096)])
        return closing

    def _after(self, mark: str, position: int) -> int:
        found = self._folded.find(mark, position)
        return len(self._source) if found < 0 else found + len(mark)

    def _end_of_tag(self, position: int) -> int:
        while True:
            found = _QUOTE_OR_END.search(self._source, position)
            if found is None:
                return len(self._source)
            if found[0] == ">":
                return found.end()
            position = self._after(found[1], found.end())

    def _skip_raw(self, tag: str, position: int) -> int:
        if self._source[position - 2 : position] == "/>":
            return position
        found = self._folded.find(f"</{tag}", position)
        return len(self._source) if found < 0 else self._end_of_tag(found + len(tag) + 2)

    def _tag(self, tag: str, attributes: str) -> None:
        if tag == "title":
            self._into = self.title
        elif tag in ("/title", "body"):
            self._into = self.pieces
        elif tag == "a":
            found = _HREF.search(attributes)
            self._links.append(html.unescape(found[1].strip("\"'")) if found else "")
        elif tag == "/a":
            link = self._links.pop() if self._links else ""
            if link.startswith(("http://", "https://")):
                self._into.append(f" ({link})")
        elif tag.removeprefix("/") in _BLOCK:
            self._into.append("\n- " if tag == "li" else "\n" if tag in ("br", "/li") else "\n\n")
        elif tag in ("td", "th"):
            self._into.append(" | ")
