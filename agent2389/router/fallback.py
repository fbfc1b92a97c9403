"""The order in which strategies are asked: one after the other, at the end a person or the last answer."""

import msgspec

from agent2389.llm.messages import TokenUsage
from agent2389.router.port import Decision, Failed, Outcome, Router, Situation, Strategy


class AskPerson:
    """The end of the fallback order when the policy says ``escalate``."""

    async def decide(self, situation: Situation) -> Decision:  # noqa: ARG002 - the port's signature
        """Always escalates."""
        return Decision(outcome=Outcome.ESCALATE, strategy="fallback", reason="a person has to decide")


class Ordered:
    """Asks strategies in turn.

    One that has nothing to say is passed over. After one ``Failed``, the next that decides does
    so with ``fallback`` naming the failure, and ``failed`` is the end instead of ``silent``.
    """

    def __init__(self, strategies: tuple[Strategy, ...], *, silent: Router, failed: Router) -> None:
        self._strategies = strategies
        self._silent = silent
        self._failed = failed

    async def decide(self, situation: Situation) -> Decision:
        """The first decision, with the cost of every try before it."""
        failures: list[Failed] = []
        for strategy in self._strategies:
            answer = await strategy.choose(situation)
            match answer:
                case Decision():
                    return _after(answer, failures)
                case Failed():
                    failures.append(answer)
                case None:
                    continue
        end = self._failed if failures else self._silent
        return _after(await end.decide(situation), failures)


def _after(decision: Decision, failures: list[Failed]) -> Decision:
    if not failures:
        return decision
    tries: list[Failed | Decision] = [*failures, decision]
    costs = [item.cost_usd for item in tries]
    last = failures[-1]
    return msgspec.structs.replace(
        decision,
        fallback="; ".join(item.problem for item in failures),
        model=decision.model or last.model,
        prompt_sha256=decision.prompt_sha256 or last.prompt_sha256,
        usage=TokenUsage(sum(item.usage.input for item in tries), sum(item.usage.output for item in tries)),
        model_calls=sum(item.model_calls for item in tries),
        model_seconds=sum(item.model_seconds for item in tries),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        rehearsal=any(item.rehearsal for item in tries),
    )
