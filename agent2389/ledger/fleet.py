"""What processes tell the ledger about themselves, and what it answers."""

import msgspec

from agent2389.ledger.records import Fence, Json
from agent2389.ledger.states import AgentState


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation as it registers itself."""

    agent_id: str
    incarnation: str
    capabilities: tuple[str, ...]
    description: str = ""
    slots: int = 4
    role: str = "agent"
    singleton: bool = False
    version: str = ""
    config_sha256: str = ""
    interval_s: float = 10.0
    metadata: dict[str, Json] = {}


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The ten-second beat of one incarnation; ``held`` are the tasks whose leases it extends."""

    incarnation: str
    state: AgentState
    free_slots: int
    held: tuple[Fence, ...] = ()
    known_peers: str = ""


class BeatReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger tells back.

    ``tasks`` maps task id → ``ok`` | ``cancel`` | ``expire`` | ``escalate`` | ``lost``.
    ``peers`` (pool → incarnations with a free slot, at most 256) is ``None`` when its
    digest equals ``known_peers``. ``due`` names chores that are late, ``next_due_seconds``
    the earliest retry or ``not_before`` of an own pool.
    """

    tasks: dict[str, str]
    desired_state: AgentState | None
    known: bool
    peers_digest: str
    peers: dict[str, tuple[str, ...]] | None
    backlog: bool
    due: tuple[str, ...]
    ops_alive: bool
    next_due_seconds: float | None
