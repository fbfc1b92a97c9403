"""What front doors read of the ledger: rows of lists and details, frozen."""

from datetime import datetime

import msgspec

from agent2389.ledger.records import (
    Budget,
    Change,
    Json,
    RouteDecision,
    StepSummary,
    TaskResult,
    Usage,
)
from agent2389.ledger.states import AgentState, JobState, TaskState


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a list."""

    job_id: str
    state: JobState
    capability: str
    agent: str | None
    instruction: str | None
    priority: int
    source: str
    created_at: datetime
    finished_at: datetime | None
    open_tasks: int
    hops: int
    usage: Usage
    note: str | None = None
    retry_of: str | None = None


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One hop of a job as ``trace`` and the API show it; times are UTC.

    ``waiting_for``: ``timer`` | ``person`` | ``approval`` | ``join``.
    """

    task_id: str
    hop: int
    capability: str
    bound_agent: str | None
    state: TaskState
    priority: int
    attempt: int
    crashes: int
    epoch: int
    agent_id: str | None
    reason: str | None
    queued_at: datetime
    run_after: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    result: TaskResult | None
    error: dict[str, str] | None
    usage: Usage
    decision: RouteDecision | None
    waiting_for: str | None = None
    feedback: str | None = None
    verifies: str | None = None
    branch_of: str | None = None


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its hops; ``final`` is the stored terminal payload, byte for byte."""

    job: JobRow
    submission: dict[str, Json]
    deadline: datetime | None
    budget: Budget
    conversation_id: str | None
    tasks: tuple[TaskRow, ...]
    changes: tuple[Change, ...]
    final: str | None


class ApprovalRow(msgspec.Struct, frozen=True, kw_only=True):
    """About one tool call; ``state`` is ``pending`` | ``approved`` | ``rejected`` | ``withdrawn``."""

    approval_id: str
    job_id: str
    task_id: str
    tool: str
    arguments: str
    arguments_sha256: str
    question: str
    state: str
    actor: str | None
    reason: str | None
    asked_at: datetime
    decided_at: datetime | None


class ForeignTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task bound to an agent that is not ours, waiting to be sent or to be answered.

    ``attempt`` is how often it was sent before: it never falls, whatever people decide in between.
    """

    task_id: str
    job_id: str
    agent_id: str
    state: TaskState
    attempt: int
    instruction: str | None
    input: Json
    next: Json
    deadline: datetime
    wire_task_id: str | None
    conversation_id: str | None
    hop: int


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation as the fleet shows it; ``state`` is ``lost`` after 30 s without a beat."""

    agent_id: str
    incarnation: str
    role: str
    state: AgentState
    capabilities: tuple[str, ...]
    description: str
    slots: int
    free_slots: int
    version: str
    config_sha256: str
    started_at: datetime
    last_beat: datetime
    tasks_running: int
    tasks_total: int
    metadata: dict[str, Json] = {}


class PoolRow(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one pool; ``oldest_seconds`` is the age of its oldest claimable task."""

    pool: str
    queued: int
    running: int
    agents: int
    free_slots: int
    oldest_seconds: float


class Retired(msgspec.Struct, frozen=True, kw_only=True):
    """What retention did: incarnations to clear from the broker, and how many jobs were buried."""

    agents: tuple[AgentRow, ...]
    jobs: int


class Unsent(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries that are not sent yet; ``oldest_seconds`` is the age of the first of them."""

    pending: int
    oldest_seconds: float


class DecisionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A routing decision with what was known when it was made; ``answer`` ≤ 6,000 characters."""

    job_id: str
    task_id: str
    hop: int
    max_hops: int
    at: datetime
    capability: str
    agent_id: str
    instruction: str
    answer: str
    next: Json
    decision: RouteDecision
    history: tuple[StepSummary, ...]
