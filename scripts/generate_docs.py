"""Writes the pages of docs/ that follow from the program: settings, metrics, commands, tools, rights.

Run: scripts/docs (writes) or scripts/docs --check (exit 1 and a diff when a page is out of date),
each with a folder other than docs/ if need be.
"""

import difflib
import enum
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer
from describe_tools import tools
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from agent2389.broker.access import PURPOSES, RULES, Access, Role
from agent2389.cli.main import app
from agent2389.config.environment import OVERRIDES, VARIABLES
from agent2389.config.model import AgentConfiguration
from agent2389.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Written by scripts/docs; change the program, not this page. -->\n\n"
WIDTH = 100
HIDDEN = {"sha256", "path", "llm.api_key_name"}


# settings ----------------------------------------------------------------------------


def remarks() -> dict[str, str]:
    """Dotted key → what the annotated example says of it: beside the key, or in the lines above it."""
    found: dict[str, str] = {}
    table, above = "", ""
    for line in (ROOT / "agents" / "examples" / "annotated.toml").read_text().splitlines():
        if header := re.match(r"^\[+([A-Za-z_.]+)\]+", line):
            table, above = f"{header[1]}.", ""
        elif setting := re.match(r"^(?:# )?([a-z_]+) = ([^#]*)(?:#\s*(.*))?$", line):
            key = setting[1]
            for suffix in ("_env", "_file"):
                if key.endswith(suffix) and key not in ("prompt_file", "ca_file"):
                    key = key.removesuffix(suffix)
            found[table + key] = (setting[3] or above).strip()
            above = ""
        else:
            above = line.removeprefix("#").strip() if line.startswith("#") else ""
    return found


