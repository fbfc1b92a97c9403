"""The verification policy: some results end a job only after somebody else has judged them."""

import msgspec

from agent2389.router.policy import Verify
from agent2389.router.port import Candidate, Decision, Outcome, Situation, Target

VERDICT_CHARACTERS = 300
"""A verdict stands at the beginning of a judge's answer; the judged text may follow."""


def verified(
    decision: Decision, situation: Situation, candidates: tuple[Candidate, ...], verify: Verify
) -> Decision:
    """``decision``, with who judges an unchecked end; or what follows a judge's refusal instead of an end."""
    if not verify.by or decision.outcome is not Outcome.DONE:
        return decision
    names = {candidate.capability for candidate in candidates}
    if situation.own_capability == verify.by:
        return _after_verdict(decision, situation, names, verify)
    if not _is_unchecked(situation, verify):
        return decision
    if verify.by in names:
        return msgspec.structs.replace(
            decision, verify=Target(capability=verify.by), flags=(*decision.flags, "unverified")
        )
    if verify.without_judge == "done":
        return msgspec.structs.replace(decision, flags=(*decision.flags, "unverified"))
    return _ask(decision, f"the policy wants {verify.by} to check this, and nobody of it can", "unverified")


def _after_verdict(decision: Decision, situation: Situation, names: set[str], verify: Verify) -> Decision:
    head = situation.answer[:VERDICT_CHARACTERS].lower()
    if verify.on_reject == "done" or not any(word.lower() in head for word in verify.rejected_words):
        return decision
    author = next((step.capability for step in reversed(situation.steps) if step.capability != verify.by), "")
    if verify.on_reject == "back" and author in names:
        return _hand(decision, author, f"{verify.by} refused the result, {author} does it again", "refused")
    return _ask(decision, f"{verify.by} refused the result and nobody may work on it again", "refused")


def _is_unchecked(situation: Situation, verify: Verify) -> bool:
    """Whether one of the watched pools has worked since the last check."""
    for capability in (situation.own_capability, *(step.capability for step in reversed(situation.steps))):
        if capability == verify.by:
            return False
        if not verify.of or capability in verify.of:
            return True
    return False


def _hand(decision: Decision, capability: str, reason: str, flag: str) -> Decision:
    return msgspec.structs.replace(
        decision,
        outcome=Outcome.HAND_OFF,
        reason=reason,
        targets=(Target(capability=capability),),
        rejected=tuple(item for item in decision.rejected if item.capability != capability),
        flags=(*decision.flags, flag),
    )


def _ask(decision: Decision, reason: str, flag: str) -> Decision:
    return msgspec.structs.replace(
        decision, outcome=Outcome.ESCALATE, reason=reason, targets=(), flags=(*decision.flags, flag)
    )
