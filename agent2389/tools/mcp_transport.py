"""How bytes go to and from an MCP server: a child process of ours, or capped HTTP."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx2
import structlog
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from agent2389.telemetry import children

INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ")
"""What a server process gets of our environment: nothing that holds a secret."""
END_SECONDS = 2.0
MAX_ERROR_LINE = 500

Streams = tuple[Any, Any]

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def child_process(
    name: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    cwd: Path | None,
    max_bytes: int,
    on_end: Callable[[], None],
) -> AsyncGenerator[Streams]:
    """Start a server on pipes; its whole process group ends with this context, and with our death.

    ``on_end`` is called when nothing more can come from it. The SDK's own transport buffers a line
    without end and leaves the child alone when we are killed.
    Raises ``OSError`` when the program cannot be started.
    """
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**inherited, **environ},
        cwd=cwd,
        limit=max_bytes,
        start_new_session=True,
        preexec_fn=children.die_with_parent(signal.SIGKILL),
    )
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(process, to_session), name=f"mcp.{name}.read"),
        asyncio.create_task(_write(process, from_session), name=f"mcp.{name}.write"),
        asyncio.create_task(_log_errors(name, process), name=f"mcp.{name}.errors"),
    ]
    tasks[0].add_done_callback(lambda _: on_end())
    try:
        yield from_server, to_server
    finally:
        await asyncio.shield(_end(process, tasks))
        for stream in (to_session, from_server, to_server, from_session):
            stream.close()


async def _read(process: asyncio.subprocess.Process, to_session: Any) -> None:
    """One message a line. A line over the limit ends the connection."""
    assert process.stdout is not None
    async with to_session:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                log.warning("an MCP server sent a message over its size limit")
                return
            if not line:
                return
            try:
                message: SessionMessage | Exception = SessionMessage(
                    jsonrpc_message_adapter.validate_json(line, by_name=False)
                )
            except ValueError as error:
                message = error
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await to_session.send(message)


async def _write(process: asyncio.subprocess.Process, from_session: Any) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        async with from_session:
            async for item in from_session:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()


async def _log_errors(name: str, process: asyncio.subprocess.Process) -> None:
    """The server's standard error goes to our log, shortened and redacted there."""
    assert process.stderr is not None
    while piece := await process.stderr.read(4096):
        log.debug("mcp server says", server=name, text=piece[:MAX_ERROR_LINE].decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process, tasks: list[asyncio.Task[None]]) -> None:
    """Close its input, then TERM, then KILL the group: what the protocol asks of a client."""
    assert process.stdin is not None
    process.stdin.close()
    for sign in (None, signal.SIGTERM, signal.SIGKILL):
        if sign is not None:
            # The group too when its leader is gone: a server's own children must not stay.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, sign)
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
                break
        except TimeoutError:
            continue
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def capped_http(
    url: str, headers: Mapping[str, str], *, max_bytes: int, seconds: float, proxy: str | None
) -> AsyncGenerator[Streams]:
    """Streamable HTTP to the configured address; redirects stay within its origin (the SDK's rule)."""
    async with (
        httpx2.AsyncClient(
            transport=_Capped(httpx2.AsyncHTTPTransport(trust_env=False, proxy=proxy), max_bytes),
            headers={**headers, "accept-encoding": "identity"},
            timeout=httpx2.Timeout(seconds, read=seconds),
            trust_env=False,
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=max_bytes) as streams,
    ):
        yield streams


class _Capped(httpx2.AsyncBaseTransport):
    """Ends a plain answer at ``max_bytes``; the SDK caps events of a stream itself."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, max_bytes: int) -> None:
        self._inner = inner
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("the server packs its answers, which was not asked for")
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return response
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _CappedStream(response.stream, self._max_bytes)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _CappedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, left: int) -> None:
        self._inner = inner
        self._left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise httpx2.ReadError("the server's answer is over its size limit")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
