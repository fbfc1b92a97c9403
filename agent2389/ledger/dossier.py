"""The dossier of a job: its sources, citations and requirements as records, and the port to them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from agent2389.ledger.records import Fence

MOST_CITATIONS = 2000
MOST_REQUIREMENTS = 500
KINDS = ("document", "web")
PRIORITIES = ("must", "should", "could")
STATUSES = ("open", "met", "rejected")


class NewCitation(msgspec.Struct, frozen=True, kw_only=True):
    """A claim and what supports it.

    ``kind`` is ``document`` (``locator`` is a file of the workspace, ``sha256`` its content) or ``web``
    (``locator`` is the address). ``quote`` is the supporting text, ``place`` a page or section,
    ``found`` whether the quote was found in the source (``None``: nobody looked).
    """

    kind: str
    locator: str
    claim: str
    title: str = ""
    sha256: str | None = None
    quote: str = ""
    place: str = ""
    found: bool | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Something a job cites; ``number`` counts from 1 within the job."""

    number: int
    kind: str
    locator: str
    title: str
    sha256: str | None
    citations: int
    at: datetime


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """One citation; ``number`` counts from 1 within the job."""

    number: int
    source: int
    kind: str
    locator: str
    title: str
    claim: str
    quote: str
    place: str
    found: bool | None
    task_id: str
    at: datetime


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """Something the job's result has to fulfil; ``version`` grows with every edit."""

    number: int
    text: str
    priority: str
    status: str
    note: str
    version: int
    task_id: str
    changed_at: datetime


class RequirementChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an edit sets; ``None`` leaves a field as it is."""

    text: str | None = None
    priority: str | None = None
    status: str | None = None
    note: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it sets nothing."""
        return self == RequirementChange()


class Edited(msgspec.Struct, frozen=True):
    """``ok``, ``already`` (it reads like that) or ``stale`` (somebody edited it); and how it reads now."""

    verdict: str
    requirement: Requirement


class Dossier(Protocol):
    """What the agents of a job write down for one another; same errors as ``ledger.port.Ledger``.

    Every write presents the fence of the task on whose behalf it is made and raises ``LeaseLost`` when
    that does not hold any more, ``NotFound`` when there is no such task; doing it again changes nothing.
    Rows leave the ledger with their job.
    """

    async def cite(self, fence: Fence, citation: NewCitation) -> Citation:
        """Keep a citation and its source. Raises ``InputRefused`` when the job holds too many."""
        ...

    async def sources(self, job_id: str) -> Sequence[Source]:
        """The sources of a job in the order of their first citation."""
        ...

    async def citations(
        self, job_id: str, *, source: int | None = None, limit: int = 100
    ) -> Sequence[Citation]:
        """Citations in order, of one source or of all."""
        ...

    async def citation(self, job_id: str, number: int) -> Citation:
        """Raises ``NotFound``."""
        ...

    async def add_requirement(self, fence: Fence, text: str, *, priority: str = "must") -> Requirement:
        """Keep a requirement; the same text is the same requirement. Raises ``InputRefused``."""
        ...

    async def edit_requirement(
        self, fence: Fence, number: int, version: int, change: RequirementChange
    ) -> Edited:
        """Change the requirement as it was read at ``version``. Raises ``NotFound``, ``InputRefused``."""
        ...

    async def requirements(self, job_id: str, *, status: str | None = None) -> Sequence[Requirement]:
        """Requirements in order, of one status or of all."""
        ...

    async def requirement(self, job_id: str, number: int) -> Requirement:
        """Raises ``NotFound``."""
        ...
