"""The real ledger: asyncpg on two held connections, SQL by name."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

import msgspec

from agent2389.errors import NotFound
from agent2389.ledger import queries
from agent2389.ledger.dossier import Dossier
from agent2389.ledger.fleet import AgentRecord, Beat, BeatReply
from agent2389.ledger.migrate import LEDGER_VERSION
from agent2389.ledger.notices import Notices
from agent2389.ledger.postgres_dossier import PostgresDossier
from agent2389.ledger.postgres_effects import PostgresJournal
from agent2389.ledger.postgres_notices import PostgresNotices
from agent2389.ledger.postgres_people import PostgresPeople
from agent2389.ledger.postgres_session import Session, check_version
from agent2389.ledger.records import (
    FIRST_VERIFICATION_SLOT,
    Blob,
    BoardMessage,
    Change,
    Claim,
    Delivery,
    Effects,
    Failure,
    Fence,
    FileRef,
    Finish,
    NewJob,
    Rejection,
    ShownTopic,
    Submitted,
    Waiting,
    Wake,
    Written,
)
from agent2389.ledger.states import JobState
from agent2389.ledger.views import (
    AgentRow,
    DecisionRow,
    ForeignTask,
    JobDetail,
    JobRow,
    PoolRow,
    Retired,
    Unsent,
)
from agent2389.wire.names import task_id_of

SQL = queries.load("queries.sql")
Answer = TypeVar("Answer")


class Identity(msgspec.Struct, frozen=True):
    """What ``identity`` answers at start."""

    mesh_id: str
    ledger_version: int
    tenant: str | None


class PostgresLedger(PostgresJournal, PostgresPeople):
    """``ledger.port.Ledger`` on Postgres.

    One connection serves claims and the owners' writes, one the beat, one everything else, so
    that a long read never delays a beat. None is pooled: a pool's reset costs more than the
    statements (measured). ``lease_seconds`` is the lease of every claim made here.
    """

    def __init__(
        self, work: Session, beat: Session, rest: Session, identity: Identity, lease_seconds: float
    ) -> None:
        self._work = work
        self._beat = beat
        self._rest = rest
        self.dossier: Dossier = PostgresDossier(rest)
        self.notices: Notices = PostgresNotices(rest)
        self._identity = identity
        self._lease = lease_seconds
        self._chores: dict[str, float] = {}

    @classmethod
    async def open(cls, dsn: str, *, lease_seconds: float = 30.0, role: str | None = None) -> Self:
        """Connect and check the schema's version.

        ``role`` is taken on by SET ROLE. Raises ``Unreachable``, ``NotAllowed``, ``ConfigurationError``.
        """
        work, beat, rest = (Session(dsn, role=role) for _ in range(3))
        try:
            identity = msgspec.json.decode(await work.value(SQL["identity"]), type=Identity)
            check_version(identity.ledger_version, LEDGER_VERSION, identity.tenant)
        except BaseException:
            await work.close()
            raise
        return cls(work, beat, rest, identity, lease_seconds)

    @property
    def tenant(self) -> str:
        """The tenant of this login."""
        return self._identity.tenant or ""

    def expect_chores(self, intervals: Mapping[str, float]) -> None:
        """The chores (seconds between runs) whose lateness the beat reports."""
        self._chores = dict(intervals)

    async def check(self) -> None:
        """One round trip."""
        await self._rest.value(SQL["ping"])
        for session in (self._work, self._beat, self._rest):
            if session.refusal is not None:
                raise session.refusal

    async def mesh_id(self) -> str:
        """The identity of this ledger."""
        return self._identity.mesh_id

    # producers -------------------------------------------------------------------

    async def submit(self, job: NewJob) -> Submitted:
        """T1 to T3."""
        first = task_id_of(job.job_id, "", 0)
        return await self._ask(self._rest, Submitted, "submit", _json(job), first)

    async def reject(self, rejection: Rejection) -> bool:
        """T4."""
        return bool(await self._rest.value(SQL["reject"], *msgspec.structs.astuple(rejection)))

    async def cancel(self, job_id: str, actor: str) -> Written:
        """T18, T19."""
        return await self._ask(self._rest, Written, "cancel", job_id, actor)

    # agents ----------------------------------------------------------------------

    async def register(self, agent: AgentRecord) -> None:
        """Enter or refresh this incarnation."""
        await self._beat.value(SQL["register"], _json(agent))

    async def beat(self, beat: Beat) -> BeatReply:
        """Extend leases, report, learn."""
        return await self._ask(self._beat, BeatReply, "beat", _json(beat), _json(self._chores))

    async def stopped(self, incarnation: str) -> bool:
        """The process ends."""
        return bool(await self._beat.value(SQL["stopped"], incarnation))

    async def claim(self, task_id: str, incarnation: str) -> Claim | None:
        """T5 to T7 for one task."""
        rows = await self._work.values(SQL["claim"], incarnation, task_id, 1, self._lease)
        return msgspec.json.decode(rows[0], type=Claim) if rows else None

    async def claim_batch(self, incarnation: str, limit: int) -> Sequence[Claim]:
        """T5 to T7 for up to ``limit`` tasks."""
        rows = await self._work.values(SQL["claim"], incarnation, None, limit, self._lease)
        return [msgspec.json.decode(row, type=Claim) for row in rows]

    async def checkpoint(self, fence: Fence, manifest: dict[str, FileRef]) -> Written:
        """Keep the workspace as it is."""
        return await self._fenced("checkpoint", fence, _json(manifest))

    async def finish(self, fence: Fence, finish: Finish, job_id: str) -> Written:
        """T15."""
        return await self._fenced(
            "finish", fence, _json(_with_ids(finish, job_id, fence.task_id, fence.epoch))
        )

    async def fail(self, fence: Fence, failure: Failure) -> Written:
        """T12 to T14."""
        return await self._fenced("fail", fence, _json(failure))

    async def release(self, fence: Fence, reason: str) -> Written:
        """T9."""
        return await self._fenced("release", fence, reason)

    async def stop_task(self, fence: Fence, partial: str) -> Written:
        """T29."""
        return await self._fenced("stop_task", fence, partial)

    async def wait(self, fence: Fence, waiting: Waiting) -> Written:
        """T24."""
        return await self._fenced("wait", fence, _json(waiting))

    # foreign agents --------------------------------------------------------------

    async def foreign_tasks(self, limit: int) -> Sequence[ForeignTask]:
        """Tasks bound to agents without a row here."""
        return await self._ask(self._rest, tuple[ForeignTask, ...], "foreign_tasks", limit)

    async def forward(self, task_id: str, until: datetime) -> Written | None:
        """T26."""
        document = await self._rest.value(SQL["forward"], task_id, until)
        return None if document is None else msgspec.json.decode(document, type=Written)

    async def forward_ended(
        self, task_id: str, attempt: int, outcome: Finish | Failure, job_id: str
    ) -> Written:
        """T27."""
        well = isinstance(outcome, Finish)
        body = _with_ids(outcome, job_id, task_id, 0) if isinstance(outcome, Finish) else outcome
        return await self._ask(self._rest, Written, "forward_ended", task_id, attempt, well, _json(body))

    # upkeep ----------------------------------------------------------------------

    async def take_chore(self, chore: str, interval_seconds: float) -> bool:
        """Whether this caller runs ``chore`` now."""
        return bool(await self._rest.value(SQL["take_chore"], chore, interval_seconds))

    async def reap(self, limit: int = 100) -> Effects:
        """T8, T11, T20, T25, T27, T30."""
        return await self._ask(self._rest, Effects, "reap", limit)

    async def ring_due(self) -> Sequence[Wake]:
        """Wakes of tasks that became due."""
        return await self._ask(self._rest, tuple[Wake, ...], "ring_due")

    async def refresh_board(self) -> None:
        """Bring the derived board rows in line."""
        await self._rest.value(SQL["refresh_board"])

    async def lease_board(self, limit: int) -> Sequence[BoardMessage]:
        """Take unsent board rows."""
        return await self._ask(self._rest, tuple[BoardMessage, ...], "lease_board", limit)

    async def board_sent(self, sent: Sequence[BoardMessage]) -> None:
        """Mark board rows as sent."""
        await self._rest.value(SQL["board_sent"], _json(sent))

    async def board_reset(self) -> None:
        """Send every board row again."""
        await self._rest.value(SQL["board_reset"])

    async def board_shown(
        self, kinds: Sequence[str], *, after: Sequence[str] = (), limit: int | None = None
    ) -> Sequence[ShownTopic]:
        """What the broker should hold."""
        kind = tuple[ShownTopic, ...]
        return await self._ask(self._rest, kind, "board_shown", list(kinds), list(after), limit)

    async def board_lost(self, lost: Sequence[ShownTopic]) -> int:
        """Send these again."""
        return int(await self._rest.value(SQL["board_lost"], _json(lost)))

    async def take_outbox(self, limit: int) -> Sequence[Delivery]:
        """Deliveries nobody sent."""
        return await self._ask(self._rest, tuple[Delivery, ...], "take_outbox", limit)

    async def outbox_sent(self, ids: Sequence[int]) -> None:
        """Forget sent deliveries."""
        await self._rest.value(SQL["outbox_sent"], list(ids))

    async def seal(self, limit: int) -> int:
        """Number and chain events."""
        return int(await self._rest.value(SQL["seal"], limit))

    async def sealed_changes(self, after: int, limit: int = 500) -> Sequence[tuple[int, Change]]:
        """Events after a sealed number."""
        return await self._ask(self._rest, tuple[tuple[int, Change], ...], "sealed_changes", after, limit)

    async def broken_links(self, limit: int = 10) -> Sequence[int]:
        """Where the chain does not verify."""
        found: list[int] = await self._rest.value(SQL["broken_links"], limit)
        return found

    async def retire(self, keep_days: float = 7.0, limit: int = 200) -> Retired:
        """Retention."""
        return await self._ask(self._rest, Retired, "retire", keep_days, limit)

    # blobs -----------------------------------------------------------------------

    async def put_blob(self, content: bytes, media_type: str) -> str:
        """Store and return the SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        await self._rest.value(SQL["put_blob"], digest, media_type, content)
        return digest

    async def get_blob(self, sha256: str) -> Blob:
        """Raises ``NotFound``."""
        row = await self._rest.row(SQL["get_blob"], sha256)
        if row is None:
            raise NotFound(
                f"there is no blob {sha256[:12]}…", hint="upload it with PUT /api/v1/blobs/{sha256}"
            )
        return Blob(sha256, row["media_type"], row["content"])

    async def missing_blobs(self, hashes: Sequence[str]) -> Sequence[str]:
        """Which hashes are not stored."""
        found: list[str] = await self._rest.value(SQL["missing_blobs"], list(hashes))
        return found

    # reads -----------------------------------------------------------------------

    async def jobs(
        self, *, state: JobState | None = None, limit: int = 50, before: str | None = None
    ) -> Sequence[JobRow]:
        """Newest first."""
        return await self._ask(self._rest, tuple[JobRow, ...], "jobs", state, limit, before)

    async def find_jobs(self, prefix: str, limit: int = 3) -> Sequence[str]:
        """Job ids by prefix."""
        return await self._ask(self._rest, tuple[str, ...], "find_jobs", prefix, limit)

    async def job(self, job_id: str) -> JobDetail:
        """Raises ``NotFound``."""
        document = await self._rest.value(SQL["job"], job_id)
        if document is None:
            raise NotFound(f"there is no job {job_id}", hint="list them: agent2389 job list")
        return msgspec.json.decode(document, type=JobDetail)

    async def changes(self, job_id: str, after: int = 0) -> Sequence[tuple[int, Change]]:
        """Events of a job."""
        return await self._ask(self._rest, tuple[tuple[int, Change], ...], "changes", job_id, after)

    async def decisions(
        self, age_seconds: float, *, limit: int = 50, before: tuple[datetime, str] | None = None
    ) -> Sequence[DecisionRow]:
        """Newest first."""
        at, task = before or (None, None)
        return await self._ask(self._rest, tuple[DecisionRow, ...], "decisions", age_seconds, limit, at, task)

    async def agents(self) -> Sequence[AgentRow]:
        """Incarnations of the last day."""
        return await self._ask(self._rest, tuple[AgentRow, ...], "agents")

    async def pools(self) -> Sequence[PoolRow]:
        """Counts by pool."""
        return await self._ask(self._rest, tuple[PoolRow, ...], "pools")

    async def job_counts(self) -> dict[JobState, int]:
        """Jobs by state."""
        return await self._ask(self._rest, dict[JobState, int], "job_counts")

    async def unsent(self) -> Unsent:
        """What is not sent yet."""
        return await self._ask(self._rest, Unsent, "unsent")

    async def close(self) -> None:
        """Give back all connections."""
        await self._work.close()
        await self._beat.close()
        await self._rest.close()

    async def _fenced(self, name: str, fence: Fence, argument: str) -> Written:
        return await self._ask(self._work, Written, name, fence.task_id, fence.epoch, fence.token, argument)

    async def _ask(self, session: Session, kind: type[Answer], name: str, *arguments: Any) -> Answer:
        return msgspec.json.decode(await session.value(SQL[name], *arguments), type=kind)


def _with_ids(finish: Finish, job_id: str, task_id: str, epoch: int) -> dict[str, Any]:
    """The body of a finish with the id of every task that may follow."""
    body = msgspec.to_builtins(finish)
    # Left out when empty; the function reads them always.
    body = {"next": [], "manifest": {}, "rehearsal": False, "escalate": False, **body}
    if body.get("verify"):
        body["verify"]["slot"] = FIRST_VERIFICATION_SLOT + epoch
    for item in (*body["next"], (body.get("join") or {}).get("task"), body.get("verify")):
        if item:
            item["task_id"] = task_id_of(job_id, task_id, item["slot"])
    return body


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
