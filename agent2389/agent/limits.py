"""The effective budget of one task and what is left of it."""

from typing import TypeVar

import msgspec

from agent2389.config.model import AgentConfiguration
from agent2389.config.profiles import ProfileBudget
from agent2389.errors import BudgetExceeded
from agent2389.ledger.journal import OwnLimits
from agent2389.ledger.records import Budget, Claim, Usage
from agent2389.telemetry import surroundings

NO_LIMITS = ProfileBudget()
Number = TypeVar("Number", int, float)


class Limits(msgspec.Struct, frozen=True):
    """What a task counts for itself; ``None`` is no limit. Money and tokens are the ledger's (``own``)."""

    iterations: int
    tool_calls: int
    seconds: float | None
    own: OwnLimits


def effective(claim: Claim, configuration: AgentConfiguration, profile: ProfileBudget = NO_LIMITS) -> Limits:
    """Job limits count what earlier hops used; those of agent and profile are for this task alone."""
    budget, own = claim.budget, configuration.budget
    limits = configuration.agent.resource_limits
    return Limits(
        iterations=_least(own.max_iterations, profile.max_iterations) or 0,
        tool_calls=_least(
            own.max_tool_calls, profile.max_tool_calls, _left(budget.tool_calls, claim.used.tool_calls)
        )
        or 0,
        seconds=_least(own.max_seconds, profile.max_seconds, limits.max_execution_time, budget.seconds),
        own=OwnLimits(
            task=Budget(
                cost_usd=_least(own.max_cost_per_task, profile.max_cost_per_task),
                tokens=_least(own.max_tokens, profile.max_tokens, limits.max_tokens),
            ),
            day=Budget(cost_usd=own.daily_usd),
            month=Budget(cost_usd=own.monthly_usd),
        ),
    )


def _left(limit: Number | None, used: Number) -> Number | None:
    return None if limit is None else limit - used


def _least(*values: Number | None) -> Number | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


class Meter:
    """Counts what a task consumes and refuses the call that would pass a limit."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._started = surroundings.elapsed()
        self.usage = Usage()

    def go_on_from(self, used: Usage) -> None:
        """What earlier owners of the task consumed counts, too."""
        self.usage = used

    def before_model_call(self, iteration: int, partial: str) -> None:
        """Raise ``BudgetExceeded`` when one more model call is not allowed."""
        limits = self._limits
        if iteration >= limits.iterations:
            raise BudgetExceeded(f"no answer after {limits.iterations} model calls", partial=partial)
        if limits.seconds is not None and surroundings.elapsed() - self._started >= limits.seconds:
            raise BudgetExceeded(f"the limit of {limits.seconds:g} seconds is reached", partial=partial)

    def before_tool_call(self, partial: str) -> None:
        """Raise ``BudgetExceeded`` when one more tool call is not allowed."""
        if self.usage.tool_calls >= self._limits.tool_calls:
            raise BudgetExceeded(
                f"the limit of {self._limits.tool_calls} tool calls is reached", partial=partial
            )

    @property
    def seconds_left(self) -> float | None:
        """Until the limit in seconds, ``None`` without one."""
        if self._limits.seconds is None:
            return None
        return max(self._limits.seconds - (surroundings.elapsed() - self._started), 0.001)

    def add(self, used: Usage) -> None:
        """Book a finished call."""
        self.usage = self.usage + used
