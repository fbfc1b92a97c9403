"""Opening files below one directory, whatever name a model makes up."""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_NAME = 255
MAX_DEPTH = 16
RESERVED = ".agent2389"
"""The folder of a workspace where the program keeps a task's state: no tool opens names in it."""

_TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class NameRefused(ValueError):
    """The name leaves the workspace or is no usable file name; the message is for the model."""


def parts_of(name: str) -> tuple[str, ...]:
    """The components of a relative name. Raises ``NameRefused``."""
    if not name or len(name) > 1024:
        raise NameRefused("the file name is empty or too long")
    if "\\" in name or any(_is_control(char) for char in name):
        raise NameRefused("the file name contains a control character or a backslash")
    if name.startswith(("/", "~")):
        raise NameRefused("the file name must be relative to the workspace")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if not parts or ".." in parts or len(parts) > MAX_DEPTH:
        raise NameRefused("the file name leaves the workspace or nests too deep")
    if _means_reserved(parts[0]):
        raise NameRefused(f"the folder {RESERVED} is kept by the program")
    if any(len(part.encode()) > MAX_NAME for part in parts):
        raise NameRefused("a part of the file name is too long")
    return parts


def _is_control(char: str) -> bool:
    """Controls, line and paragraph separators, halves of surrogate pairs, and what turns text around.

    A name with them shows as another one, or as several lines, wherever people or models see a list.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") or char in _TURNING


def _means_reserved(part: str) -> bool:
    """Whether some file system takes ``part`` for the reserved folder: by case, by form, by unseen signs."""
    seen = "".join(char for char in part if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", seen).casefold().rstrip(" .") == RESERVED


@contextmanager
def folder_of(root: Path, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory that holds the last component; no symlink is followed on the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    current = os.open(root, flags)
    try:
        for part in parts[:-1]:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
            following = os.open(part, flags, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def open_below(root: Path, name: str, flags: int, *, create: bool = False) -> int:
    """A descriptor of the regular file ``name`` below ``root``.

    Raises ``NameRefused`` for names and links that leave it, ``OSError`` otherwise.
    """
    parts = parts_of(name)
    with folder_of(root, parts, create=create) as folder:
        # O_NONBLOCK: a named pipe must not hold us.
        descriptor = os.open(
            parts[-1],
            (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            0o600,
            dir_fd=folder,
        )
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NameRefused("this is not a regular file")
    if status.st_nlink > 1:
        os.close(descriptor)
        raise NameRefused("this file is a hard link")
    if flags & os.O_TRUNC:
        # Only now: truncating while opening would empty what a hard link points to.
        os.ftruncate(descriptor, 0)
    return descriptor
