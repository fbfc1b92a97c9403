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
    slots: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One hop already done; ``summary`` ≤ 2,000 characters."""

    hop: int
    capability: str
    agent_id: str
    summary: str


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a strategy may look at. ``answer`` is the finished hop's answer.

    ``next`` is the job's remaining fixed chain (nested ``next`` object) or ``None``;
    ``hop`` counts from 1; ``data`` is the answer's structured part; ``strategy`` is the
    job's own wish, ``None`` for the agent's strategy.
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
    strategy: str | None = None


class Outcome(StrEnum):
    """What the router decided."""

    DONE = "done"
    HAND_OFF = "hand_off"
    ESCALATE = "escalate"


class JoinPolicy(StrEnum):
    """When the work of several siblings counts as done."""

    ALL = "all"
    FIRST = "first"
    K_OF_N = "k_of_n"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the work goes: a capability or one named agent, with the rest of a fixed chain.

    ``slot`` tells siblings of a fan-out apart; the same pool may stand in several slots.
    """

    capability: str | None = None
    agent: str | None = None
    instruction: str | None = None
    next: Any = None
    slot: int = 0

    @property
    def name(self) -> str:
        """The capability or agent as people read it."""
        return self.capability or self.agent or ""


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the results of a fan-out.

    ``needed`` siblings have to complete (all of them, one, or k); the others are cancelled then.
    ``then`` gets the merged results as its input; without it they are the job's result.
    """

    policy: JoinPolicy
    needed: int
    then: Target | None = None


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as the strategy saw it; ``score`` (higher is better) where the strategy gives one."""

    capability: str
    description: str = ""
    agents: tuple[str, ...] = ()
    free_slots: int = 0
    score: float | None = None


class Rejected(msgspec.Struct, frozen=True):
    """A candidate that was not chosen, and why."""

    capability: str
    why: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with everything needed to explain it later.

    ``fallback`` says why the configured strategy was not followed, if it was not. ``flags``
    name what a person should look at (``announced:editor``, ``returned:writing``).
    ``prompt_sha256`` is that of the routing prompt, ``model_seconds`` the time spent waiting
    for a model or gatekeeper. ``join`` stands when there are several targets. ``verify`` names who
    judges the answer before the decision is followed.
    """

    outcome: Outcome
    strategy: str
    reason: str
    targets: tuple[Target, ...] = ()
    join: Join | None = None
    verify: Target | None = None
    candidates: tuple[Considered, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    fallback: str | None = None
    flags: tuple[str, ...] = ()
    model: str | None = None
    prompt_sha256: str | None = None
    usage: TokenUsage = TokenUsage()
    model_calls: int = 0
    model_seconds: float = 0.0
    cost_usd: float | None = 0.0
    rehearsal: bool = False


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy could not decide: why, and what the try cost."""

    problem: str
    model: str | None = None
    prompt_sha256: str | None = None
    usage: TokenUsage = TokenUsage()
    model_calls: int = 0
    model_seconds: float = 0.0
    cost_usd: float | None = 0.0
    rehearsal: bool = False


class Router(Protocol):
    """A whole composition: always answers."""

    async def decide(self, situation: Situation) -> Decision:
        """A failing strategy becomes a decision with ``fallback`` set."""
        ...


class Strategy(Protocol):
    """One way to choose among the candidates of a situation."""

    async def choose(self, situation: Situation) -> Decision | Failed | None:
        """The decision; ``Failed`` when it should have decided and could not; ``None`` when it
        has nothing to say and the next strategy is asked.
        """
        ...
