"""Makes the databases of a test run those of one mutant, on a server that runs already."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent2389.ledger import embedded, migrate
from agent2389.ledger.states import TRANSITIONS
from tests.support import postgres
from tests.support.guard_mutants import MUTANTS, Mutant, mutated


class _Running(msgspec.Struct, frozen=True):
    dsn: str


def _install(dsn: str, mutant: Mutant | None) -> None:
    @asynccontextmanager
    async def running(data: Path) -> AsyncIterator[_Running]:
        (data / "postgres.location").write_text(f"{data}\n", encoding="utf-8")
        yield _Running(dsn)

    embedded.embedded_postgres = running  # type: ignore[assignment]
    postgres.TEMPLATE = f"mutant_{os.getpid()}"
    if mutant is None:
        return
    shipped = migrate.shipped()
    migrate.shipped = lambda: mutated(shipped, mutant)
    if mutant.pair is not None:
        setattr(migrate, "TRANSITIONS", TRANSITIONS ^ {mutant.pair})  # noqa: B010 - it is not its own


if "MUTANT_DSN" in os.environ:
    _name = os.environ.get("MUTANT", "")
    _install(os.environ["MUTANT_DSN"], next((item for item in MUTANTS if item.name == _name), None))
