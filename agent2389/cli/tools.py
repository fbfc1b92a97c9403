"""Verbs for tools: what an agent would offer its model, and pinning MCP servers."""

import os
from pathlib import Path
from typing import Any

from agent2389.cli import output
from agent2389.config.load import find_file, load_agent
from agent2389.config.model import AgentConfiguration
from agent2389.errors import Agent2389Error, NotFound, ToolFailed
from agent2389.telemetry.logs import configure_logging
from agent2389.tools.configured import is_server, make_configured, server_tables
from agent2389.tools.mcp_pins import Offer, check_offer, pin_of
from agent2389.tools.mcp_toolkit import McpToolkit
from agent2389.tools.registry import ToolSet


async def list_tools(path: Path | None, *, as_json: bool) -> None:
    """Open everything that the file names and tell what works, what is skipped and why."""
    configure_logging("critical")  # the table says the same and more
    tools = ToolSet(load_agent(path or find_file(os.environ)).configuration)
    await tools.open()
    try:
        rows = [
            (name, toolkit, tool.effect.value, tool.description) for name, toolkit, tool in tools.offered()
        ]
    finally:
        await tools.close()
    missing = {**tools.skipped, **tools.unavailable}
    if as_json:
        keys = ("name", "toolkit", "effect", "description")
        offered = [dict(zip(keys, row, strict=True)) for row in rows]
        output.document({"tools": offered, "skipped": tools.skipped, "unavailable": tools.unavailable})
    else:
        output.table(
            [(name, toolkit, effect, _short(text)) for name, toolkit, effect, text in rows],
            ("tool", "toolkit", "effect", "description"),
        )
        for name, reason in missing.items():
            output.say(f"{'not available' if name in tools.unavailable else 'skipped'}: {name}: {reason}")
    if tools.unavailable:
        raise SystemExit(ToolFailed.exit_code)


async def pin(path: Path | None, *, server: str | None, as_json: bool) -> None:
    """Print the pins of every MCP server in the file, for pasting into it after reading.

    Descriptions go to standard error (or into ``--json``): they are what the pin vouches for.
    """
    configure_logging("critical")  # what a server says must not end up among the pins
    configuration = load_agent(path or find_file(os.environ)).configuration
    names = [name for name in server_tables(configuration) if server in (None, name)]
    if not names:
        raise NotFound(
            f"this file has no MCP server{f' named {server}' if server else ''}",
            hint="add [toolkit_config.mcp.servers.NAME]",
        )
    documents = [await _pins_of(name, configuration) for name in names]
    if as_json:
        output.document(documents)
        return
    for document in documents:
        output.data(f"[{_table(document['server'], configuration)}.pins]")
        for tool in document["tools"]:
            output.data(f'{_toml_key(tool["name"])} = "{tool["pin"]}"  # {tool["state"]}')
            if tool["state"] != "unchanged":
                output.say(f"{document['server']}.{tool['name']}: {_short(tool['description'], 400)}")
        output.data("")


async def _pins_of(name: str, configuration: AgentConfiguration) -> dict[str, Any]:
    toolkit = make_configured(f"mcp.{name}", configuration)
    assert isinstance(toolkit, McpToolkit)
    if (missing := toolkit.missing()) is not None:
        raise ToolFailed(f"MCP server {name}: {missing}")
    try:
        offers = await toolkit.read_offers()
    except Agent2389Error as error:
        raise ToolFailed(f"MCP server {name}: {error}", hint=error.hint) from None
    finally:
        await toolkit.close()
    allowed, pins = toolkit.form.tools, toolkit.form.pins
    shown = [offer for offer in offers if allowed is None or offer.name in allowed]
    return {"server": name, "tools": [_described(offer, pins.get(offer.name)) for offer in shown]}


def _described(offer: Offer, pinned: str | None) -> dict[str, Any]:
    check_offer(offer)
    pin = pin_of(offer)
    state = "new" if pinned is None else "unchanged" if pinned.removeprefix("sha256:") == pin else "CHANGED"
    return {
        "name": offer.name,
        "pin": pin,
        "state": state,
        "description": offer.description,
        "schema": offer.schema,
    }


def _table(name: str, configuration: AgentConfiguration) -> str:
    required = any(entry.name == name and is_server(entry) for entry in configuration.tools)
    return f"tools.{name}.mcp" if required else f"toolkit_config.mcp.servers.{_toml_key(name)}"


def _toml_key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else f'"{name}"'


def _short(text: str, length: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
