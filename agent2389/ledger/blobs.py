"""Values too large for a message: kept as blobs, named by reference, begun by a preview."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agent2389.ledger.port import Ledger
from agent2389.ledger.records import FileRef, Json

MAX_INLINE_BYTES = 192 * 1024
"""A value whose JSON is larger travels as a blob (a message has at most 256 KiB)."""
PREVIEW_BYTES = 4096


def fits(value: Json) -> bool:
    """Whether ``value`` may stand in a message itself."""
    return len(msgspec.json.encode(value)) <= MAX_INLINE_BYTES


def begun(text: str) -> str:
    """``text``, or its beginning where it would not fit and nobody waits for all of it."""
    return text if fits(text) else text[: MAX_INLINE_BYTES // 8] + "\n[cut]"


def preview(content: bytes) -> str | None:
    """The first 4 KiB as text, or ``None`` for what is no text."""
    head = content[:PREVIEW_BYTES]
    if b"\x00" in head:
        return None
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A cut of ours inside the last character is fine, anything else means it is no text.
        was_cut = len(content) > len(head) and error.start > len(head) - 4
        return head[: error.start].decode("utf-8") if was_cut else None


async def stored(ledger: Ledger, content: bytes, media_type: str, name: str) -> FileRef:
    """Keep ``content`` as a blob and return what names it."""
    digest = await ledger.put_blob(content, media_type)
    return FileRef(digest, len(content), media_type, name, preview(content))


async def stored_value(ledger: Ledger, value: Json, stem: str, taken: Mapping[str, FileRef]) -> FileRef:
    """Keep a text or any JSON value as the file ``stem``.txt or .json.

    A file of ``taken`` with the same name is not replaced (the number grows); one with the same
    content is used as it is.
    """
    if isinstance(value, str):
        content, media_type, suffix = value.encode(), "text/plain", "txt"
    else:
        content, media_type, suffix = msgspec.json.encode(value), "application/json", "json"
    made = await stored(ledger, content, media_type, f"{stem}.{suffix}")
    same = next((file for file in taken.values() if file.sha256 == made.sha256), None)
    name, number = made.name, 1
    while name in taken and same is None:
        number += 1
        name = f"{stem}-{number}.{suffix}"
    return msgspec.structs.replace(made, name=same.name if same else name)


def reference(file: FileRef) -> dict[str, Any]:
    """What stands in place of a large value."""
    found: dict[str, Any] = msgspec.to_builtins(file)
    return found


def referenced(value: Json, files: Mapping[str, FileRef]) -> FileRef | None:
    """The file that ``value`` stands for, when it is a reference to one of ``files``."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    file = files.get(value["name"])
    return file if file is not None and file.sha256 == value.get("sha256") else None
