"""What holds before and after every strategy: the list nobody can leave, hops, loops."""

from collections import Counter

import msgspec

from agent2389.router.policy import Policy
from agent2389.router.port import Candidate, Decision, Outcome, Rejected, Router, Situation


def eligible(situation: Situation, policy: Policy) -> tuple[tuple[Candidate, ...], tuple[Rejected, ...]]:
    """The candidates a strategy may choose from, and why the others are out."""
    visits = Counter(step.capability for step in situation.steps)
    visits[situation.own_capability] += 1
    allowed = policy.hand_offs.get(situation.own_capability)
    kept: list[Candidate] = []
    out: list[Rejected] = []
    for candidate in situation.candidates:
        name = candidate.capability
        if name == situation.own_capability:
            out.append(Rejected(name, "it has just finished this step"))
        elif not candidate.agents:
            out.append(Rejected(name, "no agent of it is running"))
        elif allowed is not None and name not in allowed:
            out.append(Rejected(name, f"the policy does not let {situation.own_capability} hand to it"))
        elif visits[name] >= policy.max_visits:
            out.append(Rejected(name, f"it has worked on this job {visits[name]} times"))
        else:
            kept.append(candidate)
    return tuple(kept), tuple(out)


class Guarded:
    """Wraps a strategy: narrows what it sees and checks what it says."""

    def __init__(self, inner: Router, policy: Policy) -> None:
        self._inner = inner
        self._policy = policy

    async def decide(self, situation: Situation) -> Decision:
        """The inner decision, or a stop when it would break a limit."""
        most = min(situation.max_hops, self._policy.max_hops)
        kept, out = eligible(situation, self._policy)
        if situation.hop >= most:
            return Decision(
                outcome=Outcome.DONE,
                strategy="guard",
                reason=f"the limit of {most} hops is reached; the last answer is the result",
                rejected=out,
                fallback="hop_limit",
            )
        decision = await self._inner.decide(msgspec.structs.replace(situation, candidates=kept))
        names = {candidate.capability for candidate in kept}
        agents = {agent for candidate in kept for agent in candidate.agents}
        stray = [
            target
            for target in decision.targets
            if (target.capability is None and target.agent is None)
            or (target.capability is not None and target.capability not in names)
            or (target.agent is not None and target.agent not in agents)
        ]
        if stray:
            return Decision(
                outcome=Outcome.DONE,
                strategy=decision.strategy,
                reason="the decision left the list of candidates; the last answer is the result",
                rejected=out,
                fallback="outside_candidates",
                model=decision.model,
                usage=decision.usage,
                model_calls=decision.model_calls,
                cost_usd=decision.cost_usd,
                rehearsal=decision.rehearsal,
            )
        return msgspec.structs.replace(decision, rejected=(*decision.rejected, *out))
