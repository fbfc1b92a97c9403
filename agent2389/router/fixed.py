"""Chains given with the job: the nested ``next`` of the protocol and ``--route a,b,c``."""

from typing import Any

from agent2389.router.port import Decision, Outcome, Router, Situation, Target
from agent2389.wire.names import is_capability, is_identifier
from agent2389.wire.topics import parse_protocol_agent


class Fixed:
    """Follows ``next`` while there is one and asks ``otherwise`` after its end."""

    def __init__(self, otherwise: Router) -> None:
        self._otherwise = otherwise

    async def decide(self, situation: Situation) -> Decision:
        """The next link of the chain; a link that names nobody asks a person."""
        link = situation.next
        if not link:
            return await self._otherwise.decide(situation)
        target = target_of(link)
        if target is None:
            return Decision(
                outcome=Outcome.ESCALATE,
                strategy="fixed",
                reason="the next link of the given route names neither a capability nor an agent",
                fallback="invalid_link",
            )
        name = target.capability or target.agent
        return Decision(
            outcome=Outcome.HAND_OFF,
            strategy="fixed",
            reason=f"the job's own route continues with {name}",
            targets=(target,),
        )


class Done:
    """The strategy ``none``: what was answered is the result."""

    def __init__(self, strategy: str = "none") -> None:
        self._strategy = strategy

    async def decide(self, situation: Situation) -> Decision:
        """Always done."""
        had_route = bool(situation.steps)
        reason = "the route ends here" if had_route else "this agent hands to nobody"
        return Decision(outcome=Outcome.DONE, strategy=self._strategy, reason=reason)


def target_of(link: Any) -> Target | None:
    """Read a link: ``{"topic": …}``, ``{"capability": …}``, ``{"agent": …}``, or a list of names."""
    match link:
        case [str() as name, *rest]:
            return _named(name, rest or None, None)
        case {"topic": str() as topic}:
            agent = parse_protocol_agent(topic)
            return (
                None if agent is None else Target(agent=agent, instruction=_text(link), next=link.get("next"))
            )
        case {"capability": str() as name}:
            return _named(name, link.get("next"), _text(link))
        case {"agent": str() as agent} if is_identifier(agent):
            return Target(agent=agent, instruction=_text(link), next=link.get("next"))
        case _:
            return None


def _named(name: str, rest: Any, instruction: str | None) -> Target | None:
    name = name.lower()
    return Target(capability=name, instruction=instruction, next=rest) if is_capability(name) else None


def _text(link: dict[str, Any]) -> str | None:
    instruction = link.get("instruction")
    return instruction if isinstance(instruction, str) and instruction.strip() else None
