"""The only shape a routing model may answer in, and what is read out of it."""

from typing import Any, Final

import msgspec

from agent2389.llm.messages import Reply
from agent2389.router.port import JoinPolicy

_INDEX: Final = {"type": ["integer", "null"]}


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model's answer as typed data; every index is one of the list of candidates."""

    complete: bool
    next: int | None
    reason: str
    instruction: str | None = None
    parallel: tuple[int, ...] = ()
    join: JoinPolicy | None = None
    needed: int | None = None
    then: int | None = None
    scores: tuple[float, ...] = ()

    @property
    def chosen(self) -> tuple[int, ...]:
        """The indices that continue: several for a fan-out."""
        return self.parallel or (() if self.next is None else (self.next,))


def decision_schema(max_fan_out: int) -> dict[str, Any]:
    """JSON Schema of the answer; without fan-out its fields are not offered."""
    properties: dict[str, Any] = {
        "complete": {"type": "boolean", "description": "true when the job needs nobody any more"},
        "next": {**_INDEX, "description": "index of the candidate that continues, null when complete"},
        "reason": {"type": "string", "description": "one sentence for people"},
        "instruction": {
            "type": ["string", "null"],
            "description": "what is special for the next specialist, usually null",
        },
        "scores": {
            "type": "array",
            "items": {"type": "number"},
            "description": "how well each candidate fits, 0 to 1, in the order of the list; may be empty",
        },
    }
    if max_fan_out > 1:
        properties |= {
            "parallel": {
                "type": "array",
                "items": {"type": "integer"},
                "description": f"2 to {max_fan_out} indices to work at the same time, else empty",
            },
            "join": {
                "type": ["string", "null"],
                "enum": [*(policy.value for policy in JoinPolicy), None],
                "description": "how many of the parallel ones have to complete, null without them",
            },
            "needed": {**_INDEX, "description": "k of k_of_n, else null"},
            "then": {**_INDEX, "description": "index of who gets the merged results, null for nobody"},
        }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_verdict(reply: Reply, candidates: int, max_fan_out: int) -> tuple[Verdict | None, str]:
    """The checked answer, or ``None`` and what is wrong with it."""
    if reply.structured is None:
        return None, "the answer is not the JSON object that was asked for"
    try:
        verdict = msgspec.convert(reply.structured, Verdict, strict=True)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        return None, f"the answer does not fit the schema: {error}"
    problem = "" if verdict.complete else _problem(verdict, candidates, max_fan_out)
    return (None, problem) if problem else (verdict, "")


def _problem(verdict: Verdict, candidates: int, max_fan_out: int) -> str:
    if not verdict.chosen:
        return "the job is not complete and no candidate was chosen"
    if len(verdict.chosen) > max_fan_out:
        return f"{len(verdict.chosen)} targets are more than the {max_fan_out} that the policy allows"
    named = (*verdict.chosen, *(item for item in (verdict.next, verdict.then) if item is not None))
    for index in named:
        if not 0 <= index < candidates:
            return f"there is no candidate with index {index}"
    if verdict.parallel and verdict.next is not None and verdict.next not in verdict.parallel:
        return "next and parallel name different candidates"
    if verdict.join is JoinPolicy.K_OF_N and not 1 <= (verdict.needed or 0) <= len(verdict.parallel):
        return f"needed is {verdict.needed} of {len(verdict.parallel)}"
    return ""
