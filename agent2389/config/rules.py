"""Routing rules as people write them: our own form, and the conditional forms of workflow files."""

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Operator = Literal[
    "exists",
    "not_exists",
    "equals",
    "not_equals",
    "greater_than",
    "greater_or_equal",
    "less_than",
    "less_or_equal",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "matches",
    "not_matches",
    "in",
    "not_in",
    "is_empty",
    "is_not_empty",
]
_OPERATORS = {
    "==": "equals",
    "=": "equals",
    "eq": "equals",
    "is": "equals",
    "!=": "not_equals",
    "<>": "not_equals",
    "ne": "not_equals",
    "neq": "not_equals",
    ">": "greater_than",
    "gt": "greater_than",
    ">=": "greater_or_equal",
    "gte": "greater_or_equal",
    "ge": "greater_or_equal",
    "<": "less_than",
    "lt": "less_than",
    "<=": "less_or_equal",
    "lte": "less_or_equal",
    "le": "less_or_equal",
    "startswith": "starts_with",
    "endswith": "ends_with",
    "regex": "matches",
    "=~": "matches",
    "not_null": "exists",
    "is_null": "not_exists",
    "empty": "is_empty",
    "not_empty": "is_not_empty",
}
_PATHS = ("path", "jsonpath", "json_path", "field", "variable")
_VALUES = ("value", "expected")
_TARGETS = ("to", "target", "then_step", "next", "next_step", "goto", "capability", "next_agent")
_COMPARISON = re.compile(r"\s+(==|!=|<>|>=|<=|=~|>|<|[a-z_]+)(?=\s|$)")


class Condition(BaseModel):
    """One test: what ``path`` (JSONPath over the situation) finds first, compared with ``value``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    operator: Operator = "exists"
    value: Any = None

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, form: Any) -> Any:
        return condition_of(form)


class Rule(BaseModel):
    """When the conditions match, the work goes to ``to`` or ``agent``, ends, or waits for a person.

    Higher priority first. ``to`` with several names is a fan-out: ``join`` says how many of them
    have to complete (``all``, ``first``, or a number) and ``then`` who gets the merged results.
    ``otherwise`` is a capability for when the conditions do not match.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    conditions: tuple[Condition, ...] = ()
    match: Literal["all", "any"] = "all"
    to: str | tuple[str, ...] | None = None
    agent: str | None = None
    done: bool = False
    escalate: bool = False
    join: Literal["all", "first"] | int = "all"
    then: str | None = None
    otherwise: str | None = None
    priority: int = Field(default=0, ge=-1_000_000, le=1_000_000)
    reason: str = ""

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, form: Any) -> Any:
        return rule_of(form)

    @property
    def name(self) -> str:
        """The rule as a message names it: its reason, else its conditions."""
        return self.reason or f" {'and' if self.match == 'all' else 'or'} ".join(
            item.path
            if item.operator == "exists"
            else f"{item.path} {item.operator} {json.dumps(item.value, default=str)[:60]}"
            for item in self.conditions
        )


def condition_of(form: Any) -> Any:
    """A condition in its one form, from a table or an expression like ``$.data.score >= 8``."""
    if isinstance(form, str):
        return _expression(form.strip())
    if not isinstance(form, dict):
        return form
    condition = dict(form)
    _rename(condition, _PATHS, "path")
    if "op" in condition:
        condition["operator"] = condition.pop("op")
    _rename(condition, _VALUES, "value")
    if "equals" in condition:
        condition |= {"operator": "equals", "value": condition.pop("equals")}
    if "value" in condition:
        condition.setdefault("operator", "equals")
    return _named(condition)


def rule_of(form: Any) -> Any:
    """A rule in its one form."""
    if not isinstance(form, dict):
        return form
    rule = dict(form)
    for word, match in (("all", "all"), ("any", "any")):
        if isinstance(rule.get(word), list):
            rule |= {"conditions": rule.pop(word), "match": match}
    for word in ("condition", "when", "if"):
        if word in rule:
            said = rule.pop(word)
            nested = isinstance(said, dict) and "conditions" in said
            rule |= said if nested else {"conditions": said if isinstance(said, list) else [said]}
    logic = rule.pop("logic", None)
    if isinstance(logic, str):
        rule["match"] = "any" if logic.lower() in ("or", "any") else "all"
    own = {key: rule.pop(key) for key in (*_PATHS, "operator", "op", "equals", *_VALUES) if key in rule}
    if own:
        rule["conditions"] = [*rule.get("conditions", ()), own]
    if isinstance(rule.get("then"), str) and not any(key in rule for key in (*_TARGETS, "agent")):
        rule["to"] = rule.pop("then")
    _rename(rule, _TARGETS, "to")
    if "else" in rule:
        rule["otherwise"] = rule.pop("else")
    for word in ("end", "stop", "workflow_complete"):
        if word in rule:
            rule["done"] = rule.pop(word)
    return rule


def _expression(text: str) -> dict[str, Any]:
    """``PATH [OPERATOR [VALUE]]``; an operator inside the path's own brackets belongs to the path."""
    for found in _COMPARISON.finditer(text):
        path = text[: found.start()]
        if path.count("[") == path.count("]"):
            condition: dict[str, Any] = {"path": path, "operator": found[1]}
            if rest := text[found.end() :].strip():
                condition["value"] = _literal(rest)
            return _named(condition)
    return {"path": text}


def _rename(table: dict[str, Any], names: tuple[str, ...], to: str) -> None:
    for name in names:
        if name in table and name != to and to not in table:
            table[to] = table.pop(name)


def _named(condition: dict[str, Any]) -> dict[str, Any]:
    operator = condition.get("operator")
    if isinstance(operator, str):
        condition["operator"] = _OPERATORS.get(operator.lower(), operator.lower())
    return condition


def _literal(text: str) -> Any:
    """A JSON value, a string in single quotes, or the bare word."""
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        return text
