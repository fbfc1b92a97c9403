"""Toolkits that read settings, and what the agent's file says about each."""

from collections.abc import Callable, Mapping
from typing import Any

from agent2389.config.model import AgentConfiguration, ToolEntry
from agent2389.errors import ConfigurationError
from agent2389.telemetry.imports import later
from agent2389.tools.port import Toolkit, ToolSettings
from agent2389.tools.third_party import installed, make_third_party

MCP = "mcp"
"""In ``toolkits`` it stands for all of ``[toolkit_config.mcp.servers]``; one of them is ``mcp.NAME``."""


CONFIGURED: Mapping[str, Callable[[ToolSettings], Toolkit]] = {
    "web": later("agent2389.tools.web", "WebToolkit"),
    "http": later("agent2389.tools.http_request", "HttpToolkit"),
    "s3": later("agent2389.tools.s3", "S3Toolkit"),
    "dev": later("agent2389.tools.dev", "DevToolkit"),
    "todo": later("agent2389.tools.todo", "TodoToolkit"),
    "neo4j": later("agent2389.tools.graph", "GraphToolkit"),
}
_mcp_toolkit: Callable[[str, ToolSettings], Toolkit] = later("agent2389.tools.mcp_toolkit", "McpToolkit")


def make_configured(name: str, configuration: AgentConfiguration) -> Toolkit | None:
    """The toolkit ``name`` with its settings, ours before one of another package; ``None``: there is none.

    Raises ``ConfigurationError`` when the other package is broken.
    """
    if name.startswith(f"{MCP}."):
        server = name.removeprefix(f"{MCP}.")
        values = server_tables(configuration).get(server)
        proxy = configuration.network.proxy
        return None if values is None else _mcp_toolkit(server, ToolSettings(values=values, proxy=proxy))
    make = CONFIGURED.get(name)
    if make is None:
        return make_third_party(name, _settings({name}, name, configuration))
    return make(settings_for(name, configuration))


def settings_for(name: str, configuration: AgentConfiguration) -> ToolSettings:
    """``[toolkit_config.NAME]`` and over it the ``[tools]`` entries of that toolkit's tools."""
    own = {tool.name for tool in CONFIGURED[name](ToolSettings()).tools()} | {name}
    return _settings(own, name, configuration)


def _settings(own: set[str], name: str, configuration: AgentConfiguration) -> ToolSettings:
    entries = [entry for entry in configuration.tools if entry.name in own]
    values: dict[str, Any] = dict(configuration.toolkit_config.get(name, {}))
    for entry in entries:
        values |= entry.config
    return ToolSettings(
        values=values,
        implementations={entry.name: entry.impl for entry in entries},
        api_keys={entry.name: entry.api_key.get_secret_value() for entry in entries if entry.api_key},
        proxy=configuration.network.proxy,
    )


def is_server(entry: ToolEntry) -> bool:
    """Whether a ``[tools]`` entry is a whole MCP server: ``NAME = { mcp = { … } }``."""
    return isinstance(entry.config.get(MCP), dict)


def server_tables(configuration: AgentConfiguration) -> dict[str, Mapping[str, Any]]:
    """Name → table of every MCP server in the file, required ones over optional ones."""
    listed = configuration.toolkit_config.get(MCP, {}).get("servers", {})
    tables = {name: table for name, table in listed.items() if isinstance(table, dict)}
    return tables | {entry.name: entry.config[MCP] for entry in configuration.tools if is_server(entry)}


def optional_servers(configuration: AgentConfiguration) -> list[str]:
    """Toolkit names of the servers that ``toolkits = ["mcp"]`` stands for."""
    listed = configuration.toolkit_config.get(MCP, {}).get("servers", {})
    return [f"{MCP}.{name}" for name in listed]


def mistakes(configuration: AgentConfiguration) -> list[str]:
    """One line for each toolkit of the file whose settings are wrong; opens nothing."""
    names = [name for name in CONFIGURED if _is_used(name, configuration)]
    named = (*configuration.toolkits, *(entry.name for entry in configuration.tools))
    names += [name for name in dict.fromkeys(named) if name in installed() and name not in CONFIGURED]
    lines = []
    for name in [*names, *(f"{MCP}.{server}" for server in server_tables(configuration))]:
        try:
            toolkit = make_configured(name, configuration)
            check = getattr(toolkit, "check", None)
            if toolkit is not None and check is not None and (name.startswith(MCP) or not toolkit.missing()):
                check()
        except ConfigurationError as error:
            lines.append(f"{error}" + (f" ({error.hint})" if error.hint else ""))
    return lines


def _is_used(name: str, configuration: AgentConfiguration) -> bool:
    own = {tool.name for tool in CONFIGURED[name](ToolSettings()).tools()} | {name}
    entries = {entry.name for entry in configuration.tools}
    return name in configuration.toolkits or name in configuration.toolkit_config or bool(own & entries)
