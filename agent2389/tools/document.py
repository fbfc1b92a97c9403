"""The document toolkit: text out of PDF, text and markdown files, parsed in a limited child process."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from agent2389.telemetry import children
from agent2389.tools.paths import NameRefused, open_below
from agent2389.tools.port import TaskScope, Tool, ToolOutput

PARSE_SECONDS = 30.0
MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
MAX_CHARACTERS = 200_000
CUT_NOTE_CHARACTERS = 200
CHILD = Path(__file__).with_name("document_child.py")

_PATH = {"type": "string", "description": "name of a document in the workspace (PDF, text or markdown)"}


class DocumentToolkit:
    """extract_document_text and get_document_info."""

    name = "document"

    def missing(self) -> str | None:
        """PDF needs the extra ``docs``; without any PDF reader the toolkit is left out."""
        if find_spec("pypdf") is None and find_spec("pypdfium2") is None:
            return "PDF needs the optional dependencies 'docs': pip install 'agent2389[docs]'"
        return None

    async def open(self) -> None:
        """Nothing to open: every document gets a child process of its own."""

    async def close(self) -> None:
        """Nothing to close."""

    def tools(self) -> tuple[Tool, ...]:
        """The two document tools."""
        return (
            Tool(
                name="extract_document_text",
                description="Extract the text of a document (PDF, text, markdown) in the workspace.",
                parameters={
                    "type": "object",
                    "properties": {
                        "path": _PATH,
                        "pages": {
                            "type": "string",
                            "description": "pages of a PDF like 1-3; all when absent",
                            "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$",
                        },
                    },
                    "required": ["path"],
                    "additionalProperties": False,
                },
                call=_extract,
                timeout=PARSE_SECONDS + 5,
                output_cap=MAX_CHARACTERS + CUT_NOTE_CHARACTERS,
            ),
            Tool(
                name="get_document_info",
                description="Tell the kind, size, page count and title of a document in the workspace.",
                parameters={
                    "type": "object",
                    "properties": {"path": _PATH},
                    "required": ["path"],
                    "additionalProperties": False,
                },
                call=_info,
                timeout=PARSE_SECONDS + 5,
            ),
        )


class Parsed(msgspec.Struct, frozen=True):
    """What the child process answers."""

    text: str = ""
    info: dict[str, Any] = {}
    error: str | None = None
    cut: bool = False
    """The document holds more text than was read."""


async def _extract(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    parsed = await parse_document(scope.workspace, arguments["path"], arguments.get("pages"))
    if parsed.error is not None:
        return ToolOutput(text=f"document rejected: {parsed.error}", failed=True)
    if not parsed.text.strip():
        return ToolOutput(text="document rejected: it holds no text (a scan?)", failed=True)
    # Without the note a model would take the part for the whole.
    note = f"\n[cut after {MAX_CHARACTERS} characters: the document is longer; name pages of a PDF]"
    return ToolOutput(text=parsed.text + (note if parsed.cut else ""), untrusted=True)


async def _info(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    parsed = await parse_document(scope.workspace, arguments["path"], "1")
    if parsed.error is not None:
        return ToolOutput(text=f"document rejected: {parsed.error}", failed=True)
    return ToolOutput(
        text="\n".join(f"{key}: {value}" for key, value in parsed.info.items()),
        data=parsed.info,
        untrusted=True,
    )


async def parse_document(root: Path, name: str, pages: str | None) -> Parsed:
    """Text and facts of a document in the workspace; what cannot be read has ``error``. Raises nothing."""
    try:
        content = await asyncio.to_thread(_load, root, name)
    except NameRefused as refused:
        return Parsed(error=str(refused))
    except OSError as error:
        return Parsed(error=str(error.strerror))
    request = msgspec.json.encode({"name": name, "pages": pages, "limit": MAX_CHARACTERS})
    # Isolated (-I), no site-packages scripts, an empty environment: nothing of ours is in reach.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(CHILD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        cwd="/",
        preexec_fn=children.die_with_parent(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PARSE_SECONDS):
            output, _ = await process.communicate(len(request).to_bytes(4, "big") + request + content)
    except TimeoutError:
        return Parsed(error=f"it takes longer than {PARSE_SECONDS:g} seconds to read")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(output, type=Parsed)
    except msgspec.DecodeError:
        return Parsed(error="reading it needs more time or memory than allowed, or it is broken")


def _load(root: Path, name: str) -> bytes:
    with os.fdopen(open_below(root, name, os.O_RDONLY), "rb") as file:
        content = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise NameRefused("the document is larger than 32 MiB")
    return content
