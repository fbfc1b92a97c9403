"""The dossier in Postgres, on a session of the ledger."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from agent2389.errors import LeaseLost, NotFound
from agent2389.ledger import queries
from agent2389.ledger.dossier import (
    MOST_CITATIONS,
    MOST_REQUIREMENTS,
    Citation,
    Edited,
    NewCitation,
    Requirement,
    RequirementChange,
    Source,
)
from agent2389.ledger.postgres_session import Session
from agent2389.ledger.records import Fence

SQL = queries.load("dossier.sql")
Answer = TypeVar("Answer")


class PostgresDossier:
    """``ledger.dossier.Dossier`` on Postgres."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def cite(self, fence: Fence, citation: NewCitation) -> Citation:
        """Keep a citation and its source."""
        return await self._write(Citation, "cite", fence, _json(citation), MOST_CITATIONS)

    async def sources(self, job_id: str) -> Sequence[Source]:
        """The sources of a job."""
        return await self._ask(tuple[Source, ...], "sources", job_id)

    async def citations(
        self, job_id: str, *, source: int | None = None, limit: int = 100
    ) -> Sequence[Citation]:
        """Citations in order."""
        return await self._ask(tuple[Citation, ...], "citations", job_id, source, None, limit)

    async def citation(self, job_id: str, number: int) -> Citation:
        """Raises ``NotFound``."""
        found = await self._ask(tuple[Citation, ...], "citations", job_id, None, number, 1)
        if not found:
            raise NotFound(f"there is no citation {number}")
        return found[0]

    async def add_requirement(self, fence: Fence, text: str, *, priority: str = "must") -> Requirement:
        """Keep a requirement."""
        return await self._write(Requirement, "add_requirement", fence, text, priority, MOST_REQUIREMENTS)

    async def edit_requirement(
        self, fence: Fence, number: int, version: int, change: RequirementChange
    ) -> Edited:
        """Change a requirement."""
        return await self._write(Edited, "edit_requirement", fence, number, version, _json(change))

    async def requirements(self, job_id: str, *, status: str | None = None) -> Sequence[Requirement]:
        """Requirements in order."""
        return await self._ask(tuple[Requirement, ...], "requirements", job_id, status, None)

    async def requirement(self, job_id: str, number: int) -> Requirement:
        """Raises ``NotFound``."""
        found = await self._ask(tuple[Requirement, ...], "requirements", job_id, None, number)
        if not found:
            raise NotFound(f"there is no requirement {number}")
        return found[0]

    async def _write(self, kind: type[Answer], name: str, fence: Fence, *arguments: Any) -> Answer:
        answer = await self._session.value(SQL[name], fence.task_id, fence.epoch, fence.token, *arguments)
        if answer is None:
            raise LeaseLost("somebody else owns the task now")
        return msgspec.json.decode(answer, type=kind)

    async def _ask(self, kind: type[Answer], name: str, *arguments: Any) -> Answer:
        return msgspec.json.decode(await self._session.value(SQL[name], *arguments), type=kind)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
