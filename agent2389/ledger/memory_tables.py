"""The tables of the in-memory ledger: rows as plain values, one clock, one source of chance."""

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from agent2389.ledger.fleet import AgentRecord
from agent2389.ledger.memory_journal import JournalTables
from agent2389.ledger.records import (
    Blob,
    Change,
    Delivery,
    FileRef,
    Finish,
    Json,
    NewJob,
    Rejection,
    RouteDecision,
    TaskResult,
    Usage,
)
from agent2389.ledger.states import OWNED, TERMINAL, AgentState, JobState, TaskState, is_allowed
from agent2389.ledger.views import ApprovalRow

Key = tuple[str, str]
"""Tenant and id: no row is found without its tenant."""

ENDED = TERMINAL | {TaskState.COMPLETED}
"""A completed task has ended unless something is held back until its verdict."""

LONG_AGO = datetime.min.replace(tzinfo=UTC)


class RuleBroken(AssertionError):
    """A rule of the ledger does not hold: a fault of this model, never of a caller."""


class JobRecord(msgspec.Struct, kw_only=True):
    """One job. ``ended`` is ``None`` while a task is open; states in between are derived."""

    tenant: str
    new: NewJob
    seq: int
    deadline: datetime
    note: str | None
    created_at: datetime
    last_seen: datetime
    open_tasks: int = 1
    hops: int = 1
    used: Usage = Usage()
    rehearsal: bool = False
    ended: JobState | None = None
    finished_at: datetime | None = None
    retry_of: str | None = None


class TaskRecord(msgspec.Struct, kw_only=True):
    """One hop. ``states`` is its whole way, for the check of every step it made."""

    tenant: str
    task_id: str
    job_id: str
    seq: int
    hop: int
    pool: str
    capability: str | None
    bound_agent: str | None
    instruction: str | None
    input: Json
    next: Json
    reason: str | None
    priority: int
    run_after: datetime
    deadline: datetime
    wire_task_id: str | None
    queued_at: datetime
    parent_task: str | None = None
    slot: int = 0
    state: TaskState = TaskState.QUEUED
    attempt: int = 0
    generation: int = 0
    max_attempts: int = 3
    crashes: int = 0
    max_crashes: int = 3
    epoch: int = 0
    owner: str | None = None
    agent_id: str | None = None
    lease_until: datetime | None = None
    lease_seconds: float = 0.0
    token: str | None = None
    rung: bool = True
    stop_requested: str | None = None
    error: dict[str, str] | None = None
    forwards: int = 0
    misses: int = 0
    feedback: str | None = None
    verifies: str | None = None
    not_agent: str | None = None
    held: Finish | None = None
    joins: str | None = None
    branch: int = 0
    join_needed: int | None = None
    join_total: int = 0
    join_done: int = 0
    join_failed: int = 0
    waiting: str | None = None
    paused_at: datetime | None = None
    claimed_at: datetime | None = None
    finished_at: datetime | None = None
    states: list[TaskState] = msgspec.field(default_factory=lambda: [TaskState.QUEUED])

    def begin_anew(self, attempt: int, feedback: str | None = None) -> None:
        """Another attempt, or a person's words: a new generation of the work."""
        if attempt != self.attempt or feedback not in (None, self.feedback):
            self.generation += 1
        self.attempt, self.feedback = attempt, feedback or self.feedback

    @property
    def is_open(self) -> bool:
        """Whether something may still happen to it."""
        return self.state not in ENDED or (self.state is TaskState.COMPLETED and self.held is not None)

    @property
    def name(self) -> str:
        """What people read: the capability, or the pool of the one agent."""
        return self.capability or self.pool

    @property
    def claim_order(self) -> tuple[int, int]:
        """Urgent first, then old."""
        return (-self.priority, self.seq)

    def move(self, state: TaskState) -> None:
        """Take one step of the table; leaving an owned state gives up lease and token."""
        if not is_allowed(self.state, state):
            raise RuleBroken(f"a task never goes from {self.state} to {state}")
        self.state = state
        self.states.append(state)
        if state not in OWNED:
            self.owner = self.token = self.lease_until = None
        if state is not TaskState.WAITING:
            self.waiting = None


class Grant(msgspec.Struct, frozen=True):
    """A claim that was won: who got which epoch, when, with which token."""

    incarnation: str
    token: str
    at: datetime


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one epoch of a task left behind; ``standing`` is ``current`` or ``proposed``."""

    task_id: str
    job_id: str
    epoch: int
    standing: str
    payload: TaskResult
    decision: RouteDecision | None
    usage: Usage
    agent_id: str | None
    incarnation: str | None
    token: str
    at: datetime


class Final(msgspec.Struct, frozen=True):
    """The one terminal payload of a job, rendered once."""

    state: JobState
    payload: str
    at: datetime


class AgentEntry(msgspec.Struct, kw_only=True):
    """One incarnation that registered."""

    tenant: str
    record: AgentRecord
    seq: int
    state: AgentState
    free_slots: int
    started_at: datetime
    last_beat: datetime
    desired_state: AgentState | None = None
    tasks_total: int = 0
    presence_cleared: bool = False

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools it claims from; ops claims nothing."""
        if self.record.role != "agent":
            return ()
        return (*self.record.capabilities, f"agent.{self.record.agent_id}")


