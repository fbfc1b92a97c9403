"""Signs of going round: straight back, the same text again, hand-offs announced and not made."""

import re
from typing import Final

from agent2389.router.policy import Loops
from agent2389.router.port import Candidate, Decision, Outcome, Situation

COMPARED_CHARACTERS: Final = 2000
"""Summaries of earlier steps are cut there, so no more can be compared."""

STEM_CHARACTERS: Final = 4
_FILLING = r"(?:\s+[\w'-]+){0,4}?"
_ANNOUNCEMENT = re.compile(
    rf"\b(?:hand|handing|pass|passing|transfer|transferring|forward|forwarding|delegate|delegating|"
    rf"send|sending|route|routing|refer|referring|assign|assigning|escalate|escalating){_FILLING}"
    r"\s+to\s+(?:the\s+|our\s+|an?\s+)?[`\"'*]*([\w.-]+)",
    re.IGNORECASE,
)


def returned(situation: Situation, capability: str) -> bool:
    """A-B-A: whether ``capability`` is the one that handed to the step just finished."""
    before = [step for step in situation.steps if step.hop == situation.hop - 1]
    return any(step.capability == capability for step in before)


def already_answered(situation: Situation) -> dict[str, str]:
    """Pools to which this answer brings nothing new, and why."""
    text = _key(situation.answer)
    if not text:
        return {}
    same = [step for step in situation.steps if _key(step.summary) == text]
    after = {step.hop + 1 for step in same}
    readers = {step.capability for step in situation.steps if step.hop in after}
    found = dict.fromkeys(readers, "it has already answered this very text")
    return found | dict.fromkeys((step.capability for step in same), "this very text is its own")


def refused(situation: Situation, loops: Loops) -> dict[str, str]:
    """Pools that the loop guards keep the work from, and why."""
    found = already_answered(situation) if loops.repeats == "refuse" else {}
    if loops.returns == "refuse":
        before = (step.capability for step in situation.steps if step.hop == situation.hop - 1)
        found |= dict.fromkeys(before, "the work has just come from it")
    return found


def announced(situation: Situation, decision: Decision) -> tuple[str, ...]:
    """Candidates that the answer says it hands to and the decision does not."""
    if decision.outcome is Outcome.ESCALATE:
        return ()
    end = situation.answer[-COMPARED_CHARACTERS:]
    said = {word.lower().rstrip(".") for word in _ANNOUNCEMENT.findall(end)}
    made = {target.name for target in decision.targets}
    return tuple(
        candidate.capability
        for candidate in situation.candidates
        if candidate.capability != situation.own_capability
        and candidate.capability not in made
        and not made.intersection(candidate.agents)
        and any(_is_meant(word, candidate) for word in said)
    )


def _is_meant(word: str, candidate: Candidate) -> bool:
    """``editor`` means the pool ``editing``: they begin alike."""
    if word == candidate.capability or word in (agent.lower() for agent in candidate.agents):
        return True
    stem = word[:STEM_CHARACTERS]
    return len(stem) == STEM_CHARACTERS and candidate.capability.startswith(stem)


def _key(text: str) -> str:
    return " ".join(text[:COMPARED_CHARACTERS].split()).lower()
