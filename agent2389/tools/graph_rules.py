"""Rules that the data of a graph should keep, and finding what breaks them."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from agent2389.errors import ToolFailed

MAX_RULES = 100
EXAMPLES = 3
UNKNOWN_LABELS = (
    "MATCH (n) WHERE none(label IN labels(n) WHERE label IN $names) "
    "RETURN count(n) AS count, collect(elementId(n))[..$examples] AS examples"
)
UNKNOWN_TYPES = (
    "MATCH ()-[r]->() WHERE NOT type(r) IN $names "
    "RETURN count(r) AS count, collect(elementId(r))[..$examples] AS examples"
)
MISSING_OF_NODE = (
    "MATCH (n) WHERE $of IN labels(n) AND n[$property] IS NULL "
    "RETURN count(n) AS count, collect(elementId(n))[..$examples] AS examples"
)
MISSING_OF_TYPE = (
    "MATCH ()-[r]->() WHERE type(r) = $of AND r[$property] IS NULL "
    "RETURN count(r) AS count, collect(elementId(r))[..$examples] AS examples"
)
WRONG_OF_NODE = (
    "MATCH (n) WHERE $of IN labels(n) AND n[$property] IS NOT NULL "
    "AND NOT valueType(n[$property]) STARTS WITH $kind "
    "RETURN count(n) AS count, collect(elementId(n))[..$examples] AS examples"
)
WRONG_OF_TYPE = (
    "MATCH ()-[r]->() WHERE type(r) = $of AND r[$property] IS NOT NULL "
    "AND NOT valueType(r[$property]) STARTS WITH $kind "
    "RETURN count(r) AS count, collect(elementId(r))[..$examples] AS examples"
)
WRONG_START = (
    "MATCH (n)-[r]->() WHERE type(r) = $of AND none(label IN labels(n) WHERE label IN $names) "
    "RETURN count(r) AS count, collect(elementId(r))[..$examples] AS examples"
)
WRONG_END = (
    "MATCH ()-[r]->(n) WHERE type(r) = $of AND none(label IN labels(n) WHERE label IN $names) "
    "RETURN count(r) AS count, collect(elementId(r))[..$examples] AS examples"
)


class NodeRule(msgspec.Struct, frozen=True):
    """What nodes of one label must have."""

    required: tuple[str, ...] = ()
    types: dict[str, str] = {}


class TypeRule(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """What relationships of one type must have and connect."""

    start: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    types: dict[str, str] = {}


class GraphSchema(msgspec.Struct, frozen=True):
    """Rules by label and by relationship type; ``closed`` forbids every other label and type."""

    nodes: dict[str, NodeRule] = {}
    relationships: dict[str, TypeRule] = {}
    closed: bool = False


class Finding(msgspec.Struct, frozen=True):
    """A rule, how often it is broken, and ids of a few that break it."""

    rule: str
    count: int
    examples: tuple[str, ...]


class Rule(msgspec.Struct, frozen=True):
    """A sentence for people and the query that counts what breaks it. Names are parameters, never text."""

    text: str
    query: str
    parameters: dict[str, Any]


class Answers(Protocol):
    """What runs a query and gives ``rows``."""

    async def run(self, query: str, parameters: Mapping[str, Any]) -> Any:
        """Raises ``ToolFailed``."""
        ...


async def broken_rules(graph: Answers, schema: GraphSchema) -> list[Finding]:
    """The rules of ``schema`` that the graph breaks. Raises ``ToolFailed``, also above ``MAX_RULES``."""
    findings, rules = [], list(rules_of(schema))
    if len(rules) > MAX_RULES:
        raise ToolFailed(f"these are {len(rules)} rules; check at most {MAX_RULES} at once", retryable=False)
    for rule in rules:
        (row,) = (await graph.run(rule.query, {**rule.parameters, "examples": EXAMPLES})).rows
        if row["count"]:
            findings.append(Finding(rule.text, row["count"], tuple(row["examples"])))
    return findings


def rules_of(schema: GraphSchema) -> Iterator[Rule]:
    """Every rule of a schema, one query each."""
    if schema.closed:
        yield Rule("every node has a known label", UNKNOWN_LABELS, {"names": list(schema.nodes)})
        yield Rule(
            "every relationship is of a known type", UNKNOWN_TYPES, {"names": list(schema.relationships)}
        )
    for label, node in schema.nodes.items():
        yield from _property_rules(f":{label}", label, node, (MISSING_OF_NODE, WRONG_OF_NODE))
    for name, tie in schema.relationships.items():
        yield from _property_rules(f"[:{name}]", name, tie, (MISSING_OF_TYPE, WRONG_OF_TYPE))
        for query, names, word in ((WRONG_START, tie.start, "starts at"), (WRONG_END, tie.end, "ends at")):
            if names:
                text = f"[:{name}] {word} {' or '.join(f':{item}' for item in names)}"
                yield Rule(text, query, {"of": name, "names": list(names)})


def _property_rules(
    shown: str, of: str, rule: NodeRule | TypeRule, queries: tuple[str, str]
) -> Iterator[Rule]:
    missing, wrong = queries
    for name in rule.required:
        yield Rule(f"{shown} has {name}", missing, {"of": of, "property": name})
    for name, kind in rule.types.items():
        yield Rule(f"{shown}.{name} is {kind}", wrong, {"of": of, "property": name, "kind": kind.upper()})


_NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200}
_NAMES: dict[str, Any] = {"type": "array", "items": _NAME, "maxItems": 50}
_TYPES: dict[str, Any] = {
    "type": "object",
    "description": "property = STRING, INTEGER, FLOAT, BOOLEAN, DATE, LIST, …",
    "additionalProperties": {"type": "string", "pattern": "^[A-Za-z ]{1,40}$"},
    "maxProperties": 50,
}
_NODE: dict[str, Any] = {
    "type": "object",
    "properties": {"required": _NAMES, "types": _TYPES},
    "additionalProperties": False,
}
_TIE: dict[str, Any] = {
    "type": "object",
    "properties": {"from": _NAMES, "to": _NAMES, "required": _NAMES, "types": _TYPES},
    "additionalProperties": False,
}
SCHEMA_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "nodes": {"type": "object", "additionalProperties": _NODE, "maxProperties": 50},
        "relationships": {"type": "object", "additionalProperties": _TIE, "maxProperties": 50},
        "closed": {"type": "boolean", "description": "whether every other label and type is wrong"},
    },
    "additionalProperties": False,
}
