"""State of a task in the reserved folder of its workspace, so that it travels with the files."""

import os
from pathlib import Path

from agent2389.tools.paths import RESERVED, NameRefused

MAX_BYTES = 1024 * 1024


def read_state(workspace: Path, name: str) -> bytes | None:
    """What was kept under ``name``, or ``None``. Raises ``OSError``."""
    try:
        with os.fdopen(_open(workspace, name, os.O_RDONLY), "rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        return None


def write_state(workspace: Path, name: str, content: bytes) -> None:
    """Keep ``content`` under ``name``, all of it or nothing.

    Raises ``NameRefused`` above 1 MiB and ``OSError``.
    """
    if len(content) > MAX_BYTES:
        raise NameRefused("the state of this task is larger than 1 MiB")
    (workspace / RESERVED).mkdir(mode=0o700, exist_ok=True)
    new = f"{name}.new"
    with os.fdopen(_open(workspace, new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(content)
    (workspace / RESERVED / new).replace(workspace / RESERVED / name)


def _open(workspace: Path, name: str, flags: int) -> int:
    folder = os.open(workspace / RESERVED, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
