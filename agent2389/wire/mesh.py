"""Messages of the mesh topics other than submissions and receipts."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

MAX_SMALL_BYTES = 8192
MAX_ROSTER_BYTES = 262_144
Read = TypeVar("Read")


class Wake(msgspec.Struct, frozen=True, omit_defaults=True):
    """The doorbell: a task waits (``job_id``, ``priority``) or was ``taken``."""

    task_id: str
    epoch: int
    job_id: str | None = None
    priority: int | None = None
    taken: bool = False


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Retained presence of one process, every 10 s."""

    agent_id: str
    incarnation: str
    state: str
    capabilities: tuple[str, ...]
    slots: int
    free_slots: int
    version: str
    timestamp: str


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change on ``events/{job_id}``."""

    job_id: str
    type: str
    at: str
    data: dict[str, Any]
    task_id: str | None = None
    agent_id: str | None = None


class Mesh(msgspec.Struct, frozen=True):
    """Retained identity of the tenant's ledger."""

    mesh_id: str
    version: str


class Stranger(msgspec.Struct, frozen=True, kw_only=True):
    """An agent of others, as its own status tells."""

    agent_id: str
    capabilities: tuple[str, ...]
    description: str = ""


class Roster(msgspec.Struct, frozen=True):
    """The agents of others that are available (retained)."""

    agents: tuple[Stranger, ...]


class Control(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hint on ``control/{agent_id}`` that the ledger holds a command; it carries no right of its own."""

    action: str
    command_id: str
    incarnation: str | None = None


MAX_ACTOR = 64
MAX_REASON = 500


class ApprovalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word on ``approvals/{approval_id}/answer``; ``nonce`` tells repeats apart in logs."""

    decision: Literal["approved", "rejected", "approve", "reject"]
    arguments_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    actor: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ACTOR)]
    nonce: Annotated[str, msgspec.Meta(max_length=MAX_ACTOR)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""

    @property
    def approves(self) -> bool:
        """Whether the tool may run."""
        return self.decision in ("approved", "approve")


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of any message struct of this room."""
    return msgspec.json.encode(message)


def decode_wake(payload: bytes) -> Wake | None:
    """Read a doorbell; anything else is ``None`` (a doorbell is a hint, never an error)."""
    return _read(payload, Wake)


def read_mesh(payload: bytes) -> Mesh | None:
    """The identity on the ``mesh`` topic; ``None`` for a clear or anything else."""
    return _read(payload, Mesh)


def read_roster(payload: bytes) -> tuple[Stranger, ...]:
    """The agents of others; none for a clear or anything else."""
    roster = _read(payload, Roster, MAX_ROSTER_BYTES)
    return roster.agents if roster is not None else ()


def read_approval_answer(payload: bytes) -> ApprovalAnswer | None:
    """A decision about an approval; ``None`` for anything else, unprintable texts included."""
    answer = _read(payload, ApprovalAnswer)
    printable = answer is not None and answer.actor.isprintable() and "\x00" not in answer.reason
    return answer if printable else None


def _read(payload: bytes, kind: type[Read], limit: int = MAX_SMALL_BYTES) -> Read | None:
    if not payload or len(payload) > limit:
        return None
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return None