class BoardRow(msgspec.Struct, kw_only=True):
    """One retained topic; ``on_wire`` once the broker may hold something there."""

    payload: str | None
    version: int
    changed_at: datetime
    sent_version: int | None = None
    on_wire: bool = False
    lease: str | None = None
    lease_until: datetime | None = None


class OutboxRow(msgspec.Struct, kw_only=True):
    """One delivery until somebody says that it was sent."""

    delivery: Delivery
    created_at: datetime
    lease_until: datetime | None = None


class Tombstone(msgspec.Struct, frozen=True):
    """What stays of a job after its retention."""

    content_hash: str
    state: JobState
    at: datetime


class EventRecord(msgspec.Struct, kw_only=True):
    """One event; the sealer gives it its ``number``, and a link of the chain follows the one ``before``."""

    id: int
    change: Change
    number: int | None = None
    before: str | None = None
    link: str | None = None


class BuriedLink(msgspec.Struct, frozen=True):
    """What stays of a link of the chain after its retention."""

    before: str
    link: str


class RejectRecord(msgspec.Struct, kw_only=True):
    """Evidence of a refused message."""

    rejection: Rejection
    times: int
    at: datetime


BoardKey = tuple[str, str, tuple[str, ...]]
"""Tenant, kind, ids of the topic."""


class Tables:
    """All rows of one ledger. Nothing here decides; ``memory_parts`` and its siblings do.

    ``now`` is the ledger's clock, ``chance`` gives back-off jitter and tokens.
    """

    def __init__(self, now: Callable[[], datetime], chance: random.Random) -> None:
        self.now = now
        self.chance = chance
        self.mesh_id = self.token()
        self._numbers = itertools.count(1)
        self.jobs: dict[Key, JobRecord] = {}
        self.tasks: dict[Key, TaskRecord] = {}
        self.grants: dict[Key, dict[int, Grant]] = {}
        self.results: dict[Key, dict[int, ResultRecord]] = {}
        self.finals: dict[Key, Final] = {}
        self.workspaces: dict[Key, dict[str, FileRef]] = {}
        self.blobs: dict[Key, Blob] = {}
        self.events: list[EventRecord] = []
        self.unsealed: deque[EventRecord] = deque()
        self.sealed_number = 0
        self.sealed_link = ""
        self.chain_begins = ""
        self.buried_links: dict[int, BuriedLink] = {}
        self.board: dict[BoardKey, BoardRow] = {}
        self.outbox: dict[int, OutboxRow] = {}
        self.agents: dict[Key, AgentEntry] = {}
        self.rejects: dict[tuple[str, str, str], RejectRecord] = {}
        self.chores: dict[Key, datetime] = {}
        self.approvals: dict[Key, ApprovalRow] = {}
        self.pauses: set[Key] = set()
        self.tombstones: dict[Key, Tombstone] = {}
        self.accepted: set[Key] = set()
        self.told_to_cancel: set[Key] = set()
        self.journal = JournalTables()
        self.dossiers: dict[Key, Any] = {}
        self.notices: dict[Key, Any] = {}

    def number(self) -> int:
        """The next number of the one sequence; never given twice."""
        return next(self._numbers)

    def token(self) -> str:
        """128 bits as hexadecimal, the same again for the same seed."""
        return f"{self.chance.getrandbits(128):032x}"

    def job_of(self, task: TaskRecord) -> JobRecord:
        """The job of a task."""
        return self.jobs[task.tenant, task.job_id]

    def tasks_of(self, tenant: str, job_id: str) -> list[TaskRecord]:
        """The hops of a job as people read them."""
        found = (task for task in self.tasks.values() if (task.tenant, task.job_id) == (tenant, job_id))
        return sorted(found, key=lambda task: (task.hop, task.slot))

    def results_of(self, tenant: str, job_id: str) -> Iterator[ResultRecord]:
        """Every result of a job, in no order."""
        for (owner, _), by_epoch in self.results.items():
            if owner == tenant:
                yield from (row for row in by_epoch.values() if row.job_id == job_id)

    def current_result(self, task: TaskRecord) -> ResultRecord | None:
        """The one result that counts."""
        rows = self.results.get((task.tenant, task.task_id), {}).values()
        return next((row for row in rows if row.standing == "current"), None)


def digest(content: bytes) -> str:
    """The SHA-256 by which a blob is found."""
    return hashlib.sha256(content).hexdigest()
