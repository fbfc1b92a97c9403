"""Reads one document from standard input under hard limits; started by the document toolkit.

Input: four bytes length, a JSON request, the document. Output: one JSON object. Imports nothing
of this package, so that it starts fast and has nothing to lose.
"""

import io
import json
import resource
import struct
import sys
import zlib

CPU_SECONDS = 20
MEMORY_BYTES = 1024 * 1024 * 1024
MAX_OUTPUT_BYTES = 4 * 1024 * 1024


class Rejected(ValueError):
    """The document cannot be read; the message is for the model."""


BROKEN = "it is broken: this is no PDF that can be read"
UNKNOWN = "it is packed or encrypted in a way that is not known here"


def limit() -> None:
    """No more CPU, memory, files or processes than a document needs."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def page_range(pages: "str | None", count: int) -> range:
    """Zero-based page numbers of ``"2-4"``, cut to the document."""
    if pages is None:
        return range(count)
    first, _, last = pages.partition("-")
    wanted = range(max(int(first) - 1, 0), min(int(last or first), count))
    if not wanted and count:
        raise Rejected(f"it has pages 1 to {count}, none of them is in {pages!r}")
    return wanted


def read_pdf(content: bytes, pages: "str | None", limit_characters: int) -> "tuple[str, dict[str, object]]":
    """Text and facts of a PDF, by whichever reader is installed."""
    try:
        import pypdf  # noqa: PLC0415 - only PDFs pay for it
    except ModuleNotFoundError:
        return read_with_pdfium(content, pages, limit_characters)
    try:
        return read_with_pypdf(content, pages, limit_characters)
    except Rejected:
        raise
    except pypdf.errors.LimitReachedError:
        raise Rejected("it unpacks to more than is allowed") from None
    except pypdf.errors.FileNotDecryptedError:
        raise Rejected("it is encrypted") from None
    except (NotImplementedError, pypdf.errors.DependencyError):
        raise Rejected(UNKNOWN) from None
    except (pypdf.errors.PyPdfError, RecursionError, LookupError, ValueError, ArithmeticError, TypeError,
            AttributeError, struct.error, zlib.error, AssertionError):  # fmt: skip
        # What pypdf throws at rubbish is hardly ever one of its own errors.
        raise Rejected(BROKEN) from None


def read_with_pypdf(
    content: bytes, pages: "str | None", limit_characters: int
) -> "tuple[str, dict[str, object]]":
    """The usual reader."""
    import pypdf  # noqa: PLC0415 - only PDFs pay for it

    reader = pypdf.PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Rejected("it is encrypted")
    texts: list[str] = []
    size = 0
    for number in page_range(pages, len(reader.pages)):
        text = reader.pages[number].extract_text()
        texts.append(text)
        size += len(text)
        if size > limit_characters:
            break
    facts: dict[str, object] = {"kind": "PDF", "pages": len(reader.pages), "bytes": len(content)}
    title = reader.metadata.title if reader.metadata else None
    if title:
        facts["title"] = str(title)[:200]
    return "\n\n".join(texts), facts


def read_with_pdfium(
    content: bytes, pages: "str | None", limit_characters: int
) -> "tuple[str, dict[str, object]]":
    """The second reader, for machines without pypdf."""
    import pypdfium2  # noqa: PLC0415 - only PDFs pay for it

    try:
        document = pypdfium2.PdfDocument(content)
        texts: list[str] = []
        size = 0
        for number in page_range(pages, len(document)):
            texts.append(document[number].get_textpage().get_text_bounded().replace("\r\n", "\n"))
            size += len(texts[-1])
            if size > limit_characters:
                break
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Rejected("it is encrypted") from None
        raise Rejected(BROKEN) from None
    facts: dict[str, object] = {"kind": "PDF", "pages": len(document), "bytes": len(content)}
    title = document.get_metadata_dict().get("Title")
    if title:
        facts["title"] = str(title)[:200]
    return "\n\n".join(texts), facts


def read_text(content: bytes) -> "tuple[str, dict[str, object]]":
    """Text and facts of a text or markdown file."""
    if b"\x00" in content[:4096]:
        raise Rejected("it is neither PDF nor text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Rejected("it is not UTF-8 text") from None
    title = next((line.lstrip("# ").strip() for line in text.splitlines() if line.strip()), "")
    return text, {"kind": "text", "bytes": len(content), "lines": text.count("\n") + 1, "title": title[:200]}


def storable(text: str) -> str:
    """``text`` with a question mark or U+FFFD for what cannot be kept."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def main() -> None:
    """One request, one answer."""
    limit()
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    request = json.loads(sys.stdin.buffer.read(size))
    content = sys.stdin.buffer.read()
    answer: dict[str, object]
    try:
        if not content:
            raise Rejected("it is empty")
        if content[:1024].lstrip().startswith(b"%PDF"):
            text, facts = read_pdf(content, request["pages"], request["limit"])
        else:
            text, facts = read_text(content)
        # No message and no database takes U+0000 or half of a surrogate pair.
        kept = storable(text)[: request["limit"]]
        facts = {key: storable(fact) if isinstance(fact, str) else fact for key, fact in facts.items()}
        answer = {"text": kept, "info": facts, "cut": len(kept) < len(text)}
    except ModuleNotFoundError:
        answer = {"error": "PDF needs the optional dependencies 'docs': pip install 'agent2389[docs]'"}
    except MemoryError:
        answer = {"error": "it needs more memory than allowed"}
    except Exception as error:  # noqa: BLE001 - whatever a parser throws is an answer here
        reason = str(error) if isinstance(error, Rejected) else type(error).__name__
        answer = {"error": reason[:200] or "it cannot be read"}
    sys.stdout.buffer.write(json.dumps(answer).encode()[:MAX_OUTPUT_BYTES])


if __name__ == "__main__":
    main()
