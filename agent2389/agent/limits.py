"""The effective budget of one task and what is left of it."""

from typing import TypeVar

import msgspec

from agent2389.config.model import AgentConfiguration
from agent2389.errors import BudgetExceeded
from agent2389.ledger.records import Claim, Usage
from agent2389.telemetry import surroundings

Number = TypeVar("Number", int, float)


class Limits(msgspec.Struct, frozen=True):
    """The minimum of job and agent; ``None`` is no limit."""

    iterations: int
    tool_calls: int
    tokens: int | None
    seconds: float | None
    cost_usd: float | None


def effective(claim: Claim, configuration: AgentConfiguration) -> Limits:
    """Job limits count what earlier hops used; agent limits are for this task alone."""
    budget, own = claim.budget, configuration.budget
    used = claim.used
    limits = configuration.agent.resource_limits
    return Limits(
        iterations=own.max_iterations,
        tool_calls=_least(own.max_tool_calls, _left(budget.tool_calls, used.tool_calls)) or 0,
        tokens=_least(
            own.max_tokens,
            limits.max_tokens,
            _left(budget.tokens, used.input_tokens + used.output_tokens),
        ),
        seconds=_least(own.max_seconds, limits.max_execution_time, budget.seconds),
        cost_usd=_least(own.max_cost_per_task, _left(budget.cost_usd, used.cost_usd or 0.0)),
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

    def before_model_call(self, iteration: int, partial: str) -> None:
        """Raise ``BudgetExceeded`` when one more model call is not allowed."""
        limits, used = self._limits, self.usage
        if iteration >= limits.iterations:
            raise BudgetExceeded(f"no answer after {limits.iterations} model calls", partial=partial)
        if limits.tokens is not None and used.input_tokens + used.output_tokens >= limits.tokens:
            raise BudgetExceeded(f"the limit of {limits.tokens} tokens is reached", partial=partial)
        if limits.seconds is not None and surroundings.elapsed() - self._started >= limits.seconds:
            raise BudgetExceeded(f"the limit of {limits.seconds:g} seconds is reached", partial=partial)
        if limits.cost_usd is not None:
            if used.cost_usd is None:
                raise BudgetExceeded(
                    "the model's price is unknown and the task has a limit in money",
                    partial=partial,
                    hint="set price_per_million_input_usd and price_per_million_output_usd in [llm]",
                )
            if (used.cost_usd >= limits.cost_usd and used.cost_usd > 0) or limits.cost_usd < 0:
                raise BudgetExceeded(f"the limit of {limits.cost_usd:g} USD is reached", partial=partial)

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
