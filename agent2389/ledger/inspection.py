"""Reading a live ledger for what must hold, on a connection of its own."""

from collections.abc import Sequence
from typing import Any, Self, TypeVar

import msgspec

from agent2389.ledger import queries
from agent2389.ledger.postgres_session import Session
from agent2389.ledger.states import TRANSITIONS
from agent2389.ledger.views import AgentRow, Unsent

PATIENCE_SECONDS = 300.0
"""A million rows take their time; nobody waits behind these reads."""
SHOWN = 20
GROUPS = ("jobs", "tasks", "limits", "effects", "board", "house")

SQL = queries.load("fsck.sql")
Answer = TypeVar("Answer")


class Problem(msgspec.Struct, frozen=True):
    """Something that should not be. With an ``age`` below ``patience`` (seconds) it may still go away.

    ``times`` counts what it stands for: of many problems with one invariant only some are told.
    """

    invariant: str
    subject: str
    message: str
    age: float | None = None
    patience: float | None = None
    times: int = 1

    @property
    def is_settling(self) -> bool:
        """Whether it is too early to call it a violation."""
        return self.age is not None and self.patience is not None and self.age < self.patience


class RetainedTopic(msgspec.Struct, frozen=True):
    """A topic the broker must hold: ``kind`` and ``key`` as on the board, ``age`` in seconds."""

    kind: str
    key: tuple[str, ...]
    payload: str
    age: float


class Recovery(msgspec.Struct, frozen=True):
    """A task whose owner died; times in seconds since 1970 on the ledger's clock."""

    task_id: str
    agent_id: str | None
    claimed_at: float
    noticed_at: float
    claimed_again_at: float | None


class Link(msgspec.Struct, frozen=True):
    """One link of the sealed chain; ``at`` is ISO 8601 in UTC, ``hash`` over it and the one before."""

    number: int
    at: str
    type: str
    job_id: str
    task_id: str | None
    data: dict[str, Any]
    hash: str


class Identity(msgspec.Struct, frozen=True):
    """Whose ledger it is."""

    tenant: str | None


class Inspector:
    """What an operator may ask of the ledger beside the work. Every method raises ``Unreachable``."""

    def __init__(self, session: Session, tenant: str) -> None:
        self._session = session
        self.tenant = tenant

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """Connect as an operator. Raises ``NotAllowed``, ``ConfigurationError``, ``Unreachable``."""
        session = Session(dsn, role="agent2389_operator", patience=PATIENCE_SECONDS)
        try:
            identity = msgspec.json.decode(await session.value(SQL["identity"]), type=Identity)
        except BaseException:
            await session.close()
            raise
        return cls(session, identity.tenant or "")

    async def problems(self) -> Sequence[Problem]:
        """Everything in the ledger that breaks an invariant or may still settle."""
        found: list[Problem] = []
        for group in GROUPS:
            found += await self._ask(tuple[Problem, ...], "fsck", group, SHOWN)
        found += [
            Problem("I14", f"event {number}", "does not follow from the one before it in the sealed chain")
            for number in await self.broken_links()
        ]
        known = await self._ask(tuple[tuple[str, str], ...], "transitions")
        differs = {*known} ^ {(before.value, after.value) for before, after in TRANSITIONS}
        found += [
            Problem("I9", f"{before} to {after}", "is legal in one of database and program")
            for before, after in sorted(differs)
        ]
        return found

    async def broken_links(self) -> Sequence[int]:
        """Numbers of sealed events that do not follow from the ones before them; the first of many."""
        return await self._ask(tuple[int, ...], "broken_links", SHOWN)

    async def audit(self, before: int | None, most: int) -> Sequence[Link]:
        """At most ``most`` links, those with the highest numbers (below ``before``), oldest first."""
        return await self._ask(tuple[Link, ...], "audit", before, most)

    async def retained(self) -> Sequence[RetainedTopic]:
        """What the broker must hold."""
        return await self._ask(tuple[RetainedTopic, ...], "retained")

    async def repair(self) -> dict[str, int]:
        """Set right what needs no guess and have every retained topic sent again; how often each was done."""
        done = await self._ask(dict[str, int], "repair")
        await self._session.value(SQL["refresh_board"])
        await self._session.value(SQL["board_reset"])
        return done

    async def recoveries(self, since: float) -> Sequence[Recovery]:
        """Tasks whose owner died after ``since`` (seconds since 1970)."""
        return await self._ask(tuple[Recovery, ...], "recoveries", since)

    async def event_counts(self) -> dict[str, int]:
        """How often each type of event was written."""
        return await self._ask(dict[str, int], "event_counts")

    async def agents(self) -> Sequence[AgentRow]:
        """Incarnations of the last day, with how many tasks each owns now."""
        return await self._ask(tuple[AgentRow, ...], "agents")

    async def job_counts(self) -> dict[str, int]:
        """Jobs by state."""
        return await self._ask(dict[str, int], "job_counts")

    async def unsent(self) -> Unsent:
        """What is not sent yet."""
        return await self._ask(Unsent, "unsent")

    async def close(self) -> None:
        """Give back the connection."""
        await self._session.close()

    async def _ask(self, kind: type[Answer], name: str, *arguments: Any) -> Answer:
        return msgspec.json.decode(await self._session.value(SQL[name], *arguments), type=kind)
