"""The model step: a strict schema, an index into a list built from the ledger, one repair try."""

import json
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from agent2389.errors import ConfigurationError, ModelFailed
from agent2389.llm.messages import Reply, Request, Role, Schema, TokenUsage, Turn
from agent2389.llm.port import Model
from agent2389.router.policy import Policy
from agent2389.router.port import (
    Candidate,
    Considered,
    Decision,
    Failed,
    Join,
    JoinPolicy,
    Outcome,
    Rejected,
    Situation,
    Target,
)
from agent2389.router.schema import Verdict, decision_schema, read_verdict
from agent2389.router.text import one_line

MAX_ANSWER_CHARACTERS: Final = 6000
MAX_SUMMARY_CHARACTERS: Final = 1000
MAX_INSTRUCTION_CHARACTERS: Final = 6000
TRIES: Final = 2
Answer = TypeVar("Answer", Decision, Failed)


class ModelStep:
    """Asks a model. What it says is used only as an index."""

    def __init__(self, open_model: Callable[[], Model], policy: Policy, temperature: float | None) -> None:
        self._open_model = open_model
        self._policy = policy
        self._temperature = temperature
        self._schema = Schema("routing_decision", decision_schema(policy.max_fan_out))
        self._prompt_sha256 = policy.prompt_sha256

    async def choose(self, situation: Situation) -> Decision | Failed | None:
        """The model's choice. An unusable answer is named and asked for once more."""
        if not situation.candidates:
            return Decision(outcome=Outcome.DONE, strategy="llm", reason="nobody else is there to continue")
        turns = opening(self._policy.prompt, situation)
        spent: list[Reply] = []
        problem = ""
        started = time.monotonic()
        for _ in range(TRIES):
            try:
                reply = await self._open_model().answer(
                    Request(turns=turns, schema=self._schema, temperature=self._temperature)
                )
            except (ModelFailed, ConfigurationError) as error:
                # A routing model without its key must not undo work that is finished.
                problem = f"the model failed: {error}"
                break
            spent.append(reply)
            verdict, problem = read_verdict(reply, len(situation.candidates), self._policy.max_fan_out)
            if verdict is not None:
                return self._costed(_decision(verdict, situation), spent, started)
            turns = (*turns, Turn(role=Role.ASSISTANT, text=reply.text or "{}"), _repair(problem))
        return self._costed(Failed(problem=one_line(problem)), spent, started)

    def _costed(self, answer: Answer, spent: list[Reply], started: float) -> Answer:
        costs = [reply.cost_usd for reply in spent]
        return msgspec.structs.replace(
            answer,
            model=spent[-1].model if spent else None,
            prompt_sha256=self._prompt_sha256,
            usage=TokenUsage(
                sum(reply.usage.input for reply in spent), sum(reply.usage.output for reply in spent)
            ),
            model_calls=len(spent),
            model_seconds=round(time.monotonic() - started, 6),
            cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            rehearsal=any(reply.rehearsal for reply in spent),
        )


def opening(prompt: str, situation: Situation) -> tuple[Turn, ...]:
    """The routing prompt and the situation as one block of data."""
    visits = [step.capability for step in situation.steps] + [situation.own_capability]
    document = {
        "instruction": situation.instruction[:MAX_INSTRUCTION_CHARACTERS],
        "steps": [
            {
                "hop": step.hop,
                "capability": step.capability,
                "summary": step.summary[:MAX_SUMMARY_CHARACTERS],
            }
            for step in situation.steps
        ],
        "own_capability": situation.own_capability,
        "answer": situation.answer[:MAX_ANSWER_CHARACTERS],
        "candidates": [
            {
                "index": index,
                "capability": candidate.capability,
                "description": candidate.description,
                "free_slots": candidate.free_slots,
                "already_answered": visits.count(candidate.capability),
            }
            for index, candidate in enumerate(situation.candidates)
        ],
        "hop": situation.hop,
        "max_hops": situation.max_hops,
    }
    # A fence inside the data must not end the block.
    text = json.dumps(document, ensure_ascii=False).replace("```", "'''")
    return (
        Turn(role=Role.SYSTEM, text=prompt),
        Turn(role=Role.USER, text=f"```situation\n{text}\n```"),
    )


def _repair(problem: str) -> Turn:
    return Turn(role=Role.USER, text=f"{problem}. Answer again with the JSON object only.")


def _decision(verdict: Verdict, situation: Situation) -> Decision:
    reason = one_line(verdict.reason)
    considered = tuple(
        _considered(candidate, verdict.scores, index) for index, candidate in enumerate(situation.candidates)
    )
    if verdict.complete:
        return Decision(
            outcome=Outcome.DONE,
            strategy="llm",
            reason=reason or "nothing is left to do",
            candidates=considered,
            rejected=tuple(Rejected(item.capability, "the job is complete") for item in situation.candidates),
        )
    names = [situation.candidates[index].capability for index in verdict.chosen]
    told = ", ".join(dict.fromkeys(names))
    return Decision(
        outcome=Outcome.HAND_OFF,
        strategy="llm",
        reason=reason or f"{told} continues",
        # Free text of the routing step never becomes the next agent's instruction: it could
        # carry what a hostile document said.
        targets=tuple(Target(capability=name, slot=slot) for slot, name in enumerate(names)),
        join=_join(verdict, situation),
        candidates=considered,
        rejected=tuple(
            Rejected(item.capability, f"{told} was chosen")
            for item in situation.candidates
            if item.capability not in names
        ),
    )


def _considered(candidate: Candidate, scores: tuple[float, ...], index: int) -> Considered:
    return Considered(
        capability=candidate.capability,
        description=candidate.description,
        agents=candidate.agents,
        free_slots=candidate.free_slots,
        score=round(scores[index], 4) if index < len(scores) else None,
    )


def _join(verdict: Verdict, situation: Situation) -> Join | None:
    count = len(verdict.chosen)
    if count < 2:
        return None
    then = None if verdict.then is None else Target(capability=situation.candidates[verdict.then].capability)
    match verdict.join:
        case JoinPolicy.FIRST:
            return Join(policy=JoinPolicy.FIRST, needed=1, then=then)
        case JoinPolicy.K_OF_N:
            return Join(policy=JoinPolicy.K_OF_N, needed=verdict.needed or count, then=then)
        case _:
            return Join(policy=JoinPolicy.ALL, needed=count, then=then)
