"""Identifiers: what they may look like, how derived ones are made."""

import hashlib
import re
import uuid

from agent2389.telemetry import surroundings

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CAPABILITY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")

_NAMESPACE = uuid.UUID("2389a6e7-0000-5000-8000-000000002389")


def is_identifier(text: str) -> bool:
    """Whether ``text`` may be a job, agent, tenant or conversation id (never a slash, ``+`` or ``#``)."""
    return IDENTIFIER.fullmatch(text) is not None


def is_capability(text: str) -> bool:
    """Whether ``text`` is a capability name, already folded to lower case."""
    return CAPABILITY.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether ``text`` is a lower-case hexadecimal SHA-256."""
    return SHA256.fullmatch(text) is not None


def new_uuid7() -> str:
    """A fresh time-ordered id (RFC 9562 version 7) as text; ``uuid.uuid7`` is newer than our Python floor."""
    milliseconds = int(surroundings.now().timestamp() * 1000)
    value = (milliseconds & (1 << 48) - 1) << 80 | surroundings.chance().getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def derived_uuid(*parts: str) -> str:
    """The same parts give the same id: uuid5's hash carrying version nibble 4.

    FR-007 wants every ``task_id`` on the wire to be a UUID v4, while repeats must
    collide; the nibble satisfies the first, the hash the second.
    """
    digest = hashlib.sha1(_NAMESPACE.bytes + "\x1f".join(parts).encode(), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def protocol_job_id(tenant: str, agent_id: str, task_id: str) -> str:
    """The job that a 2389 task envelope becomes; a repeated envelope is the same job."""
    return derived_uuid("protocol", tenant, agent_id, task_id)


def task_id_of(job_id: str, parent_task: str, slot: int) -> str:
    """The id of the task in ``slot`` that follows ``parent_task`` (empty for a job's first task)."""
    return derived_uuid("task", job_id, parent_task, str(slot))
