"""One condition of a rule: a JSONPath, an operator, a value."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from agent2389.config.rules import Condition
from agent2389.errors import ConfigurationError

if TYPE_CHECKING:
    from jsonpath import JSONPath

MAX_MATCHED_CHARACTERS: Final = 4000
"""A regular expression sees no more of a text: an agent's answer must not keep the loop busy."""


class Lookup:
    """What paths find in one situation, looked up once: rules often share their paths."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._found: dict[str, list[Any]] = {}

    def find(self, text: str, path: "JSONPath") -> list[Any]:
        """Every value at ``path``, which was written as ``text``."""
        if text not in self._found:
            self._found[text] = path.findall(self._document)
        return self._found[text]


class Check:
    """A condition ready to be asked. Raises ``ConfigurationError`` for a path or pattern that is none."""

    def __init__(self, condition: Condition) -> None:
        self._text, self._path = condition.path, _compiled(condition.path)
        operator = str(condition.operator)
        self._negated = operator.startswith(("not_", "is_not_"))
        self._operator = operator.replace("not_", "", 1) if self._negated else operator
        self._wanted = condition.value
        if self._operator == "matches":
            self._wanted = _pattern(condition)

    def holds(self, lookup: Lookup) -> bool:
        """Whether the first value that the path finds passes.

        A path that finds nothing passes only ``not_exists`` and ``is_empty``.
        """
        found = lookup.find(self._text, self._path)
        if self._operator == "exists":
            return (bool(found) and found[0] is not None) is not self._negated
        if not found:
            return self._operator == "is_empty" and not self._negated
        return _OPERATORS[self._operator](found[0], self._wanted) is not self._negated


def _compiled(path: str) -> "JSONPath":
    from jsonpath import JSONPath, JSONPathError  # noqa: PLC0415 - agents without rules do not pay for it
    from jsonpath import compile as compile_path  # noqa: PLC0415 - the same

    try:
        compiled = compile_path(path)
    except JSONPathError as error:
        raise ConfigurationError(
            f"routing rule {path!r} is not JSONPath: {error}", hint="begin with $, as in $.data.status"
        ) from None
    if not isinstance(compiled, JSONPath):
        raise ConfigurationError(f"routing rule {path!r} joins paths", hint="write one rule for each path")
    return compiled


def _pattern(condition: Condition) -> re.Pattern[str]:
    try:
        return re.compile(str(condition.value))
    except re.error as error:
        raise ConfigurationError(
            f"routing rule {condition.path!r}: {condition.value!r} is no regular expression: {error}",
            hint="correct the value; in TOML a pattern is easiest in single quotes",
        ) from None


def _same(value: Any, wanted: Any) -> bool:
    """JSON equality: ``true`` is not 1."""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _difference(value: Any, wanted: Any) -> float:
    """Not a number for what cannot be ordered, so that every comparison with it is false."""
    try:
        return float(value) - float(wanted)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return str(wanted).lower() in value.lower()
    return isinstance(value, (list, tuple, dict)) and wanted in value


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "equals": _same,
    "greater_than": lambda value, wanted: _difference(value, wanted) > 0,
    "greater_or_equal": lambda value, wanted: _difference(value, wanted) >= 0,
    "less_than": lambda value, wanted: _difference(value, wanted) < 0,
    "less_or_equal": lambda value, wanted: _difference(value, wanted) <= 0,
    "contains": _contains,
    "starts_with": lambda value, wanted: isinstance(value, str) and value.startswith(str(wanted)),
    "ends_with": lambda value, wanted: isinstance(value, str) and value.endswith(str(wanted)),
    "matches": lambda value, wanted: (
        isinstance(value, str) and wanted.search(value[:MAX_MATCHED_CHARACTERS]) is not None
    ),
    "in": lambda value, wanted: _contains(wanted, value),
    "is_empty": lambda value, _: value in (None, "", [], {}),
}
