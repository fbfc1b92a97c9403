"""The question "who goes next?" and its answer."""

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from agent2389.llm.messages import TokenUsage


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A pool that could continue: built from the ledger, never from a model's words."""

    capability: str
    description: str
    agents: tuple[str, ...]
    free_slots: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One hop already done; ``summary`` ≤ 2,000 characters."""

    hop: int
    capability: str
    agent_id: str
    summary: str


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a strategy may look at. ``answer`` is the finished hop's answer.

    ``next`` is the job's remaining fixed chain (nested ``next`` object) or ``None``;
    ``hop`` counts from 1; ``data`` is the answer's structured part.
    """

    instruction: str
    answer: str
    data: Any = None
    own_capability: str
    agent_id: str
    hop: int
    max_hops: int
    steps: tuple[Step, ...]
    candidates: tuple[Candidate, ...]
    next: Any = None
    files: tuple[str, ...] = ()


class Outcome(StrEnum):
    """What the router decided."""

    DONE = "done"
    HAND_OFF = "hand_off"
    ESCALATE = "escalate"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the work goes: a capability or one named agent, with the rest of a fixed chain."""

    capability: str | None = None
    agent: str | None = None
    instruction: str | None = None
    next: Any = None


class Rejected(msgspec.Struct, frozen=True):
    """A candidate that was not chosen, and why."""

    capability: str
    why: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with everything needed to explain it later.

    ``fallback`` says why the configured strategy was not followed, if it was not.
    """

    outcome: Outcome
    strategy: str
    reason: str
    targets: tuple[Target, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    fallback: str | None = None
    model: str | None = None
    usage: TokenUsage = TokenUsage()
    model_calls: int = 0
    cost_usd: float | None = 0.0
    rehearsal: bool = False


class Router(Protocol):
    """One strategy or a composition of them."""

    async def decide(self, situation: Situation) -> Decision:
        """Always answers: a failing strategy becomes a decision with ``fallback`` set."""
        ...
