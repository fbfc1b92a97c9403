"""A task's files: laid out from the manifest when it starts, stored as blobs when it changed them."""

import asyncio
import hashlib
import mimetypes
import shutil
from pathlib import Path

from agent2389.ledger.blobs import stored
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import FileRef
from agent2389.tools.paths import RESERVED

MAX_FILES = 1000
MAX_FILE_BYTES = 32 * 1024 * 1024


def without_state(manifest: dict[str, FileRef]) -> dict[str, FileRef]:
    """The files that others get of a task: not what the program keeps about it while it runs."""
    return {name: file for name, file in manifest.items() if not name.startswith(f"{RESERVED}/")}


class Workspace:
    """The private scratch directory of one task, below ``root``, named by a hash."""

    def __init__(self, root: Path, ledger: Ledger, tenant: str, task_id: str) -> None:
        name = hashlib.sha256(f"{tenant}\x1f{task_id}".encode()).hexdigest()[:32]
        self.path = root / name
        self.manifest: dict[str, FileRef] = {}
        self.is_laid_out = False
        self._ledger = ledger

    async def lay_out(self, manifest: dict[str, FileRef]) -> None:
        """Make the directory hold exactly the files of ``manifest``. Raises ``NotFound``."""
        await asyncio.to_thread(self._prepare)
        for name, file in manifest.items():
            blob = await self._ledger.get_blob(file.sha256)
            await asyncio.to_thread(self._write, name, blob.content)
        self.manifest = manifest
        self.is_laid_out = True

    async def collect(self) -> dict[str, FileRef]:
        """The manifest as the files are now; changed ones are stored as blobs first."""
        found = await asyncio.to_thread(self._scan)
        collected: dict[str, FileRef] = {}
        for name, digest in found.items():
            known = self.manifest.get(name)
            if known is not None and known.sha256 == digest:
                collected[name] = known
                continue
            content = await asyncio.to_thread((self.path / name).read_bytes)
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            collected[name] = await stored(self._ledger, content, media_type, name)
        self.manifest = collected
        return collected

    async def discard(self) -> None:
        """Remove the directory: what matters is in the ledger."""
        await asyncio.to_thread(shutil.rmtree, self.path, True)

    def _prepare(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, mode=0o700)

    def _write(self, name: str, content: bytes) -> None:
        target = self.path / name
        # Names were checked at submission or made by the workspace tools; this is the second lock.
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"the file name {name!r} leaves the workspace")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def _scan(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in sorted(self.path.rglob("*")):
            if path.is_symlink() or not path.is_file() or len(found) >= MAX_FILES:
                continue
            if path.stat().st_size <= MAX_FILE_BYTES:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[path.relative_to(self.path).as_posix()] = digest
        return found
