"""One live connection to an MCP server, in a task of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types
import structlog
from mcp import Client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from agent2389 import __version__
from agent2389.errors import ToolFailed
from agent2389.tools.mcp_pins import Offer
from agent2389.tools.mcp_settings import McpSettings
from agent2389.tools.mcp_transport import Streams, capped_http, child_process

MAX_PAGES = 20
MAX_TOOLS = 500
CLOSE_SECONDS = 10.0
_BROKEN = (
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    httpx2.HTTPError,
    OSError,
)

log = structlog.get_logger(__name__)


class ServerGone(ToolFailed):
    """The connection is over; the next call opens another."""


class CallRefused(ToolFailed):
    """The server answered this call with an error; the message is the server's own."""


class McpConnection:
    """``open``, then ``offers`` and ``call`` from any task, then ``close``.

    The SDK's context has to be entered and left by one task, so it lives in one of ours.
    """

    def __init__(
        self,
        name: str,
        settings: McpSettings,
        *,
        environ: Mapping[str, str],
        headers: Mapping[str, str],
        proxy: str | None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._environ = environ
        self._headers = headers
        self._proxy = proxy
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self.list_changed = False
        """The server said that its tools are other ones now."""

    @property
    def alive(self) -> bool:
        """Whether the connection was opened and has not ended."""
        running = self._task is not None and not self._task.done()
        return running and self._client is not None and not self._end.is_set()

    async def open(self) -> None:
        """Connect and shake hands. Raises ``ToolFailed``."""
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready), name=f"mcp.{self._name}")
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                self._client = await ready
        except TimeoutError:
            await self.close()
            seconds = self._settings.start_seconds
            raise ToolFailed(f"the MCP server did not answer within {seconds:g} seconds") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection, and the server process when it is ours."""
        self._end.set()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
        for task in late:
            log.warning("an MCP connection does not end", server=self._name)
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)
        self._client = None

    async def offers(self) -> list[Offer]:
        """All tools of the server. Raises ``ToolFailed``."""
        found: list[Offer] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            client = self._connected()
            async with self._failures("listing its tools"):
                async with asyncio.timeout(self._settings.seconds):
                    page = await client.list_tools(cursor=cursor)
            found += [Offer(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
            if len(found) > MAX_TOOLS:
                raise ToolFailed(f"the MCP server offers more than {MAX_TOOLS} tools", retryable=False)
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ToolFailed("the MCP server's list of tools does not end", retryable=False)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> mcp_types.CallToolResult:
        """Call a tool. Raises ``ServerGone``, ``CallRefused`` and ``ToolFailed``."""
        client = self._connected()
        async with self._failures("calling the tool"):
            async with asyncio.timeout(self._settings.seconds):
                return await client.call_tool(tool, dict(arguments))

    def _connected(self) -> Client:
        if not self.alive or self._client is None:
            raise ServerGone("the MCP server has ended")
        return self._client

    @contextlib.asynccontextmanager
    async def _failures(self, doing: str) -> AsyncIterator[None]:
        try:
            yield
        except TimeoutError:
            raise ToolFailed(f"the MCP server took longer than {self._settings.seconds:g} seconds") from None
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                self._end.set()
                raise ServerGone(f"the MCP server ended while {doing}") from None
            raise CallRefused(f"the MCP server refuses: {error.message[:500]}") from None
        except _BROKEN as error:
            self._end.set()
            raise ServerGone(f"the connection broke while {doing} ({type(error).__name__})") from None
        except (ValidationError, ValueError, RuntimeError) as error:
            raise ToolFailed(f"the MCP server's answer is broken ({type(error).__name__})") from None

    def _transport(self) -> AbstractAsyncContextManager[Streams]:
        settings = self._settings
        if settings.url is not None:
            return capped_http(
                settings.url,
                self._headers,
                max_bytes=settings.max_bytes,
                seconds=settings.seconds,
                proxy=self._proxy,
            )
        return child_process(
            self._name,
            settings.command,
            self._environ,
            cwd=Path(settings.cwd) if settings.cwd else None,
            max_bytes=settings.max_bytes,
            on_end=self._end.set,
        )

    async def _live(self, ready: asyncio.Future[Client]) -> None:
        """Hold the connection until ``close``; whoever waits for ``ready`` gets what went wrong."""
        try:
            async with Client(
                self._transport(),
                read_timeout_seconds=self._settings.seconds,
                message_handler=self._on_message,
                client_info=mcp_types.Implementation(name="agent2389", version=__version__),
                cache=None,
            ) as client:
                ready.set_result(client)
                await self._end.wait()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - an SDK may raise anything; it becomes a reason
            reason = _reason(error)
            if not ready.done():
                ready.set_exception(ToolFailed(f"the MCP server cannot be used: {reason}"))
            elif not self._end.is_set():
                log.warning("an MCP connection ended", server=self._name, reason=reason)

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.list_changed = True


def _reason(error: BaseException) -> str:
    """The innermost cause in few words; its text only where it cannot hold an address or a header."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case FileNotFoundError() | PermissionError():
            return f"its program cannot be started ({error.strerror})"
        case MCPError():
            return error.message[:200]
        case _:
            return type(error).__name__
