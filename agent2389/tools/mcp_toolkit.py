"""One MCP server as a toolkit: only listed tools, as they were pinned, with capped answers."""

import asyncio
import re
import shutil
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from agent2389.errors import ConfigurationError, ToolFailed
from agent2389.tools.mcp_pins import Offer, check_offer, check_pins, chosen
from agent2389.tools.mcp_settings import McpSettings, read_mcp_settings
from agent2389.tools.port import Call, Effect, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.secret_values import SecretValues

if TYPE_CHECKING:
    from agent2389.tools.mcp_session import McpConnection

OUTPUT_CHARACTERS = 40_000
RECHECK_SECONDS = 300.0
"""How long an unchanged list of tools is believed; servers do not have to announce changes."""
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")

log = structlog.get_logger(__name__)


class McpToolkit:
    """The tools of one server under the names ``SERVER__TOOL``."""

    def __init__(self, server: str, settings: ToolSettings) -> None:
        self.name = f"mcp.{server}"
        self._server = server
        self._settings = settings
        self._secrets = SecretValues()
        self._form = McpSettings()
        self._connection: McpConnection | None = None
        self._connecting = asyncio.Lock()
        self._checked_at = 0.0
        self._offers: list[Offer] = []

    def missing(self) -> str | None:
        """Needs the extra ``mcp`` and, for a server on pipes, its program."""
        if find_spec("mcp") is None:
            return "it needs the optional dependencies 'mcp': pip install 'agent2389[mcp]'"
        command = self._settings.values.get("command")
        if isinstance(command, list) and command and shutil.which(str(command[0])) is None:
            return f"the program {str(command[0])[:200]!r} is not on PATH"
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in the file; looks at nothing else."""
        self._form = read_mcp_settings(self._server, self._settings.values)

    async def open(self) -> None:
        """Connect and compare what the server offers with the pins. Raises ``ToolFailed``."""
        offers = await self.read_offers()
        try:
            self._offers = self._accepted(offers)
        except ToolFailed:
            await self.close()
            raise

    async def read_offers(self) -> list[Offer]:
        """Everything the server offers, judged by nothing: what `agent2389 tools pin` shows."""
        self.check()
        connection = await self._connected()
        try:
            return await connection.offers()
        except ToolFailed:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection and the server process."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def tools(self) -> tuple[Tool, ...]:
        """The accepted tools; none before ``open``."""
        return tuple(self._tool(offer) for offer in self._offers)

    @property
    def form(self) -> McpSettings:
        """The settings, after ``check``."""
        return self._form

    def _tool(self, offer: Offer) -> Tool:
        return Tool(
            name=shown_name(self._server, offer.name),
            description=offer.description or f"{offer.name} of {self._server}",
            parameters=offer.schema,
            call=self._call_of(offer.name),
            effect=self._form.effects.get(offer.name, Effect.UNSAFE),
            # A call may have to start the server anew first.
            timeout=self._form.seconds + self._form.start_seconds + 10,
            output_cap=OUTPUT_CHARACTERS + 1000,
        )

    def _accepted(self, offers: list[Offer]) -> list[Offer]:
        accepted = chosen(offers, self._form.allowed)
        if not accepted:
            raise ToolFailed(
                "none of its tools is allowed: list and pin some: agent2389 tools pin FILE", retryable=False
            )
        for offer in accepted:
            check_offer(offer)
        check_pins(accepted, self._form.pins, unpinned_ok=self._form.unpinned_ok)
        names = [shown_name(self._server, offer.name) for offer in accepted]
        if len(set(names)) != len(names):
            raise ToolFailed("two of its tools would have the same name here", retryable=False)
        return accepted

    def _call_of(self, tool: str) -> Call:
        async def call(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG001
            try:
                connection = await self._verified()
                result = await connection.call(tool, arguments)
            except (ToolFailed, ConfigurationError) as error:
                return ToolOutput(text=self._secrets.hide(str(error)), failed=True, untrusted=True)
            text = self._secrets.hide(text_of(result))
            cut = len(text) > OUTPUT_CHARACTERS
            note = "\n[cut: the answer is longer]" if cut else ""
            return ToolOutput(
                text=(text[:OUTPUT_CHARACTERS] + note) or "[no content]",
                failed=bool(result.is_error),
                untrusted=True,
            )

        return call

    async def _connected(self) -> "McpConnection":
        async with self._connecting:
            if self._connection is None or not self._connection.alive:
                await self.close()
                self._connection = await self._open_connection()
                self._checked_at = 0.0
            return self._connection

    async def _open_connection(self) -> "McpConnection":
        from agent2389.tools.mcp_session import McpConnection  # noqa: PLC0415 - an optional, heavy SDK

        form = self._form
        connection = McpConnection(
            self._server,
            form,
            environ={**form.env, **{name: self._secrets.read(name) for name in form.env_from}},
            headers={
                name: form.header_prefix + self._secrets.read(variable)
                for name, variable in form.headers_env.items()
            },
            proxy=self._settings.proxy,
        )
        await connection.open()
        return connection

    def _compare(self, offers: list[Offer]) -> None:
        if self._accepted(offers) != self._offers:
            raise ToolFailed("the MCP server changed its tools; they are off until the agent is restarted")

    async def _verified(self) -> "McpConnection":
        """A connection whose tools are still those that the model was shown."""
        connection = await self._connected()
        now = time.monotonic()
        if connection.list_changed or now - self._checked_at > RECHECK_SECONDS:
            connection.list_changed = False
            try:
                self._compare(await connection.offers())
            except ToolFailed:
                connection.list_changed = True
                raise
            self._checked_at = now
        return connection


def shown_name(server: str, tool: str) -> str:
    """The name for the model: letters, digits, ``_`` and ``-``, at most 64 of them."""
    return _NOT_IN_NAME.sub("_", f"{server}__{tool}")[:64]


def text_of(result: Any) -> str:
    """The text of a result; what is no text is named with its size."""
    pieces = [_text_of_block(block) for block in result.content]
    if not pieces and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content).decode()
    return "\n".join(pieces)


def _text_of_block(block: Any) -> str:
    match block.type:
        case "text":
            return str(block.text)
        case "image" | "audio":
            return f"[{block.type} {block.mime_type[:60]}, {len(block.data)} characters of base64, not shown]"
        case "resource_link":
            return f"[resource {block.uri}]"
        case "resource":
            inner = getattr(block.resource, "text", None)
            return str(inner) if inner is not None else f"[resource {block.resource.uri}, not text]"
        case other:
            return f"[{other} not shown]"
