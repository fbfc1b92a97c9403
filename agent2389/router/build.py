"""From ``[routing]`` to one router: the job's own chain first, then the strategy, all guarded."""

from collections.abc import Callable
from typing import assert_never, get_args

import msgspec

from agent2389.config.model import RoutingSection, RoutingStrategy
from agent2389.errors import ConfigurationError
from agent2389.llm.port import Model
from agent2389.router.fallback import AskPerson, Ordered
from agent2389.router.fixed import Done, Fixed
from agent2389.router.gatekeeper import Gatekeeper
from agent2389.router.guards import Guarded
from agent2389.router.model import ModelStep
from agent2389.router.policy import Policy
from agent2389.router.port import Decision, Outcome, Router, Situation
from agent2389.router.rules import Rules


NO_RULE = "no_rule"
"""The flag of a decision that only stands because no strategy had anything to say."""


class PerJob:
    """Follows the strategy that the job asks for where the agent has it, else the agent's own."""

    def __init__(self, routers: dict[str, Router], own: str) -> None:
        self._routers = routers
        self._own = own

    async def decide(self, situation: Situation) -> Decision:
        """A wish that cannot be met is recorded and the agent's own strategy followed."""
        wish = situation.strategy or self._own
        router = self._routers.get(wish)
        if router is not None:
            return await router.decide(situation)
        decision = await self._routers[self._own].decide(situation)
        note = f"the job asks for strategy {wish[:32]!r}, which this agent does not have"
        fallback = f"{note}; {decision.fallback}" if decision.fallback else note
        return msgspec.structs.replace(decision, fallback=fallback)


class Silent:
    """The end when every strategy was asked and none had anything to say."""

    def __init__(self, strategy: str) -> None:
        self._strategy = strategy

    async def decide(self, situation: Situation) -> Decision:  # noqa: ARG002 - the port's signature
        """The last answer is the result."""
        return Decision(
            outcome=Outcome.DONE,
            strategy=self._strategy,
            reason="no rule matches; the last answer is the result",
            flags=(NO_RULE,),
        )


def build_router(
    routing: RoutingSection, policy: Policy, open_model: Callable[[], Model], *, proxy: str | None = None
) -> Router:
    """Compose the strategies of one agent. Raises ``ConfigurationError`` for what cannot work."""
    if routing.strategy == "gatekeeper" and routing.gatekeeper is None:
        raise ConfigurationError(
            "routing.strategy is gatekeeper and no address is given",
            hint='add [routing.gatekeeper] with url = "http://127.0.0.1:8000"',
        )
    routers: dict[str, Router] = {
        name: Guarded(_strategy(name, routing, policy, open_model, proxy), policy)
        for name in get_args(RoutingStrategy)
        if name != "gatekeeper" or routing.gatekeeper is not None
    }
    return Fixed(PerJob(routers, routing.strategy))


def _strategy(
    name: RoutingStrategy,
    routing: RoutingSection,
    policy: Policy,
    open_model: Callable[[], Model],
    proxy: str | None,
) -> Router:
    """One strategy with its fallbacks: rules, then a person (or the last answer, by policy)."""
    own, shared = Rules(routing.rules), Rules(policy.rules)
    step = ModelStep(open_model, policy, routing.llm.temperature)
    failed: Router = AskPerson() if policy.on_failure == "escalate" else Done("fallback")
    match name:
        case "none" | "fixed":
            return Done(name)
        case "rules":
            return Ordered((own, shared), silent=Silent("rules"), failed=failed)
        case "llm":
            return Ordered((step, own, shared), silent=Silent("llm"), failed=failed)
        case "hybrid":
            first = own if routing.rules else shared
            return Ordered((first, step, shared), silent=Silent("hybrid"), failed=failed)
        case "gatekeeper":
            assert routing.gatekeeper is not None
            gatekeeper = Gatekeeper(routing.gatekeeper, policy, proxy=proxy)
            return Ordered((gatekeeper, own, shared), silent=Silent("gatekeeper"), failed=failed)
        case _:
            assert_never(name)


def build_fixed_router() -> Router:
    """Follows a job's own chain and does nothing else (protocol v1, ``strategy = fixed``)."""
    return Fixed(Done("fixed"))
