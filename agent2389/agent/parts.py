"""What wiring hands to a worker, and what one running task is."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from agent2389.config.model import AgentConfiguration
from agent2389.config.profiles import Profile
from agent2389.ledger.journal import Message
from agent2389.ledger.records import Claim, Usage
from agent2389.llm.port import Model
from agent2389.router.port import Router
from agent2389.tools.registry import ToolSet
from agent2389.wire.mesh import Stranger


class Observer:
    """What a worker reports while it works; wiring replaces it by one that counts."""

    def claimed(self, outcome: str) -> None:
        """A claim was ``won``, ``lost`` or ``fenced``."""

    def finished(self, outcome: str, seconds: float) -> None:
        """A task ended on this process."""

    def model_called(self, provider: str, model: str, usage: Usage, seconds: float, failed: bool) -> None:
        """One model call."""

    def tool_called(self, tool: str, seconds: float, failed: bool) -> None:
        """One tool call."""

    def routed(self, decision: str, strategy: str) -> None:
        """One routing decision."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The rooms a worker needs, already open. ``model_for_job`` takes a job's ``llm`` field and
    raises ``ConfigurationError`` for what the agent's file does not list; ``transcripts`` takes what
    was said, once it is committed; ``profiles`` are other ways to work, by name;
    ``strangers`` tells which agents of others are available now.
    """

    configuration: AgentConfiguration
    incarnation: str
    model: Model
    router: Router
    fixed_router: Router
    tools: ToolSet
    model_for_job: Callable[[Mapping[str, Any]], Model]
    observer: Observer
    profiles: Mapping[str, Profile] = msgspec.field(default_factory=dict)
    transcripts: Callable[[Claim, Sequence[Message]], None] | None = None
    strangers: Callable[[], tuple[Stranger, ...]] = tuple


class StopReason(StrEnum):
    """Why a running task is stopped from outside."""

    CANCEL = "cancel"
    EXPIRE = "expire"
    ESCALATE = "escalate"
    LOST = "lost"
    DRAIN = "drain"


class Running:
    """A claimed task on this process: its claim, its asyncio task, its local deadline."""

    def __init__(self, claim: Claim, now: float) -> None:
        self.claim = claim
        self.started = now
        self.stop_reason: StopReason | None = None
        self.job: asyncio.Task[None] | None = None
        self.lease_deadline = 0.0
        self.partial = ""
        self.renewed(now)

    def renewed(self, asked_at: float) -> None:
        """The lease was extended by a request sent at ``asked_at`` (loop time): stop 5 s before its end."""
        lease = self.claim.lease_seconds
        self.lease_deadline = asked_at + lease - min(5.0, lease / 4)

    def stop(self, reason: StopReason) -> None:
        """End the work for ``reason``; the first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if self.job is not None:
                self.job.cancel()
