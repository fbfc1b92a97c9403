"""``${VAR}`` and ``${VAR:-default}`` in the strings of a parsed file."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from agent2389.config.environment import read_variable

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

Report = Callable[[str, str, str | None], None]
"""Takes key, reason, suggestion."""


def expand(value: Any, key: str, environ: Mapping[str, str], report: Report) -> Any:
    """A copy of ``value`` with every placeholder replaced; unset names are reported, not raised."""
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda found: _lookup(found, key, environ, report), value)
        case list():
            return [expand(item, key, environ, report) for item in value]
        case dict():
            return {
                name: expand(item, f"{key}.{name}" if key else name, environ, report)
                for name, item in value.items()
            }
        case _:
            return value


def _lookup(found: re.Match[str], key: str, environ: Mapping[str, str], report: Report) -> str:
    name, default = found[1], found[2]
    value = read_variable(environ, name)
    if value is not None:
        return value
    if default is not None:
        return default
    report(key, f"environment variable {name} is not set", f"export {name}=…")
    return ""
