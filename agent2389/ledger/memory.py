"""The ledger in memory: the readable specification that Postgres is held to, for tests and simulation."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger import (
    memory_agents,
    memory_board,
    memory_chain,
    memory_invariants,
    memory_owners,
    memory_people,
    memory_producers,
    memory_reads,
    memory_upkeep,
    memory_waiting,
)
from agent2389.ledger.dossier import Dossier
from agent2389.ledger.fleet import AgentRecord, Beat, BeatReply
from agent2389.ledger.memory_dossier import MemoryDossier
from agent2389.ledger.memory_effects import MemoryJournal
from agent2389.ledger.memory_notices import MemoryNotices
from agent2389.ledger.memory_tables import Tables, digest
from agent2389.ledger.notices import Notices
from agent2389.ledger.records import (
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
    NextTask,
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
    ApprovalRow,
    DecisionRow,
    ForeignTask,
    JobDetail,
    JobRow,
    PoolRow,
    Retired,
    Unsent,
)

LARGEST_BLOB = 32 * 1024 * 1024


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class MemoryLedger(MemoryJournal):
    """``ledger.port.Ledger`` without a database.

    No method awaits while it writes, so each is one transaction. ``now`` is the ledger's clock
    (aware, UTC); ``seed`` decides tokens and jitter. Ledgers that share ``tables`` are logins of
    one database: give each its ``tenant``; ``now`` and ``seed`` are then those of the tables.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = _wall_clock,
        seed: int | None = None,
        lease_seconds: float = 30.0,
        tenant: str = "default",
        tables: Tables | None = None,
    ) -> None:
        self.tables = tables or Tables(now, random.Random(seed))  # noqa: S311 - nothing is secret here
        self._tenant = tenant
        self.dossier: Dossier = MemoryDossier(self.tables, tenant)
        self.notices: Notices = MemoryNotices(self.tables, tenant)
        self._lease = lease_seconds
        self._chores: dict[str, float] = {}

    def check_invariants(self, *, settled: bool = False) -> None:
        """Raise ``RuleBroken`` when a rule does not hold; ``settled`` right after a refresh of the board."""
        memory_invariants.check(self.tables, settled=settled)

    @property
    def tenant(self) -> str:
        """The tenant of this login."""
        return self._tenant

    def expect_chores(self, intervals: Mapping[str, float]) -> None:
        """The chores, with their intervals in seconds, whose lateness the beat reports."""
        self._chores = dict(intervals)

    async def check(self) -> None:
        """Memory always answers."""

    async def mesh_id(self) -> str:
        """The identity of this ledger."""
        return self.tables.mesh_id

    # producers -------------------------------------------------------------------

    async def submit(self, job: NewJob) -> Submitted:
        """T1 to T3."""
        return memory_producers.submit(self.tables, self._tenant, job)

    async def reject(self, rejection: Rejection) -> bool:
        """T4."""
        return memory_producers.reject(self.tables, self._tenant, rejection)

    async def cancel(self, job_id: str, actor: str) -> Written:
        """T18, T19."""
        return memory_producers.cancel(self.tables, self._tenant, job_id, actor)

    # agents ----------------------------------------------------------------------

    async def register(self, agent: AgentRecord) -> None:
        """Enter or refresh this incarnation."""
        memory_agents.register(self.tables, self._tenant, agent)

    async def beat(self, beat: Beat) -> BeatReply:
        """Extend leases, report, learn."""
        return memory_agents.beat(self.tables, self._tenant, beat, self._chores)

    async def stopped(self, incarnation: str) -> bool:
        """The process ends."""
        return memory_agents.stopped(self.tables, self._tenant, incarnation)

    async def claim(self, task_id: str, incarnation: str) -> Claim | None:
        """T5 to T7 for one task."""
        won = self._claim(incarnation, 1, task_id)
        return won[0] if won else None

    async def claim_batch(self, incarnation: str, limit: int) -> Sequence[Claim]:
        """T5 to T7 for up to ``limit`` tasks."""
        return self._claim(incarnation, limit, None)

    async def checkpoint(self, fence: Fence, manifest: dict[str, FileRef]) -> Written:
        """Keep the workspace as it is."""
        return memory_owners.checkpoint(self.tables, self._tenant, fence, manifest)

    async def finish(self, fence: Fence, finish: Finish, job_id: str) -> Written:  # noqa: ARG002 - the task knows
        """T15."""
        return memory_owners.finish(self.tables, self._tenant, fence, finish)

    async def fail(self, fence: Fence, failure: Failure) -> Written:
        """T12 to T14."""
        return memory_owners.fail(self.tables, self._tenant, fence, failure)

    async def release(self, fence: Fence, reason: str) -> Written:
        """T9."""
        return memory_owners.release(self.tables, self._tenant, fence, reason)

    async def stop_task(self, fence: Fence, partial: str) -> Written:
        """T29."""
        return memory_owners.stop_task(self.tables, self._tenant, fence, partial)

    async def wait(self, fence: Fence, waiting: Waiting) -> Written:
        """T24."""
        return memory_waiting.wait(self.tables, self._tenant, fence, waiting)

    # foreign agents --------------------------------------------------------------

    async def foreign_tasks(self, limit: int) -> Sequence[ForeignTask]:
        """Tasks bound to agents without a row here."""
        return memory_waiting.foreign_tasks(self.tables, self._tenant, limit)

    async def forward(self, task_id: str, until: datetime) -> Written | None:
        """T26."""
        return memory_waiting.forward(self.tables, self._tenant, task_id, until)

    async def forward_ended(
        self,
        task_id: str,
        attempt: int,
        outcome: Finish | Failure,
        job_id: str,  # noqa: ARG002 - the task knows
    ) -> Written:
        """T27."""
        return memory_waiting.forward_ended(self.tables, self._tenant, task_id, attempt, outcome)

    # people ------------------------------------------------------------------------

    async def decide(
        self,
        task_id: str,
        action: str,
        *,
        job_id: str,  # noqa: ARG002 - the task knows
        actor: str,
        words: str | None = None,
        next: NextTask | None = None,  # noqa: A002 - the wire's word
    ) -> Written:
        """T21."""
        return memory_people.decide(
            self.tables, self._tenant, task_id, action, actor=actor, words=words, onward=next
        )

    async def escalate(self, job_id: str, actor: str, *, task_id: str | None = None, reason: str) -> Written:
        """T28."""
        return memory_people.escalate(
            self.tables, self._tenant, job_id, task_id=task_id, actor=actor, reason=reason
        )

    async def clone(
        self, job_id: str, new_job_id: str, actor: str, *, correction: str | None = None
    ) -> Submitted:
        """T22."""
        return memory_people.clone(
            self.tables, self._tenant, job_id, new_job_id, actor=actor, correction=correction
        )

    async def assign(self, task_id: str, incarnation: str, actor: str) -> Written:
        """T5 by an operator."""
        return memory_people.assign(self.tables, self._tenant, task_id, incarnation, actor=actor)

    async def command(
        self,
        command_id: str,  # noqa: ARG002 - kept by the real ledger only
        agent_id: str,
        action: str,
        actor: str,  # noqa: ARG002
        *,
        incarnation: str | None = None,
    ) -> Sequence[str]:
        """Pause, resume, drain, stop, restart."""
        return memory_people.command(self.tables, self._tenant, agent_id, action, incarnation=incarnation)

    async def approvals(self, *, state: str | None = None, limit: int = 50) -> Sequence[ApprovalRow]:
        """Newest first."""
        return memory_waiting.approvals(self.tables, self._tenant, state=state, limit=limit)

    async def decide_approval(
        self, approval_id: str, decision: str, arguments_sha256: str, actor: str, *, reason: str = ""
    ) -> Written:
        """A person's word about one tool call."""
        return memory_waiting.decide_approval(
            self.tables,
            self._tenant,
            approval_id,
            decision,
            sha256=arguments_sha256,
            actor=actor,
            reason=reason,
        )

    # upkeep ----------------------------------------------------------------------

    async def take_chore(self, chore: str, interval_seconds: float) -> bool:
        """Whether this caller runs ``chore`` now."""
        return memory_upkeep.take_chore(self.tables, self._tenant, chore, interval_seconds)

    async def reap(self, limit: int = 100) -> Effects:
        """T8, T11, T20, T25, T27, T30."""
        return memory_upkeep.reap(self.tables, self._tenant, limit)

    async def ring_due(self) -> Sequence[Wake]:
        """Wakes of tasks that became due."""
        return memory_upkeep.ring_due(self.tables, self._tenant)

    async def refresh_board(self) -> None:
        """Bring the derived board rows in line."""
        memory_board.refresh(self.tables, self._tenant)

    async def lease_board(self, limit: int) -> Sequence[BoardMessage]:
        """Take unsent board rows."""
        return memory_board.lease(self.tables, self._tenant, limit)

    async def board_sent(self, sent: Sequence[BoardMessage]) -> None:
        """Mark board rows as sent."""
        memory_board.sent(self.tables, self._tenant, sent)

    async def board_reset(self) -> None:
        """Send every board row again."""
        memory_board.reset(self.tables, self._tenant)

    async def board_shown(
        self, kinds: Sequence[str], *, after: Sequence[str] = (), limit: int | None = None
    ) -> Sequence[ShownTopic]:
        """What the broker should hold."""
        return memory_board.shown(self.tables, self.tenant, kinds, tuple(after), limit)

    async def board_lost(self, lost: Sequence[ShownTopic]) -> int:
        """Send these again."""
        return memory_board.lost(self.tables, self.tenant, lost)

    async def take_outbox(self, limit: int) -> Sequence[Delivery]:
        """Deliveries nobody sent."""
        return memory_upkeep.take_outbox(self.tables, self._tenant, limit)

    async def outbox_sent(self, ids: Sequence[int]) -> None:
        """Forget sent deliveries."""
        memory_upkeep.outbox_sent(self.tables, self._tenant, ids)

    async def seal(self, limit: int) -> int:
        """Number and chain events."""
        return memory_chain.seal(self.tables, limit)

    async def sealed_changes(self, after: int, limit: int = 500) -> Sequence[tuple[int, Change]]:
        """Events after a sealed number."""
        return memory_chain.sealed_changes(self.tables, self._tenant, after, limit)

    async def broken_links(self, limit: int = 10) -> Sequence[int]:
        """Where the chain does not verify."""
        return memory_chain.broken_links(self.tables, limit)

    async def retire(self, keep_days: float = 7.0, limit: int = 200) -> Retired:
        """Retention."""
        return memory_upkeep.retire(self.tables, self._tenant, keep_days, limit)

    # blobs -----------------------------------------------------------------------

    async def put_blob(self, content: bytes, media_type: str) -> str:
        """Store and return the SHA-256. Raises ``InputRefused`` above 32 MiB."""
        if len(content) > LARGEST_BLOB:
            raise InputRefused("invalid", "a blob is larger than 32 MiB", hint="split the file")
        sha256 = digest(content)
        self.tables.blobs.setdefault((self._tenant, sha256), Blob(sha256, media_type, content))
        return sha256

    async def get_blob(self, sha256: str) -> Blob:
        """Raises ``NotFound``."""
        blob = self.tables.blobs.get((self._tenant, sha256))
        if blob is None:
            raise NotFound(
                f"there is no blob {sha256[:12]}…", hint="upload it with PUT /api/v1/blobs/{sha256}"
            )
        return blob

    async def missing_blobs(self, hashes: Sequence[str]) -> Sequence[str]:
        """Which hashes are not stored."""
        return [sha256 for sha256 in hashes if (self._tenant, sha256) not in self.tables.blobs]

    # reads -----------------------------------------------------------------------

    async def jobs(
        self, *, state: JobState | None = None, limit: int = 50, before: str | None = None
    ) -> Sequence[JobRow]:
        """Newest first."""
        return memory_reads.jobs(self.tables, self._tenant, state=state, limit=limit, before=before)

    async def find_jobs(self, prefix: str, limit: int = 3) -> Sequence[str]:
        """Job ids by prefix."""
        return memory_reads.find_jobs(self.tables, self._tenant, prefix, limit)

    async def job(self, job_id: str) -> JobDetail:
        """Raises ``NotFound``."""
        return memory_reads.job(self.tables, self._tenant, job_id)

    async def changes(self, job_id: str, after: int = 0) -> Sequence[tuple[int, Change]]:
        """Events of a job."""
        return memory_reads.changes(self.tables, self._tenant, job_id, after)

    async def decisions(
        self, age_seconds: float, *, limit: int = 50, before: tuple[datetime, str] | None = None
    ) -> Sequence[DecisionRow]:
        """Newest first."""
        return memory_reads.decisions(self.tables, self._tenant, age_seconds, limit=limit, before=before)

    async def agents(self) -> Sequence[AgentRow]:
        """Incarnations of the last day."""
        return memory_reads.agents(self.tables, self._tenant)

    async def pools(self) -> Sequence[PoolRow]:
        """Counts by pool."""
        return memory_reads.pools(self.tables, self._tenant)

    async def job_counts(self) -> dict[JobState, int]:
        """Jobs by state."""
        return memory_reads.job_counts(self.tables, self._tenant)

    async def unsent(self) -> Unsent:
        """What is not sent yet."""
        return memory_reads.unsent(self.tables, self._tenant)

    async def close(self) -> None:
        """Nothing is held."""

    def _claim(self, incarnation: str, limit: int, task_id: str | None) -> list[Claim]:
        return memory_agents.claim(
            self.tables,
            self._tenant,
            incarnation,
            wanted=lambda task: task_id is None or task.task_id == task_id,
            limit=limit,
            lease_seconds=self._lease,
        )
