"""Looks after what the kernel's limits count for each process only: memory and disk of all together."""

import asyncio
import os
from pathlib import Path

LOOK_SECONDS = 0.1
MOST_COUNTED = 100_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def watch(process: int, workspace: Path, memory: int, disk: int, files: int) -> str:
    """Return the reason, in words for the model, when a command has to end.

    That is when the processes under ``process`` hold more than ``memory`` bytes, or when they made
    ``workspace`` larger than ``disk`` bytes or ``files`` entries; a full one they may still clean.
    """
    size_before, count_before = await asyncio.to_thread(_disk_of, workspace, MOST_COUNTED)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if await asyncio.to_thread(_memory_of, process) > memory:
            return f"it used more than {memory // 2**20} MiB of memory"
        size, count = await asyncio.to_thread(_disk_of, workspace, MOST_COUNTED)
        if count > max(files, count_before):
            return f"it made more than {files} files and folders"
        if size > max(disk, size_before):
            return f"it wrote more than {disk // 2**20} MiB into the workspace"


def _memory_of(process: int) -> int:
    """Resident bytes of ``process`` and everything below it; a shared page counts for each that holds it."""
    total, waiting = 0, [process]
    while waiting:
        found = waiting.pop()
        try:
            total += int(Path(f"/proc/{found}/statm").read_text().split()[1]) * _PAGE
            for thread in Path(f"/proc/{found}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (OSError, IndexError):
            continue  # it ended while we looked
    return total


def _disk_of(workspace: Path, most: int) -> tuple[int, int]:
    """Bytes and entries below ``workspace``; counting stops above ``most``. Links are not followed."""
    size, count, waiting = 0, 0, [str(workspace)]
    while waiting and count <= most:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if count > most:
                        break
        except OSError:
            continue  # it is gone, or nests deeper than a path can say: the tidying removes that
    return size, count
