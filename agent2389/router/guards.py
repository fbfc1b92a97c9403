"""What holds before and after every strategy: the list nobody can leave, hops, fan-out, loops, checks."""

from collections import Counter

import msgspec

from agent2389.router import loops
from agent2389.router.policy import Policy
from agent2389.router.port import (
    Candidate,
    Considered,
    Decision,
    Outcome,
    Rejected,
    Router,
    Situation,
    Target,
)
from agent2389.router.verify import verified


def eligible(situation: Situation, policy: Policy) -> tuple[tuple[Candidate, ...], tuple[Rejected, ...]]:
    """The candidates a strategy may choose from, and why the others are out."""
    visits = Counter(step.capability for step in situation.steps)
    visits[situation.own_capability] += 1
    allowed = policy.hand_offs.get(situation.own_capability)
    looping = loops.refused(situation, policy.loops)
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
        elif name in looping:
            out.append(Rejected(name, looping[name]))
        else:
            kept.append(candidate)
    return tuple(kept), tuple(out)


class Guarded:
    """Wraps a router: narrows what it sees and checks what it says."""

    def __init__(self, inner: Router, policy: Policy) -> None:
        self._inner = inner
        self._policy = policy

    async def decide(self, situation: Situation) -> Decision:
        """The inner decision, or what stands in its place when it would break a limit."""
        most = min(situation.max_hops, self._policy.max_hops)
        kept, out = eligible(situation, self._policy)
        if situation.hop >= most:
            return Decision(
                outcome=Outcome.DONE,
                strategy="guard",
                reason=f"the limit of {most} hops is reached; the last answer is the result",
                candidates=_considered(kept),
                rejected=out,
                fallback="hop_limit",
            )
        decision = await self._inner.decide(msgspec.structs.replace(situation, candidates=kept))
        if problem := self._problem(decision, situation, kept):
            decision = self._stopped(decision, *problem)
        else:
            decision = verified(decision, situation, kept, self._policy.verify)
            decision = self._flagged(decision, situation)
        return msgspec.structs.replace(
            decision,
            candidates=decision.candidates or _considered(kept),
            rejected=(*decision.rejected, *out),
        )

    def _problem(
        self, decision: Decision, situation: Situation, kept: tuple[Candidate, ...]
    ) -> tuple[str, str] | None:
        """A code and a sentence for what must not be done."""
        names = {candidate.capability for candidate in kept}
        agents = {agent for candidate in kept for agent in candidate.agents} - {situation.agent_id}
        if decision.outcome is Outcome.HAND_OFF and not decision.targets:
            return "no_target", "the decision hands on and names nobody"
        if any(not _is_listed(target, names, agents) for target in decision.targets):
            return "outside_candidates", "the decision left the list of candidates"
        if len(decision.targets) > self._policy.max_fan_out:
            return "fan_out_limit", f"more than {self._policy.max_fan_out} targets at the same time"
        join = decision.join
        if join is not None and not 1 <= join.needed <= len(decision.targets):
            return "impossible_join", f"{join.needed} of {len(decision.targets)} targets can never complete"
        if join is not None and join.then is not None:
            # Whoever fans out may gather the results itself.
            gatherers = names | {situation.own_capability}
            if not _is_listed(join.then, gatherers, agents | {situation.agent_id}):
                return "outside_candidates", "the join left the list of candidates"
        return None

    def _stopped(self, decision: Decision, code: str, why: str) -> Decision:
        escalate = self._policy.on_failure == "escalate"
        return msgspec.structs.replace(
            decision,
            outcome=Outcome.ESCALATE if escalate else Outcome.DONE,
            reason=f"{why}; {'a person has to decide' if escalate else 'the last answer is the result'}",
            targets=(),
            join=None,
            fallback=code,
        )

    def _flagged(self, decision: Decision, situation: Situation) -> Decision:
        flags = list(decision.flags)
        policy = self._policy.loops
        if policy.returns == "flag":
            flags += [
                f"returned:{target.name}"
                for target in decision.targets
                if target.capability and loops.returned(situation, target.capability)
            ]
        said = loops.announced(situation, decision) if policy.announced != "ignore" else ()
        flags += [f"announced:{name}" for name in said]
        decision = msgspec.structs.replace(decision, flags=tuple(flags))
        if said and policy.announced == "escalate" and decision.outcome is Outcome.DONE:
            why = f"the answer says that it hands over to {', '.join(said)}, and nothing was handed over"
            return msgspec.structs.replace(
                decision, outcome=Outcome.ESCALATE, reason=why, fallback="announced_hand_off"
            )
        return decision


def _is_listed(target: Target, names: set[str], agents: set[str]) -> bool:
    if target.capability is not None:
        return target.agent is None and target.capability in names
    return target.agent is not None and target.agent in agents


def _considered(candidates: tuple[Candidate, ...]) -> tuple[Considered, ...]:
    return tuple(
        Considered(
            capability=candidate.capability,
            description=candidate.description,
            agents=candidate.agents,
            free_slots=candidate.free_slots,
        )
        for candidate in candidates
    )
