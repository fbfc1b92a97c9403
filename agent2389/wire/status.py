"""The retained status of a 2389 agent: the union of what different readers expect."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from agent2389.telemetry import surroundings


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """FR-008, the reference implementation's discovery fields, and ours."""

    agent_id: str
    status: Literal["available", "unavailable"]
    timestamp: str
    capabilities: tuple[str, ...]
    description: str
    health: str
    load: float
    last_updated: str
    handles: tuple[str, ...]
    metadata: dict[str, Any]
    incarnation: str
    mesh_id: str
    state: str
    version: str
    config_sha256: str
    tasks_running: int
    tasks_total: int
    slots: int
    started_at: str
    interval_s: int


class ForeignStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of anybody's status; everything else is ignored (FR-008)."""

    agent_id: str
    status: str = "available"
    timestamp: str | None = None
    capabilities: tuple[str, ...] = ()
    description: str | None = None
    incarnation: str | None = None
    mesh_id: str | None = None
    interval_s: float | None = None


def timestamp(moment: datetime | None = None) -> str:
    """RULE-003: RFC 3339, UTC, with ``Z``, milliseconds."""
    moment = (moment or surroundings.now()).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def read_status(payload: bytes) -> ForeignStatus | None:
    """A status of any implementation; ``None`` when it is not one."""
    if len(payload) > 64 * 1024:
        return None
    try:
        return msgspec.json.decode(payload, type=ForeignStatus)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return None
