"""Conditional routing by rules: JSONPath over the situation, highest priority first."""

import msgspec
from jsonpath import JSONPathError, findall

from agent2389.config.model import Rule
from agent2389.errors import ConfigurationError
from agent2389.router.port import Decision, Outcome, Rejected, Router, Situation, Target


class Rules:
    """The first rule that matches decides; without one ``otherwise`` is asked."""

    def __init__(self, rules: tuple[Rule, ...], otherwise: Router) -> None:
        for rule in rules:
            if sum((rule.to is not None, rule.agent is not None, rule.done)) != 1:
                raise ConfigurationError(
                    f"routing rule {rule.path!r} does not say where the work goes",
                    hint="give it exactly one of to, agent and done",
                )
            try:
                findall(rule.path, {})
            except JSONPathError as error:
                raise ConfigurationError(f"routing rule {rule.path!r} is not JSONPath: {error}") from None
        self._rules = sorted(rules, key=lambda rule: -rule.priority)
        self._otherwise = otherwise

    async def decide(self, situation: Situation) -> Decision:
        """The decision of the first matching rule whose target is a candidate."""
        document = msgspec.to_builtins(situation)
        names = {candidate.capability for candidate in situation.candidates}
        agents = {agent for candidate in situation.candidates for agent in candidate.agents}
        rejected: list[Rejected] = []
        for rule in self._rules:
            found = findall(rule.path, document)
            if not found or ("equals" in rule.model_fields_set and found[0] != rule.equals):
                continue
            reason = rule.reason or f"rule {rule.path}"
            if rule.done:
                return Decision(outcome=Outcome.DONE, strategy="rules", reason=reason)
            absent = rule.to not in names if rule.to is not None else rule.agent not in agents
            if absent:
                rejected.append(Rejected(rule.to or rule.agent or "", f"{reason}: not a live candidate"))
                continue
            target = Target(capability=rule.to) if rule.to else Target(agent=rule.agent)
            return Decision(
                outcome=Outcome.HAND_OFF,
                strategy="rules",
                reason=reason,
                targets=(target,),
                rejected=tuple(rejected),
            )
        decision = await self._otherwise.decide(situation)
        return msgspec.structs.replace(decision, rejected=(*rejected, *decision.rejected))
