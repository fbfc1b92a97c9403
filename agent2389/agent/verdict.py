"""What a judging task's answer comes to: approved or refused."""

import json
import re

from agent2389.errors import ModelFailed
from agent2389.llm.messages import Request, Role, Schema, Turn
from agent2389.llm.port import Model

HEAD_CHARACTERS = 400
"""A verdict stands at the beginning of an answer; the judged text may follow."""
_WORD = re.compile(r"(?im)^\W*verdict\W+(approve|accept|reject|refuse)")
_WORDS = {"approve": "approved", "accept": "approved", "reject": "refused", "refuse": "refused"}
SCHEMA = Schema(
    "verdict",
    {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": ["approved", "refused"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    },
)


def written_verdict(answer: str) -> str | None:
    """``approved`` or ``refused`` where the answer says so in the form that was asked for."""
    found = _WORD.search(answer[:HEAD_CHARACTERS])
    if found is not None:
        return _WORDS[found[1].lower()]
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    said = document.get("verdict") if isinstance(document, dict) else None
    return next((meant for word, meant in _WORDS.items() if str(said).lower().startswith(word)), None)


async def verdict_of(answer: str, model: Model, timeout: float) -> str | None:
    """The verdict of ``answer``, asked for once more in a structure when it is not written plainly.

    ``None`` when there is none: a person has to decide then.
    """
    written = written_verdict(answer)
    if written is not None:
        return written
    question = f"Here is what a judge wrote. Was the result approved or refused?\n\n{answer}"
    try:
        reply = await model.answer(
            Request(turns=(Turn(role=Role.USER, text=question),), schema=SCHEMA, timeout=timeout)
        )
    except ModelFailed:
        return None
    said = reply.structured.get("verdict") if isinstance(reply.structured, dict) else None
    return said if said in ("approved", "refused") else None
