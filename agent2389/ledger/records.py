"""What goes into the ledger and comes out of it: frozen records without behaviour."""

from datetime import datetime
from typing import Any

import msgspec

from agent2389.ledger.states import JobState, TaskState

Json = Any
"""Any JSON value; the ledger keeps it as it is."""

FIRST_VERIFICATION_SLOT = 1000
"""Verifications of a task take slots from here on, one for each epoch."""


class FileRef(msgspec.Struct, frozen=True):
    """A file by content: ``size`` in bytes; ``preview`` at most 4 KiB of text."""

    sha256: str
    size: int
    media_type: str
    name: str
    preview: str | None = None


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of a job; ``None`` means no limit of that kind."""

    cost_usd: float | None = None
    tokens: int | None = None
    tool_calls: int | None = None
    seconds: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """What was consumed; ``cost_usd`` is ``None`` as soon as one call has no known price."""

    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost_usd: float | None = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        known = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.model_calls + other.model_calls,
            self.tool_calls + other.tool_calls,
            (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
        )


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A checked submission. Exactly one of ``capability`` and ``agent`` is set.

    ``submission`` is the document as received (hash already taken, file contents
    replaced by references). ``recent_seconds`` > 0 reuses a job of the same content
    accepted within that window (bare topics). ``wire_task_id`` marks protocol input.
    """

    job_id: str
    content_hash: str
    instruction: str | None
    input: Json = None
    capability: str | None = None
    agent: str | None = None
    priority: int = 5
    not_before: datetime | None = None
    deadline: datetime | None = None
    budget: Budget = Budget()
    max_hops: int = 16
    submission: dict[str, Json]
    next: Json = None
    files: tuple[FileRef, ...] = ()
    source: str = "mqtt"
    conversation_id: str | None = None
    wire_task_id: str | None = None
    reply_to: str | None = None
    correlation: str | None = None
    traceparent: str | None = None
    recent_seconds: float = 0.0


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One outbox row: a non-retained message the committing process sends right after the commit.

    ``kind`` is ``receipt`` | ``conversation``; ``topic`` is set only where the topic
    is data (a reply topic); ``body`` is the JSON payload as it goes out.
    """

    id: int
    tenant: str
    kind: str
    job_id: str | None
    agent_id: str | None = None
    conversation_id: str | None = None
    topic: str | None = None
    correlation: str | None = None
    body: str


class Wake(msgspec.Struct, frozen=True):
    """A doorbell to ring after the commit; ``pool`` is a capability or ``agent.{id}``."""

    tenant: str
    pool: str
    task_id: str
    job_id: str
    epoch: int
    priority: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One event for ``events/{job_id}``; ``type`` is like ``task.completed`` or ``job.failed``."""

    tenant: str
    job_id: str
    task_id: str | None = None
    type: str
    at: datetime
    agent_id: str | None = None
    data: dict[str, Json] = {}


class Effects(msgspec.Struct, frozen=True):
    """What the committing process does after a commit: send, ring, tell."""

    deliveries: tuple[Delivery, ...] = ()
    wakes: tuple[Wake, ...] = ()
    changes: tuple[Change, ...] = ()


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a submission; ``verdict`` is ``accepted`` | ``duplicate`` | ``conflict``.

    ``age_seconds`` of a duplicate is the time since acceptance on the ledger's clock.
    """

    job_id: str
    verdict: str
    state: JobState
    note: str | None = None
    age_seconds: float = 0.0
    effects: Effects = Effects()


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence of a refused message: at most 256 redacted bytes of it."""

    topic: str
    payload_sha256: str
    size: int
    code: str
    excerpt: str = ""


class Fence(msgspec.Struct, frozen=True):
    """What every write of an owner presents; ``token`` is the secret and is never logged."""

    task_id: str
    epoch: int
    token: str

    def __repr__(self) -> str:
        return f"Fence(task_id={self.task_id!r}, epoch={self.epoch}, token='…')"


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier hop did, for the next model and the router; ``text`` ≤ 2,000 characters."""

    hop: int
    capability: str
    agent_id: str
    text: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A task won: everything an agent needs to do it, and the fence.

    ``feedback`` is what a judge or a person wants done differently. ``verifies`` is the task whose
    result this one judges, ``branch_of`` the task that joins this branch. ``approvals`` maps
    ``TOOL:SHA256`` (of the call's arguments) to ``pending`` | ``approved`` | ``rejected``.
    """

    fence: Fence
    tenant: str
    job_id: str
    capability: str
    bound_agent: str | None
    hop: int
    max_hops: int
    attempt: int
    crashes: int
    priority: int
    instruction: str | None
    input: Json
    next: Json
    submission: dict[str, Json]
    manifest: dict[str, FileRef]
    history: tuple[StepSummary, ...]
    budget: Budget
    used: Usage
    lease_seconds: float
    queued_at: datetime
    deadline: datetime | None
    conversation_id: str | None
    wire_task_id: str | None
    traceparent: str | None
    source: str
    feedback: str | None = None
    verifies: str | None = None
    branch_of: str | None = None
    approvals: dict[str, str] = {}


