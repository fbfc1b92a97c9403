"""The ops service's API as the command line uses it."""

import contextlib
import getpass
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from agent2389.config.process import load_process
from agent2389.errors import (
    Agent2389Error,
    Conflict,
    InputRefused,
    NotAllowed,
    NotFound,
    Unreachable,
)
from agent2389.launch.folder import read_mesh


class Client:
    """One session. Problems of the service become our errors."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self.address = address

    async def get(self, path: str, **query: Any) -> Any:
        """A JSON answer."""
        return (await self.ask("GET", path, params=query))[1]

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and JSON answer. Raises one of our errors for a problem."""
        try:
            async with self._session.request(method, self.address + path, **options) as response:
                body = await response.json(content_type=None)
                if response.status >= 400 and response.content_type == "application/problem+json":
                    raise _error(response.status, body)
                return response.status, body
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._away(error) from None

    async def content(self, path: str) -> bytes:
        """The bytes of a blob. Raises one of our errors for a problem."""
        try:
            async with self._session.get(self.address + path) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.json(content_type=None))
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._away(error) from None

    async def lines(self, path: str) -> AsyncIterator[str]:
        """The ``data:`` lines of a stream."""
        try:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            async with self._session.get(self.address + path, timeout=timeout) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.json(content_type=None))
                async for line in response.content:
                    if line.startswith(b"data: "):
                        yield line[6:].decode().strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._away(error) from None

    def _away(self, error: Exception) -> Unreachable:
        return Unreachable(
            "API",
            f"{self.address} does not answer ({type(error).__name__})",
            hint="start a mesh with agent2389 up, or name one with --api or AGENT2389_API",
        )


@contextlib.asynccontextmanager
async def connected(api: str | None) -> AsyncIterator[Client]:
    """A client of the API that flag, environment or the data folder names. Raises ``Unreachable``."""
    process = load_process()
    token = process.health.token.get_secret_value() if process.health.token else None
    address = api or process.api
    if address is None:
        address, token = _from_folder(process.data, token)
    headers = {"X-Actor": _person(), **({"Authorization": f"Bearer {token}"} if token else {})}
    timeout = aiohttp.ClientTimeout(total=150, sock_connect=5)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield Client(session, address.rstrip("/"))


def _person() -> str:
    """Who sits here, for the record: the name at the operating system."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        name = f"uid-{os.getuid()}"
    return "".join(char for char in name if char.isprintable())[:64]


def _from_folder(data: Path, token: str | None) -> tuple[str, str | None]:
    try:
        mesh = read_mesh(data)
    except NotFound as error:
        raise Unreachable(
            "API", f"no API is named and {error}", hint="start a mesh: agent2389 up, or set AGENT2389_API"
        ) from None
    return mesh.api, token or mesh.token


def _error(status: int, body: Any) -> Agent2389Error:
    detail = str(body.get("detail", "")) if isinstance(body, dict) else ""
    code = str(body.get("code", "invalid")) if isinstance(body, dict) else "invalid"
    match status:
        case 401 | 403:
            return NotAllowed(detail or "not allowed", hint="set AGENT2389_TOKEN")
        case 404:
            return NotFound(detail or "not found")
        case 409 | 412:
            return Conflict(detail or "conflict")
        case 503:
            return Unreachable("API", detail or "the service is not ready")
        case status if status >= 500:
            return Agent2389Error(detail or f"the service answered HTTP {status}")
        case _:
            return InputRefused(code, detail or f"refused with HTTP {status}")
