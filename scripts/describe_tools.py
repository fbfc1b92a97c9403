"""The page of docs/ about tools: what each toolkit holds, needs, may be told, and what repeating a call does."""

import inspect
import sys
from typing import Any, get_args

import msgspec

from agent2389.tools.configured import CONFIGURED
from agent2389.tools.port import Toolkit, ToolSettings
from agent2389.tools.registry import BUILTIN_TOOLS, ON_THE_DOSSIER, TOOLKITS

OPENING = """\
`toolkits = ["workspace", "todo"]` names bundles that are skipped with a reason where they cannot work;
an entry of `[tools]` is required, and keeps the agent not ready where it cannot. `agent2389 tools list` opens
what a file names and tells what works and why the rest does not. A job may remove toolkits and add those that
the agent's file has, no others.

Arguments are checked against each tool's schema before the tool sees them, every call has a time limit, every
answer a cap. *Effect* is what a second call with the same arguments may do: `pure` nothing, `idempotent` the
same again, `keyed` nothing as long as the other side heeds the key, `unsafe` harm: such a call is never
repeated without asking.
"""


def tools() -> str:
    """The whole page."""
    made: dict[str, Toolkit] = {name: make() for name, make in TOOLKITS.items()}
    made |= {name: make(None) for name, make in ON_THE_DOSSIER.items()}
    made |= {name: make(ToolSettings()) for name, make in CONFIGURED.items()}
    others = [f"`{other}` is `{name}` of `{kit}`" for other, (kit, name) in BUILTIN_TOOLS.items()]
    parts = [_toolkit(name, made[name]) for name in sorted(made)]
    return f"{OPENING}\nOther names in `[tools]`: {', '.join(others)}.\n\n" + "\n".join(parts)


def _toolkit(name: str, toolkit: Toolkit) -> str:
    needs = " ".join((inspect.getdoc(type(toolkit).missing) or "").split()).replace("``", "`")
    lines = [f"## `{name}`", "", needs, ""]
    lines += ["| tool | effect | seconds | characters | what it does |", "|---|---|---|---|---|"]
    lines += [
        f"| `{tool.name}` | {tool.effect.value} | {tool.timeout:g} | {tool.output_cap:,} | {tool.description} |"
        for tool in toolkit.tools()
    ]
    form = _settings_of(toolkit)
    return "\n".join(lines) + "\n" + (_settings(name, form) if form else "")


def _settings_of(toolkit: Toolkit) -> type[msgspec.Struct] | None:
    """The struct that the toolkit's module reads its table into: ``WebSettings`` beside ``WebToolkit``."""
    wanted = type(toolkit).__name__.replace("Toolkit", "Settings")
    return getattr(sys.modules[type(toolkit).__module__], wanted, None)


def _settings(name: str, form: type[msgspec.Struct]) -> str:
    text = " ".join((form.__doc__ or "").split()).replace("``", "`")
    lines = ["", text, "", f"| `[toolkit_config.{name}]` | value | default |", "|---|---|---|"]
    for field in msgspec.structs.fields(form):
        lines.append(f"| `{field.encode_name}` | {_type(field.type)} | {_default(field)} |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    parts = [part for part in get_args(annotation) if part not in (Ellipsis, type(None))]
    if parts and all(isinstance(part, str) for part in parts):
        return ", ".join(f"`{part}`" for part in parts)
    if getattr(annotation, "__origin__", None) is tuple:
        return f"list of {_type(parts[0])}"
    if getattr(annotation, "__origin__", None) is dict:
        return "table"
    if parts:
        return _type(parts[0])
    return {str: "text", int: "integer", float: "number", bool: "true, false"}.get(annotation, "any")


def _default(field: Any) -> str:
    if field.default is msgspec.NODEFAULT:
        return "required" if field.default_factory is msgspec.NODEFAULT else "-"
    if field.default in (None, ()):
        return "-"
    return f"`{msgspec.json.encode(field.default).decode()}`"