class NextTask(msgspec.Struct, frozen=True, kw_only=True):
    """A hand-off: one child task. Exactly one of ``capability`` and ``agent`` is set."""

    slot: int = 0
    capability: str | None = None
    agent: str | None = None
    instruction: str | None = None
    input: Json = None
    next: Json = None
    reason: str | None = None


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """The task that goes on when ``needed`` of the branches are through; its slot is after theirs."""

    needed: int
    task: NextTask


class RouteDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Why the work goes on as it does; kept with the result for ``trace``, ``explain`` and replay.

    ``seconds`` is the whole decision, ``model_seconds`` the part spent waiting for a model or
    gatekeeper; ``cost_usd`` is ``None`` when a price is unknown.
    """

    strategy: str
    outcome: str
    reason: str
    chosen: str | None = None
    candidates: tuple[dict[str, Json], ...] = ()
    rejected: tuple[dict[str, Json], ...] = ()
    model: str | None = None
    fallback: str | None = None
    seconds: float = 0.0
    targets: tuple[dict[str, Json], ...] = ()
    join: dict[str, Json] | None = None
    flags: tuple[str, ...] = ()
    prompt_sha256: str | None = None
    model_calls: int = 0
    model_seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result shape of the wire: text, optional data, files by reference."""

    text: str
    data: Json = None
    files: tuple[FileRef, ...] = ()


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """A finished task: its result and, in the same transaction, what follows from it.

    Without ``next`` the job ends when no other task is open; ``escalate`` asks a person. With
    ``join`` the next tasks are branches. ``verify`` names who judges the result before anything
    follows from it (its slot is chosen here). ``verdict`` (``approved`` | ``refused``) is the
    answer of a task that judges; its result's text says why.
    """

    result: TaskResult
    usage: Usage
    decision: RouteDecision
    next: tuple[NextTask, ...] = ()
    manifest: dict[str, FileRef] = {}
    rehearsal: bool = False
    escalate: bool = False
    join: Join | None = None
    verify: NextTask | None = None
    verdict: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed attempt; ``code`` is a protocol code, ``message`` ≤ 500 characters, no secrets.

    With the attempts used up the task is dead, or with ``escalate`` a person is asked.
    """

    code: str
    message: str
    retryable: bool
    usage: Usage = Usage()
    partial: str = ""
    retry_after: float | None = None
    escalate: bool = False


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """May this tool run with exactly these arguments (JSON text and its SHA-256)?"""

    approval_id: str
    tool: str
    arguments: str
    arguments_sha256: str
    question: str


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Why an owner gives its task up for a while: ``reason`` is ``timer`` | ``person`` | ``approval``.

    ``until`` belongs to a timer, ``approvals`` to approvals, ``usage`` is what was consumed so far.
    """

    reason: str = msgspec.field(name="for")
    until: datetime | None = None
    question: str | None = None
    approvals: tuple[ApprovalRequest, ...] = ()
    usage: Usage = Usage()


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a fenced write: ``ok`` | ``already`` (the same write came before) | ``fenced``.

    ``task_state`` and ``job_state`` are those after the write (or now, when fenced).
    """

    verdict: str
    task_state: TaskState | None = None
    job_state: JobState | None = None
    effects: Effects = Effects()


class BoardMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One retained topic to write: ``key`` are the ids of its topic, ``payload`` ``None`` clears it.

    ``kind``: ``open`` (pool, task, epoch) · ``claim`` (task, epoch) · ``result`` (job) · ``approval`` (id).
    """

    tenant: str
    kind: str
    key: tuple[str, ...]
    payload: str | None
    version: int
    lease: str


class ShownTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A retained topic as the board has it: ``digest`` is the SHA-256 of its payload, ``None`` while it is
    being cleared; ``sent`` whether this version went out.
    """

    kind: str
    key: tuple[str, ...]
    version: int
    sent: bool
    digest: str | None = None


class Blob(msgspec.Struct, frozen=True):
    """A content-addressed value."""

    sha256: str
    media_type: str
    content: bytes
