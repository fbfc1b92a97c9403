"""Conditional routing by rules: JSONPath over the situation, highest priority first."""

import json
from typing import Any, Final

import msgspec

from agent2389.config.rules import Rule
from agent2389.errors import ConfigurationError
from agent2389.router.conditions import Check, Lookup
from agent2389.router.port import Decision, Failed, Join, JoinPolicy, Outcome, Rejected, Situation, Target

MAX_PARSED_CHARACTERS: Final = 64 * 1024


class _Ready:
    """A rule with its conditions compiled."""

    def __init__(self, rule: Rule) -> None:
        ends = (rule.to is not None, rule.agent is not None, rule.done, rule.escalate)
        if sum(ends) != 1:
            raise ConfigurationError(
                f"routing rule {rule.name!r} does not say where the work goes",
                hint="give it exactly one of to, agent, done and escalate",
            )
        if isinstance(rule.join, int) and not 1 <= rule.join <= len(_names(rule)):
            raise ConfigurationError(
                f"routing rule {rule.name!r} joins {rule.join} of {len(_names(rule))} targets",
                hint="join is all, first or a number up to that of the targets",
            )
        self.rule = rule
        self._tests = tuple(Check(condition) for condition in rule.conditions)

    def holds(self, lookup: Lookup) -> bool:
        """A rule without conditions always matches."""
        outcomes = (test.holds(lookup) for test in self._tests)
        return any(outcomes) if self.rule.match == "any" and self._tests else all(outcomes)


class Rules:
    """The first rule that matches and whose targets are candidates decides; else nothing is said."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        ready = [_Ready(rule) for rule in rules]
        self._rules = sorted(ready, key=lambda item: -item.rule.priority)

    async def choose(self, situation: Situation) -> Decision | Failed | None:
        """The decision of the first matching rule, or ``None``."""
        if not self._rules:
            return None
        lookup = Lookup(document_of(situation))
        names = {candidate.capability for candidate in situation.candidates}
        agents = {agent for candidate in situation.candidates for agent in candidate.agents}
        absent: list[Rejected] = []
        for ready in self._rules:
            rule = ready.rule
            holds = ready.holds(lookup)
            if holds and (rule.done or rule.escalate):
                outcome = Outcome.DONE if rule.done else Outcome.ESCALATE
                return Decision(outcome=outcome, strategy="rules", reason=rule.name, rejected=tuple(absent))
            targets = _targets(rule) if holds else _otherwise(rule)
            away = [
                target.name
                for target in targets
                if (target.capability not in names if target.capability else target.agent not in agents)
            ]
            absent += [Rejected(name, f"{rule.name}: not a live candidate") for name in away]
            if targets and not away:
                return Decision(
                    outcome=Outcome.HAND_OFF,
                    strategy="rules",
                    reason=rule.name,
                    targets=targets,
                    join=_join(rule, len(targets)) if holds else None,
                    rejected=tuple(absent),
                )
        return None


def document_of(situation: Situation) -> dict[str, Any]:
    """What JSONPath sees: the situation, and under ``data`` and ``output`` an answer that is JSON."""
    document: dict[str, Any] = msgspec.to_builtins(situation)
    if document["data"] is None:
        document["data"] = _parsed(situation.answer)
    document["output"] = document["data"] if document["data"] is not None else situation.answer
    return document


def _parsed(answer: str) -> Any:
    text = answer.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not text.startswith(("{", "[")) or len(text) > MAX_PARSED_CHARACTERS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _names(rule: Rule) -> tuple[str, ...]:
    return (rule.to,) if isinstance(rule.to, str) else rule.to or ()


def _targets(rule: Rule) -> tuple[Target, ...]:
    if rule.agent is not None:
        return (Target(agent=rule.agent),)
    return tuple(Target(capability=name.lower(), slot=slot) for slot, name in enumerate(_names(rule)))


def _otherwise(rule: Rule) -> tuple[Target, ...]:
    return (Target(capability=rule.otherwise.lower()),) if rule.otherwise else ()


def _join(rule: Rule, count: int) -> Join | None:
    if count < 2:
        return None
    then = Target(capability=rule.then.lower()) if rule.then else None
    match rule.join:
        case "all":
            return Join(policy=JoinPolicy.ALL, needed=count, then=then)
        case "first":
            return Join(policy=JoinPolicy.FIRST, needed=1, then=then)
        case int() as needed:
            return Join(policy=JoinPolicy.K_OF_N, needed=needed, then=then)
