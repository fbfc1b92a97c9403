"""The data folder of a mesh on one machine: one holder at a time, and what others may read."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent2389.errors import ConfigurationError, Conflict, NotFound


class MeshFile(msgspec.Struct, frozen=True, kw_only=True):
    """``mesh.json`` (0600): how to reach the mesh that runs on this folder."""

    pid: int
    api: str
    broker_url: str
    database_url: str
    token: str
    broker: str
    tenant: str = "default"


@contextlib.contextmanager
def writing(data: Path) -> Iterator[None]:
    """Make the folder, private to its owner, for a block that creates files in it.

    Raises ``ConfigurationError`` when the folder cannot be made or written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{data} cannot be the data folder: {error.strerror}",
            hint="name a folder that you may write with --data or AGENT2389_DATA",
        ) from None


def in_use(data: Path) -> Conflict:
    """The error that names the process holding the folder."""
    holder = ""
    with contextlib.suppress(OSError):
        holder = (data / "lock").read_text(encoding="utf-8", errors="replace").strip()
    return Conflict(
        f"{data} is in use by a mesh (process {holder or 'unknown'})",
        hint="stop it with agent2389 down, or use another folder with --data",
    )


@contextlib.contextmanager
def held(data: Path) -> Iterator[None]:
    """Hold the folder; a second holder gets ``Conflict`` naming the first.

    Raises ``ConfigurationError`` when there can be no such folder.
    """
    with writing(data):
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(data) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(data: Path) -> bool:
    """Whether some process holds the folder now."""
    try:
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_mesh(data: Path, mesh: MeshFile) -> None:
    """Replace ``mesh.json`` in one step, readable by its owner only."""
    target = data / "mesh.json"
    unfinished = data / f"mesh.json.{os.getpid()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(msgspec.to_builtins(mesh), file, indent=2)
        file.write("\n")
    unfinished.rename(target)


def read_mesh(data: Path) -> MeshFile:
    """The mesh that runs on ``data``. Raises ``NotFound``."""
    try:
        mesh = msgspec.json.decode((data / "mesh.json").read_bytes(), type=MeshFile)
    except (OSError, msgspec.DecodeError):
        mesh = None
    if mesh is None or not is_held(data):
        raise NotFound(f"no mesh runs on {data}", hint="start one: agent2389 up")
    return mesh
