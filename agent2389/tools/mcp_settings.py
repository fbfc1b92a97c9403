"""What the agent's file says about one MCP server."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from agent2389.errors import ConfigurationError
from agent2389.tools.port import Effect
from agent2389.tools.tool_settings import read_settings


class McpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.mcp.servers.NAME]`` or ``[tools] NAME = { mcp = { … } }``.

    Either ``command`` (stdio) or ``url`` (streamable HTTP). ``tools`` is the allow-list, by default the
    names in ``pins``; ``pins`` holds the hash of each tool's name, description and schema.
    ``env_from`` names variables that the process gets; ``headers_env`` maps headers to variables whose
    values are sent after ``header_prefix``. ``effects`` says what repeating a call may do (by default
    ``unsafe``: the program cannot know). Sizes in bytes, times in seconds.
    """

    command: tuple[str, ...] = ()
    url: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    env_from: tuple[str, ...] = ()
    headers_env: dict[str, str] = {}
    header_prefix: str = ""
    tools: tuple[str, ...] | None = None
    pins: dict[str, str] = {}
    unpinned_ok: bool = False
    effects: dict[str, Effect] = {}
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    start_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    max_bytes: Annotated[int, msgspec.Meta(ge=4096, le=64 * 1024 * 1024)] = 4 * 1024 * 1024

    @property
    def allowed(self) -> tuple[str, ...] | None:
        """The allow-list; ``None`` is every tool, which only ``unpinned_ok`` permits."""
        if self.tools is not None:
            return self.tools
        return tuple(self.pins) if self.pins or not self.unpinned_ok else None


def read_mcp_settings(name: str, values: Mapping[str, Any]) -> McpSettings:
    """The settings of server ``name``. Raises ``ConfigurationError``."""
    where = f"mcp server {name}"
    settings = read_settings(values, McpSettings, where=where)
    if bool(settings.command) == (settings.url is not None):
        raise ConfigurationError(
            f"{where}: give it either command = [...] or url", hint="exactly one of them"
        )
    if settings.url is not None:
        address = urlsplit(settings.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigurationError(f"{where}: url is no http(s) URL")
        if address.username or address.password:
            raise ConfigurationError(f"{where}: a secret must not stand in the file", hint="use headers_env")
        if settings.headers_env and address.scheme == "http" and not _is_loopback(address.hostname):
            raise ConfigurationError(
                f"{where}: headers with secrets would go over http:// in plain text", hint="use https://"
            )
    return settings


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
