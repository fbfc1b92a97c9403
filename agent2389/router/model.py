"""The model step: a strict schema, an index into a list built from the ledger, one repair try."""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from agent2389.errors import ConfigurationError, ModelFailed
from agent2389.llm.messages import Reply, Request, Role, Schema, TokenUsage, Turn
from agent2389.llm.port import Model
from agent2389.router.policy import Policy
from agent2389.router.port import Decision, Outcome, Rejected, Router, Situation, Target

MAX_ANSWER_CHARACTERS: Final = 6000
MAX_REASON_CHARACTERS: Final = 500

DECISION_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "complete": {"type": "boolean", "description": "true when the job needs nobody any more"},
        "next": {
            "type": ["integer", "null"],
            "description": "index of the candidate that continues, null when complete",
        },
        "reason": {"type": "string", "description": "one sentence for people"},
        "instruction": {
            "type": ["string", "null"],
            "description": "what is special for the next specialist, usually null",
        },
    },
    "required": ["complete", "next", "reason", "instruction"],
    "additionalProperties": False,
}


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model's answer as typed data."""

    complete: bool
    next: int | None
    reason: str
    instruction: str | None = None


class ModelStep:
    """Asks a model. What it says is used only as an index; a failing model asks ``fallback``."""

    def __init__(
        self, open_model: Callable[[], Model], policy: Policy, fallback: Router, temperature: float | None
    ) -> None:
        self._open_model = open_model
        self._policy = policy
        self._fallback = fallback
        self._temperature = temperature

    async def decide(self, situation: Situation) -> Decision:
        """The model's choice, or the fallback's with the reason why."""
        if not situation.candidates:
            return Decision(outcome=Outcome.DONE, strategy="llm", reason="nobody else is there to continue")
        turns = opening(self._policy.prompt, situation)
        spent: list[Reply] = []
        problem = ""
        for _ in range(2):
            try:
                reply = await self._open_model().answer(
                    Request(
                        turns=turns,
                        schema=Schema("routing_decision", DECISION_SCHEMA),
                        temperature=self._temperature,
                    )
                )
            except (ModelFailed, ConfigurationError) as error:
                # A routing model without its key must not undo work that is finished.
                problem = f"the model failed: {error}"
                break
            spent.append(reply)
            verdict, problem = read_verdict(reply, len(situation.candidates))
            if verdict is not None:
                return _with_cost(_decision(verdict, situation), spent)
            turns = (*turns, Turn(role=Role.ASSISTANT, text=reply.text or "{}"), _repair(problem))
        decision = await self._fallback.decide(situation)
        return _with_cost(msgspec.structs.replace(decision, fallback=problem[:MAX_REASON_CHARACTERS]), spent)


def opening(prompt: str, situation: Situation) -> tuple[Turn, ...]:
    """The routing prompt and the situation as one block of data."""
    document = {
        "instruction": situation.instruction,
        "steps": [
            {"hop": step.hop, "capability": step.capability, "summary": step.summary[:1000]}
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


def read_verdict(reply: Reply, candidates: int) -> tuple[Verdict | None, str]:
    """The checked answer, or ``None`` and what is wrong with it."""
    if reply.structured is None:
        return None, "the answer is not the JSON object that was asked for"
    try:
        verdict = msgspec.convert(reply.structured, Verdict, strict=True)
    except msgspec.ValidationError as error:
        return None, f"the answer does not fit the schema: {error}"
    if verdict.complete:
        return verdict, ""
    if verdict.next is None:
        return None, "the job is not complete and no candidate was chosen"
    if not 0 <= verdict.next < candidates:
        return None, f"there is no candidate with index {verdict.next}"
    return verdict, ""


def _repair(problem: str) -> Turn:
    return Turn(role=Role.USER, text=f"{problem}. Answer again with the JSON object only.")


def _decision(verdict: Verdict, situation: Situation) -> Decision:
    reason = " ".join(verdict.reason.split())[:MAX_REASON_CHARACTERS]
    if verdict.complete or verdict.next is None:
        return Decision(
            outcome=Outcome.DONE,
            strategy="llm",
            reason=reason or "nothing is left to do",
            rejected=tuple(Rejected(item.capability, "the job is complete") for item in situation.candidates),
        )
    chosen = situation.candidates[verdict.next]
    return Decision(
        outcome=Outcome.HAND_OFF,
        strategy="llm",
        reason=reason or f"{chosen.capability} continues",
        # Free text of the routing step never becomes the next agent's instruction: it could
        # carry what a hostile document said.
        targets=(Target(capability=chosen.capability),),
        rejected=tuple(
            Rejected(item.capability, f"{chosen.capability} was chosen")
            for item in situation.candidates
            if item is not chosen
        ),
    )


def _with_cost(decision: Decision, spent: list[Reply]) -> Decision:
    costs = [reply.cost_usd for reply in spent]
    return msgspec.structs.replace(
        decision,
        model=spent[-1].model if spent else None,
        usage=TokenUsage(
            sum(reply.usage.input for reply in spent), sum(reply.usage.output for reply in spent)
        ),
        model_calls=len(spent),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        rehearsal=any(reply.rehearsal for reply in spent),
    )
