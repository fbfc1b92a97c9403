"""Verbs for agent files: validate, config, new agent."""

import asyncio
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent2389.cli import output
from agent2389.config.load import Loaded, find_file, load_agent
from agent2389.config.show import schema, shown
from agent2389.errors import Agent2389Error, ConfigurationError, Conflict, InputRefused
from agent2389.wire.names import is_identifier

if TYPE_CHECKING:
    from agent2389.wiring.online import Finding


def validate(paths: Sequence[Path], *, as_json: bool, online: bool) -> None:
    """Check files; every problem of every file is told before the exit code."""
    reports: list[dict[str, Any]] = []
    code = 0
    for path in paths or [find_file(os.environ)]:
        report, failed = _report(path, online=online)
        reports.append(report)
        code = code or failed
    if as_json:
        output.document(reports)
    else:
        for report in reports:
            _print(report)
    if code:
        raise SystemExit(code)


def _report(path: Path, *, online: bool) -> tuple[dict[str, Any], int]:
    """What is wrong with one file, and the exit code for it."""
    code = 0
    warnings: list[str] = []
    try:
        loaded = load_agent(path)
        warnings = [item.render() for item in loaded.warnings] + _check_tools(loaded)
    except ConfigurationError as error:
        problems, code = list(error.problems) or [str(error)], error.exit_code
    else:
        found = _online(loaded) if online else []
        problems = [finding.render() for finding in found]
        code = found[0].error.exit_code if found else 0
    return {"file": str(path), "ok": not problems, "problems": problems, "warnings": warnings}, code


def _print(report: dict[str, Any]) -> None:
    for line in report["problems"]:
        output.say(f"error: {line}")
    for line in report["warnings"]:
        output.say(f"warning: {line}")
    if report["ok"]:
        output.data(f"{report['file']}: ok")


def _online(loaded: Loaded) -> "list[Finding]":
    from agent2389.telemetry.logs import configure_logging  # noqa: PLC0415 - only --online needs them
    from agent2389.wiring.online import findings  # noqa: PLC0415

    configure_logging("critical")  # findings say the same and more
    return asyncio.run(findings(loaded))


def _check_tools(loaded: Loaded) -> list[str]:
    from agent2389.tools.configured import is_server, mistakes  # noqa: PLC0415 - help stays fast
    from agent2389.tools.registry import is_known_tool, is_known_toolkit  # noqa: PLC0415

    configuration = loaded.configuration
    if problems := mistakes(configuration):
        raise ConfigurationError("the settings of tools are wrong", problems=problems)
    lines = [
        f"tools.{entry.name}: this version has no such tool; `run` would stay not ready"
        for entry in configuration.tools
        if not is_known_tool(entry.name) and not is_server(entry)
    ]
    return lines + [
        f"toolkits: this version has no toolkit {name!r}; it is skipped"
        for name in configuration.toolkits
        if not is_known_toolkit(name)
    ]


def config(path: Path | None, *, show: bool, as_schema: bool, as_json: bool) -> None:
    """``config --show`` (masked, with origins) or ``config --schema``."""
    if as_schema:
        output.data(json.dumps(schema(), indent=2))
        return
    if not show:
        raise InputRefused("invalid", "say --show or --schema")
    rows = shown(load_agent(path or find_file(os.environ)))
    if as_json:
        output.document({key: {"value": value, "origin": origin} for key, value, origin in rows})
    else:
        output.table(
            [(key, json.dumps(value, ensure_ascii=False), origin) for key, value, origin in rows],
            ("key", "value", "origin"),
        )


def new_agent(name: str, template: str, folder: Path) -> None:
    """Write a new agent file from a template."""
    if not is_identifier(name):
        raise InputRefused("invalid", "an agent's name must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    source = files("agent2389.config") / "templates" / f"{template}.toml"
    if not source.is_file():
        raise InputRefused("invalid", f"there is no template {template!r}", hint="basic, routing or tools")
    target = folder / f"{name}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8").replace("{{AGENT_ID}}", name))
    except FileExistsError:
        raise Conflict(f"{target} exists already", hint="choose another name") from None
    except OSError as error:
        raise Agent2389Error(f"{target}: {error.strerror}") from None
    output.data(str(target))
    output.say(f"next: agent2389 validate {target}, then agent2389 run {target}")
