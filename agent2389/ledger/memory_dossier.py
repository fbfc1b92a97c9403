"""The dossier in memory: what Postgres' functions do, readable."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from agent2389.errors import InputRefused, LeaseLost, NotFound
from agent2389.ledger.dossier import (
    KINDS,
    MOST_CITATIONS,
    MOST_REQUIREMENTS,
    PRIORITIES,
    STATUSES,
    Citation,
    Edited,
    NewCitation,
    Requirement,
    RequirementChange,
    Source,
)
from agent2389.ledger.memory_owners import judge_fence, refuse
from agent2389.ledger.memory_tables import Key, Tables
from agent2389.ledger.records import Fence

LONGEST = {
    "locator": 2048,
    "title": 500,
    "claim": 4000,
    "quote": 8000,
    "place": 200,
    "text": 4000,
    "note": 4000,
}
NEVER_EMPTY = ("locator", "claim", "text")


class Sheets(msgspec.Struct):
    """All rows of one job's dossier; the number of a row is its place, from 1."""

    sources: list[Source] = []
    citations: list[Citation] = []
    requirements: list[Requirement] = []


class MemoryDossier:
    """``ledger.dossier.Dossier`` for one tenant of some tables."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._tables = tables
        self._tenant = tenant

    async def cite(self, fence: Fence, citation: NewCitation) -> Citation:
        """Keep a citation and its source."""
        sheets, now = self._open(fence, "cite", citation.claim), self._tables.now()
        source = next((row for row in sheets.sources if _is_of(citation, row)), None)
        words = (source and source.number, citation.claim, citation.quote, citation.place)
        for row in sheets.citations:
            if (row.source, row.claim, row.quote, row.place) == words:
                return row
        if len(sheets.citations) >= MOST_CITATIONS:
            raise InputRefused("invalid", f"the job holds {MOST_CITATIONS} citations, the most it may")
        _check(citation, kind=KINDS)
        if source is None:
            source = _source(len(sheets.sources) + 1, citation, now)
            sheets.sources.append(source)
        made = Citation(
            number=len(sheets.citations) + 1,
            source=source.number,
            kind=source.kind,
            locator=source.locator,
            title=source.title,
            claim=citation.claim,
            quote=citation.quote,
            place=citation.place,
            found=citation.found,
            task_id=fence.task_id,
            at=now,
        )
        sheets.citations.append(made)
        return made

    async def sources(self, job_id: str) -> Sequence[Source]:
        """The sources of a job."""
        sheets = self._sheets(job_id)
        counts = [row.source for row in sheets.citations]
        return tuple(
            msgspec.structs.replace(row, citations=counts.count(row.number)) for row in sheets.sources
        )

    async def citations(
        self, job_id: str, *, source: int | None = None, limit: int = 100
    ) -> Sequence[Citation]:
        """Citations in order."""
        found = [row for row in self._sheets(job_id).citations if source in (None, row.source)]
        return tuple(found[:limit])

    async def citation(self, job_id: str, number: int) -> Citation:
        """Raises ``NotFound``."""
        found = next((row for row in self._sheets(job_id).citations if row.number == number), None)
        if found is None:
            raise NotFound(f"there is no citation {number}")
        return found

    async def add_requirement(self, fence: Fence, text: str, *, priority: str = "must") -> Requirement:
        """Keep a requirement."""
        sheets = self._open(fence, "add_requirement", text)
        for row in sheets.requirements:
            if row.text == text:
                return row
        if len(sheets.requirements) >= MOST_REQUIREMENTS:
            raise InputRefused("invalid", f"the job holds {MOST_REQUIREMENTS} requirements, the most it may")
        made = Requirement(
            number=len(sheets.requirements) + 1,
            text=text,
            priority=priority,
            status="open",
            note="",
            version=1,
            task_id=fence.task_id,
            changed_at=self._tables.now(),
        )
        _check(made, priority=PRIORITIES)
        sheets.requirements.append(made)
        return made

    async def edit_requirement(
        self, fence: Fence, number: int, version: int, change: RequirementChange
    ) -> Edited:
        """Change a requirement."""
        sheets = self._open(fence, "edit_requirement", change.note or "")
        if not 0 < number <= len(sheets.requirements):
            raise NotFound(f"there is no requirement {number}")
        kept = sheets.requirements[number - 1]
        wanted = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
        if all(getattr(kept, name) == value for name, value in wanted.items()):
            return Edited("already", kept)
        if kept.version != version:
            return Edited("stale", kept)
        made = msgspec.structs.replace(
            kept, **wanted, version=kept.version + 1, task_id=fence.task_id, changed_at=self._tables.now()
        )
        _check(made, priority=PRIORITIES, status=STATUSES)
        sheets.requirements[number - 1] = made
        return Edited("ok", made)

    async def requirements(self, job_id: str, *, status: str | None = None) -> Sequence[Requirement]:
        """Requirements in order."""
        return tuple(row for row in self._sheets(job_id).requirements if status in (None, row.status))

    async def requirement(self, job_id: str, number: int) -> Requirement:
        """Raises ``NotFound``."""
        found = next((row for row in self._sheets(job_id).requirements if row.number == number), None)
        if found is None:
            raise NotFound(f"there is no requirement {number}")
        return found

    def _open(self, fence: Fence, write: str, evidence: str) -> Sheets:
        task, verdict = judge_fence(self._tables, self._tenant, fence)
        if verdict not in ("ok", "cancel"):
            refuse(self._tables, task, fence, write, evidence)
            raise LeaseLost("somebody else owns the task now")
        dossiers: dict[Key, Sheets] = self._tables.dossiers
        return dossiers.setdefault((self._tenant, task.job_id), Sheets())

    def _sheets(self, job_id: str) -> Sheets:
        found: Sheets = self._tables.dossiers.get((self._tenant, job_id), Sheets())
        return found


def _is_of(citation: NewCitation, source: Source) -> bool:
    return (citation.kind, citation.locator, citation.sha256) == (source.kind, source.locator, source.sha256)


def _source(number: int, citation: NewCitation, now: datetime) -> Source:
    return Source(
        number=number,
        kind=citation.kind,
        locator=citation.locator,
        title=citation.title,
        sha256=citation.sha256,
        citations=0,
        at=now,
    )


def _check(row: msgspec.Struct, **words: tuple[str, ...]) -> None:
    """Raise ``InputRefused`` as the constraints of the tables do."""
    values = msgspec.structs.asdict(row)
    too_long = any(len(values.get(name) or "") > most for name, most in LONGEST.items())
    empty = any(values.get(name) == "" for name in NEVER_EMPTY)
    unknown = any(values[name] not in known for name, known in words.items())
    if too_long or empty or unknown:
        raise InputRefused("invalid", "the ledger refuses a value that no rule of it allows")
