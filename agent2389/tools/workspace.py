"""The workspace toolkit: files in the task's own directory."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent2389.tools.paths import RESERVED, NameRefused, folder_of, open_below, parts_of
from agent2389.tools.port import Call, Effect, TaskScope, Tool, ToolOutput

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_FILES = 1000
MAX_MATCHES = 200
SHOWN_CHARACTERS = 20_000
NOTE_CHARACTERS = 200

_PATH = {"type": "string", "description": "file name relative to the workspace"}
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "maximum": 10_000_000}
_PART = {
    "from_line": {**_NUMBER, "minimum": 1, "description": "first line to show, as search_files counts them"},
    "lines": {**_NUMBER, "minimum": 1, "description": "how many lines; to the end when absent"},
    "start": {
        **_NUMBER,
        "minimum": 0,
        "description": "characters of these to leave out, to go on after a cut",
    },
}


class WorkspaceToolkit:
    """read_file, write_file, edit_file, list_files, delete_file, search_files, move_file, copy_file."""

    name = "workspace"

    def missing(self) -> str | None:
        """Needs nothing."""
        return None

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def tools(self) -> tuple[Tool, ...]:
        """The file tools."""
        return (
            _tool(
                "read_file",
                "Read a text file of the workspace, or some of its lines. Long ones in parts.",
                {"path": _PATH},
                _read,
                writes=False,
                optional=_PART,
                output_cap=SHOWN_CHARACTERS + NOTE_CHARACTERS,
            ),
            _tool(
                "write_file",
                "Write a text file in the workspace, replacing it if it exists.",
                {"path": _PATH, "content": _TEXT},
                _write,
            ),
            _tool(
                "edit_file",
                "Replace one exact piece of text in a file; it must occur exactly once.",
                {"path": _PATH, "old": _TEXT, "new": _TEXT},
                _edit,
            ),
            _tool("list_files", "List the files of the workspace with their sizes.", {}, _list, writes=False),
            _tool("delete_file", "Delete a file of the workspace.", {"path": _PATH}, _delete),
            _tool(
                "search_files",
                "Find lines that contain a text in the files of the workspace.",
                {"text": _TEXT},
                _search,
                writes=False,
            ),
            _tool("move_file", "Rename a file.", {"path": _PATH, "to": _PATH}, _move),
            _tool("copy_file", "Copy a file.", {"path": _PATH, "to": _PATH}, _copy),
        )


def _tool(
    name: str,
    description: str,
    properties: dict[str, Any],
    work: Callable[[Path, Mapping[str, Any]], str],
    *,
    writes: bool = True,
    optional: Mapping[str, Any] | None = None,
    output_cap: int = SHOWN_CHARACTERS,
) -> Tool:
    return Tool(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": {**properties, **(optional or {})},
            "required": list(properties),
            "additionalProperties": False,
        },
        call=_in_thread(work, writes=writes),
        effect=Effect.IDEMPOTENT if writes else Effect.PURE,
        timeout=30,
        output_cap=output_cap,
    )


def _in_thread(work: Callable[[Path, Mapping[str, Any]], str], *, writes: bool) -> Call:
    async def call(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        try:
            text = await asyncio.to_thread(work, scope.workspace, arguments)
        except NameRefused as refused:
            return ToolOutput(text=f"refused: {refused}", failed=True)
        except UnicodeDecodeError:
            return ToolOutput(text="this is not a text file", failed=True)
        except OSError as error:
            # strerror only: the full text would show a path of this machine.
            return ToolOutput(text=f"failed: {error.strerror}", failed=True)
        return ToolOutput(text=text, changed_files=writes, untrusted=not writes)

    return call


def read_bytes(root: Path, name: str) -> bytes:
    """The content of a file of the workspace. Raises ``NameRefused`` and ``OSError``."""
    with os.fdopen(open_below(root, name, os.O_RDONLY), "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise NameRefused("the file is larger than 8 MiB")
    return content


def write_bytes(root: Path, name: str, content: bytes) -> None:
    """Write a file of the workspace within its quotas. Raises ``NameRefused`` and ``OSError``."""
    if len(content) > MAX_FILE_BYTES:
        raise NameRefused("the content is larger than 8 MiB")
    _check_room(root, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(open_below(root, name, flags, create=True), "wb") as file:
        file.write(content)


def _check_room(root: Path, name: str) -> None:
    """Raise ``NameRefused`` when ``name`` is new and the workspace is full; folders count as files do."""
    parts = parts_of(name)
    if os.path.lexists(root.joinpath(*parts)):
        return
    if sum(1 for _ in root.rglob("*")) + len(parts) > MAX_FILES:
        raise NameRefused(f"the workspace holds no more than {MAX_FILES} files and folders")


def _read(root: Path, arguments: Mapping[str, Any]) -> str:
    text = _text(root, arguments)
    if "from_line" in arguments or "lines" in arguments:
        text = _lines(text, arguments.get("from_line", 1), arguments.get("lines"))
    start = arguments.get("start", 0)
    if start > len(text):
        raise NameRefused(f"start={start} is behind the end: there are {len(text)} characters")
    end = start + SHOWN_CHARACTERS
    if end >= len(text):
        return text[start:]
    # Without the note a model would take the part for the whole.
    note = f"[cut: characters {start} to {end} of {len(text)}; go on with start={end}]"
    return f"{text[start:end]}\n{note}"


def _lines(text: str, first: int, count: int | None) -> str:
    lines = text.splitlines(keepends=True)
    if first > max(len(lines), 1):
        raise NameRefused(f"from_line={first} is behind the end: the file has {len(lines)} lines")
    return "".join(lines[first - 1 : None if count is None else first - 1 + count])


def _text(root: Path, arguments: Mapping[str, Any]) -> str:
    return read_bytes(root, arguments["path"]).decode("utf-8")


def _write(root: Path, arguments: Mapping[str, Any]) -> str:
    content = arguments["content"].encode("utf-8", "replace")
    write_bytes(root, arguments["path"], content)
    return f"wrote {len(content)} bytes to {arguments['path']}"


def _edit(root: Path, arguments: Mapping[str, Any]) -> str:
    text = _text(root, arguments)
    count = text.count(arguments["old"]) if arguments["old"] else 0
    if count != 1:
        raise NameRefused(f"the old text occurs {count} times; it must occur exactly once")
    new = text.replace(arguments["old"], arguments["new"])
    write_bytes(root, arguments["path"], new.encode("utf-8", "replace"))
    return f"edited {arguments['path']}"


def _files(root: Path) -> list[Path]:
    reserved = root / RESERVED
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.is_relative_to(reserved)
    ]


def _list(root: Path, arguments: Mapping[str, Any]) -> str:  # noqa: ARG001 - every tool's signature
    lines = [f"{path.relative_to(root).as_posix()} ({path.stat().st_size} bytes)" for path in _files(root)]
    return "\n".join(lines) or "the workspace is empty"


def _delete(root: Path, arguments: Mapping[str, Any]) -> str:
    parts = parts_of(arguments["path"])
    with folder_of(root, parts) as folder:
        os.unlink(parts[-1], dir_fd=folder)
    return f"deleted {arguments['path']}"


def _search(root: Path, arguments: Mapping[str, Any]) -> str:
    found: list[str] = []
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        try:
            text = read_bytes(root, name).decode("utf-8")
        except (UnicodeDecodeError, NameRefused):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if arguments["text"] in line:
                found.append(f"{name}:{number}: {line[:300]}")
    shown = found[:MAX_MATCHES]
    more = f"\n… and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return "\n".join(shown) + more if shown else "nothing found"


def _copy(root: Path, arguments: Mapping[str, Any]) -> str:
    write_bytes(root, arguments["to"], read_bytes(root, arguments["path"]))
    return f"copied {arguments['path']} to {arguments['to']}"


def _move(root: Path, arguments: Mapping[str, Any]) -> str:
    source = parts_of(arguments["path"])
    target = parts_of(arguments["to"])
    # Files only: folders moved into one another would nest deeper than anything that walks them can go.
    os.close(open_below(root, arguments["path"], os.O_RDONLY))
    _check_room(root, arguments["to"])
    with folder_of(root, source) as old, folder_of(root, target, create=True) as new:
        os.rename(source[-1], target[-1], src_dir_fd=old, dst_dir_fd=new)
    return f"moved {arguments['path']} to {arguments['to']}"
