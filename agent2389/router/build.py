"""From ``[routing]`` to one router: the job's own chain first, then the strategy, all guarded."""

from collections.abc import Callable

from agent2389.config.model import RoutingSection
from agent2389.errors import ConfigurationError
from agent2389.llm.port import Model
from agent2389.router.fixed import Done, Fixed
from agent2389.router.guards import Guarded
from agent2389.router.model import ModelStep
from agent2389.router.policy import Policy
from agent2389.router.port import Decision, Outcome, Router, Situation
from agent2389.router.rules import Rules


class AskPerson:
    """The end of the fallback order when the policy says ``escalate``."""

    async def decide(self, situation: Situation) -> Decision:  # noqa: ARG002 - the port's signature
        """Always escalates."""
        return Decision(outcome=Outcome.ESCALATE, strategy="fallback", reason="a person has to decide")


def build_router(routing: RoutingSection, policy: Policy, open_model: Callable[[], Model]) -> Router:
    """Compose the strategy of one agent. Raises ``ConfigurationError`` for what is not available."""
    last: Router = AskPerson() if policy.on_failure == "escalate" else Done("fallback")
    step = ModelStep(open_model, policy, Rules(routing.rules, last), routing.llm.temperature)
    match routing.strategy:
        case "none" | "fixed":
            strategy: Router = Done(routing.strategy)
        case "rules":
            strategy = Rules(routing.rules, Done("rules"))
        case "llm":
            strategy = step
        case "hybrid":
            strategy = Rules(routing.rules, ModelStep(open_model, policy, last, routing.llm.temperature))
        case "gatekeeper":
            raise ConfigurationError(
                "routing.strategy gatekeeper is not available in this version",
                hint='use strategy = "llm", "rules" or "hybrid"',
            )
    return Fixed(Guarded(strategy, policy))


def build_fixed_router() -> Router:
    """Follows a job's own chain and does nothing else (protocol v1, ``strategy = fixed``)."""
    return Fixed(Done("fixed"))
