"""Fixtures every test may use, and the guard that keeps tests on this machine."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from agent2389.broker.address import is_loopback
from agent2389.ledger.embedded import embedded_postgres
from tests.support.postgres import Databases


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches for another machine (a model endpoint, say) fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
            assert is_loopback(str(address[0])), f"a test tried to reach {address[0]}"
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that configures the log leaves it as it found it: its stream ends with the test, and a
    logger that remembers its first configuration would never be heard by another test.
    """
    configure = structlog.configure

    def forgetful(**options: object) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})  # type: ignore[arg-type]

    monkeypatch.setattr(structlog, "configure", forgetful)
    yield
    structlog.reset_defaults()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def databases(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Databases]:
    """One real Postgres server for the session, with a migrated template."""
    data = tmp_path_factory.mktemp("postgres")
    async with embedded_postgres(data) as server:
        yield await Databases.on(server.dsn)
    location = Path((data / "postgres.location").read_text().strip())
    if not location.is_relative_to(data):
        import shutil

        shutil.rmtree(location)