def settings() -> str:
    told = remarks()
    names: dict[str, list[str]] = {}
    for variable in OVERRIDES:
        names.setdefault(variable.key, []).append(variable.name)
    tables: list[str] = []
    top = [
        _row(key, field, told, names)
        for key, field in AgentConfiguration.model_fields.items()
        if _model_of(field.annotation) is None and key not in HIDDEN
    ]
    tables.append(_table("Top level", "Keys before the first table.", top))
    for key, model, text in _sections(AgentConfiguration, ""):
        rows = [
            _row(f"{key}.{name}", field, told, names)
            for name, field in model.model_fields.items()
            if f"{key}.{name}" not in HIDDEN and _model_of(field.annotation) is None
        ]
        tables.append(_table(f"[{key}]", text, rows))
    return (
        "# Configuration\n\n" + NOTICE + "An agent is one TOML file; `agents/examples/annotated.toml` shows "
        "every key in use, `agent2389 config --schema` prints the JSON Schema for editors, "
        "`agent2389 config --show` every value with its origin.\n\n"
        "A flag beats the environment, the environment beats the file, the file beats the default. A secret never "
        'stands in the file: write `KEY_env = "NAME"`, `KEY_file = "path"` or `"${NAME}"` '
        '(`"${NAME:-default}"` for anything else).\n\n' + "\n".join(tables) + "\n" + _environment()
    )


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel], str]]:
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            continue
        mark = {tuple: "[]", dict: ".NAME"}.get(get_origin(field.annotation), "")  # type: ignore[call-overload]
        key = f"{prefix}{name}{mark}"
        text = " ".join((inner.__doc__ or "").split()).replace("``", "`")
        text = re.sub(r"^`\[+[^`]*`[:.] ?", "", text)
        yield key, inner, text[:1].upper() + text[1:]
        yield from _sections(inner, f"{key}.")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation, also inside ``tuple[...]``, ``dict[...]`` and ``... | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def _row(
    key: str, field: FieldInfo, told: dict[str, str], names: dict[str, list[str]]
) -> tuple[str, str, str, str, str]:
    bare = key.replace("[]", "").replace(".NAME", ".offline" if key.startswith("llm.") else "")
    environ = ", ".join(f"`{name}`" for name in names.get(key, []))
    return (
        f"`{key.rpartition('.')[2]}`",
        _type(field.annotation),
        _default(field),
        environ or "-",
        told.get(bare, "") or "-",
    )


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not Ellipsis]
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{item.value}`" for item in annotation)
    plain = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true, false",
        Path: "path",
        SecretStr: "secret",
    }
    return plain.get(annotation, "any")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    match field.default:
        case None | () | "":
            return "-"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case tuple() as value:
            return f"`{list(value)}`".replace("'", '"')
        case dict():
            return "-"
        case value:
            return f"`{value}`"


def _table(title: str, text: str, rows: list[tuple[str, str, str, str, str]]) -> str:
    if title.endswith("[]]"):
        title = f"[{title.replace('[]', '')}]"
    lines = [f"## `{title}`" if title.startswith("[") else f"## {title}", ""]
    lines += [text, ""] if text else []
    lines += ["| key | value | default | environment | meaning |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def _environment() -> str:
    lines = [
        "## Environment",
        "",
        "Every secret also works as `NAME_FILE`, the path of a file that holds it. An empty value is none.",
        "",
        "| name | sets | meaning |",
        "|---|---|---|",
    ]
    for variable in VARIABLES:
        mark = " (secret)" if variable.secret else ""
        lines.append(f"| `{variable.name}` | `{variable.key}` | {variable.meaning}{mark} |")
    return "\n".join([*lines, ""])


# metrics -----------------------------------------------------------------------------


def metrics() -> str:
    rows = []
    for collector in Metrics("0").registry._collector_to_names:  # noqa: SLF001 - there is no public list
        described = next(iter(collector.describe()), None) or next(iter(collector.collect()))
        labels = getattr(collector, "_labelnames", ())
        suffix = "_total" if described.type == "counter" else ""
        shown = ", ".join(f"`{label}`" for label in labels) or "-"
        rows.append((f"`{described.name}{suffix}`", described.type, shown, described.documentation))
    lines = ["| name | type | labels | what |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in sorted(rows)]
    return (
        "# Metrics\n\n"
        + NOTICE
        + "`/metrics` of the ops service and of each agent, in Prometheus' text format. Seconds, bytes and US "
        "dollars are base units; no label carries an id of a job or a task. Each process fills what it knows: agents the "
        "counts of their own tasks, model and tool calls, ops the fleet and the ledger.\n\n"
        + "\n".join(lines)
        + "\n"
    )


# commands ----------------------------------------------------------------------------


def commands() -> str:
    root = typer.main.get_command(app)
    pages = [_help(root, ["agent2389"])]
    pages += [_help(command, path) for path, command in _walk(root, ["agent2389"])]
    return (
        "# Commands\n\n" + NOTICE + "Data goes to stdout, messages to stderr; `--json` prints one document "
        '`{"data": …, "meta": …}`. Exit codes stand in [operations.md](operations.md#exit-codes). '
        "Job ids may be shortened to a unique beginning; `@last` is the newest.\n\n" + "\n".join(pages)
    )


def _walk(group: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    for name in sorted(getattr(group, "commands", {})):
        command = group.commands[name]
        if not command.hidden:
            yield [*path, name], command
            yield from _walk(command, [*path, name])


def _help(command: Any, path: list[str]) -> str:
    names = ["-h", "--help"]
    context = command.context_class(
        command, info_name=" ".join(path), terminal_width=WIDTH, help_option_names=names
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())
    return f"## `{' '.join(path)}`\n\n```text\n{click.unstyle(text)}\n```\n"


# who may do what on the broker -------------------------------------------------------

ROLES_BEGIN, ROLES_END = "<!-- roles: written by scripts/docs -->\n", "<!-- end of roles -->"


def security() -> str:
    """The page as people wrote it, with the table of roles as the program has it."""
    before, _, rest = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition(ROLES_BEGIN)
    roles = [*Role]
    lines = [f"| topic | {' | '.join(roles)} |", "|---" * (len(roles) + 1) + "|"]
    lines += [
        f"| `{rule.kind}` | " + " | ".join(_right(rule.of(role)) for role in roles) + " |" for rule in RULES
    ]
    purposes = [f"- **{role}**: {PURPOSES[role]}" for role in roles]
    told = "r reads, w writes; *own* only what is the agent's, *foreign* only of agents named so."
    table = "\n".join(["", *lines, "", told, "", *purposes, "", ""])
    return before + ROLES_BEGIN + table + ROLES_END + rest.partition(ROLES_END)[2]


def _right(access: Access) -> str:
    cells = [(letter, reach) for letter, reach in (("r", access.read), ("w", access.write)) if reach != "-"]
    if len({reach for _, reach in cells}) == 1:
        cells = [("".join(letter for letter, _ in cells), cells[0][1])]
    return ", ".join(letter if reach == "any" else f"{letter} *{reach}*" for letter, reach in cells) or "-"


# the pages ---------------------------------------------------------------------------

PAGES = {
    "configuration.md": settings,
    "metrics.md": metrics,
    "commands.md": commands,
    "tools.md": lambda: "# Tools\n\n" + NOTICE + tools(),
    "security.md": security,
}


def main() -> None:
    check = "--check" in sys.argv[1:]
    folders = [Path(word) for word in sys.argv[1:] if word != "--check"]
    folder = folders[0] if folders else ROOT / "docs"
    stale = False
    for name, make in PAGES.items():
        path = folder / name
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = make()
        if wanted == known:
            continue
        stale = True
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(
                    known.splitlines(True), wanted.splitlines(True), f"docs/{name}", "the program"
                )
            )
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"docs/{name} written")
    if check and stale:
        print("error: pages are out of date; run scripts/docs", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
