"""How the rehearsal model answers a schema: routing by comparing words, anything else by type."""

import json
import re
from typing import Any

from agent2389.llm.rehearsal_steps import STEMS, Kind, marks
from agent2389.llm.rehearsal_text import words

ORDER = (Kind.NOTES, Kind.DRAFT, Kind.EDITED, Kind.VERDICT)


def situation_in(text: str) -> dict[str, Any] | None:
    """The situation that a routing prompt carries in a fenced block."""
    found = re.search(r"```situation\n(.*?)\n```", text, re.DOTALL)
    if found is None:
        return None
    document = json.loads(found[1])
    return document if isinstance(document, dict) else None


def routed(situation: dict[str, Any]) -> dict[str, Any]:
    """Who continues: the first kind of work asked for and not done, by whoever says to do it."""
    asked = _kinds(situation["instruction"])
    done = _done(situation)
    candidates = situation["candidates"]
    unserved: list[str] = []
    for kind in ORDER:
        if kind not in asked or kind in done or _is_behind(kind, done, asked):
            continue
        scored = [(_fit(candidate, kind), -candidate["index"], candidate) for candidate in candidates]
        best = max(scored, key=lambda item: item[:2], default=None)
        if best is not None and best[0] > 0:
            reason = f"the instruction asks for {kind}, and {best[2]['capability']} says it does that"
            return {
                "complete": False,
                "next": best[2]["index"],
                "reason": reason,
                "instruction": None,
                "scores": _scores(candidates, kind, best[0]),
            }
        unserved.append(str(kind))
    reason = "everything the instruction asks for is done"
    if unserved:
        reason = f"nobody here offers {', '.join(unserved)}; all else is done"
    return {"complete": True, "next": None, "reason": reason, "instruction": None}


def _scores(candidates: list[dict[str, Any]], kind: Kind, best: float) -> list[float]:
    """How well each fits beside the best one, 0 to 1."""
    return [round(min(max(_fit(candidate, kind) / best, 0.0), 1.0), 3) for candidate in candidates]


def _kinds(text: str) -> set[Kind]:
    found = set(words(text))
    return {kind for kind, stems in STEMS.items() if found & stems}


def _done(situation: dict[str, Any]) -> set[Kind]:
    texts = [situation["answer"], *(step["summary"] for step in situation["steps"])]
    done = {kind for text in texts for kind in marks(text)}
    for name in (situation["own_capability"], *(step["capability"] for step in situation["steps"])):
        done |= _kinds(re.sub(r"[_-]", " ", name))
    return done


def _is_behind(kind: Kind, done: set[Kind], asked: set[Kind]) -> bool:
    """Sources are not gathered after the text was written, unless nothing else is asked for."""
    later = {Kind.DRAFT, Kind.EDITED, Kind.VERDICT}
    return kind is Kind.NOTES and bool(done & later) and bool(asked & later)


def _fit(candidate: dict[str, Any], kind: Kind) -> float:
    """How much a description speaks of producing ``kind``: what follows *into* is what comes out."""
    description = f"{re.sub(r'[_-]', ' ', candidate['capability'])}. {candidate['description']}"
    taken, mark, made = description.partition(" into ")
    stems = STEMS[kind]
    before = sum(1 for word in words(taken) if word in stems)
    after = sum(1 for word in words(made) if word in stems)
    score = before * (0.5 if mark else 1.0) + after * 2.0
    others = max(
        sum(1 for word in words(made if mark else taken) if word in STEMS[other])
        for other in ORDER
        if other is not kind
    )
    return score - 0.4 * others


def by_type(schema: dict[str, Any], text: str) -> Any:
    """A value that fits ``schema``, taken from the text where it can be."""
    if "enum" in schema:
        lower = text.lower()
        return next((item for item in schema["enum"] if str(item).lower() in lower), schema["enum"][0])
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next(item for item in kind if item != "null") if len(kind) > 1 else kind[0]
    match kind:
        case "object":
            fields = schema.get("properties", {})
            return {name: by_type(field, text) for name, field in fields.items()}
        case "array":
            return [by_type(schema.get("items", {}), text)] * schema.get("minItems", 1)
        case "integer" | "number":
            found = re.search(r"\d+", text)
            value = int(found[0]) if found else 0
            return min(max(value, schema.get("minimum", value)), schema.get("maximum", value))
        case "boolean":
            return bool(re.search(r"\b(yes|true|approve|complete)\b", text, re.IGNORECASE))
        case "null":
            return None
        case _:
            return text.strip()[: min(schema.get("maxLength", 200), 200)]
