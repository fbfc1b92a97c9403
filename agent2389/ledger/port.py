"""What the rest of the house may ask of the ledger."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from agent2389.ledger.dossier import Dossier
from agent2389.ledger.fleet import AgentRecord, Beat, BeatReply
from agent2389.ledger.journal import Journal
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


class Ledger(Journal, Protocol):
    """The record of work.

    Every method is one transaction on the ledger's clock. All raise ``Unreachable``
    when the database does not answer and ``NotAllowed`` when the login lacks the right.
    The tenant is that of the login.
    """

    @property
    def tenant(self) -> str:
        """The tenant of this login."""
        ...

    @property
    def dossier(self) -> Dossier:
        """What the agents of a job write down for one another."""
        ...

    @property
    def notices(self) -> Notices:
        """How far events were told to receivers outside the mesh."""
        ...

    def expect_chores(self, intervals: Mapping[str, float]) -> None:
        """The chores, with their intervals in seconds, whose lateness the beat reports."""
        ...

    async def check(self) -> None:
        """One round trip; raises ``Unreachable``, also while writes are refused (a full disk, a replica)."""
        ...

    async def mesh_id(self) -> str:
        """The identity of this ledger, made once at its first migration."""
        ...

    # producers -------------------------------------------------------------------

    async def submit(self, job: NewJob) -> Submitted:
        """T1-T3. A receipt delivery is among the effects unless ``source`` is ``http``;
        a duplicate younger than 2 s yields none (QoS 1 repeats).
        """
        ...

    async def reject(self, rejection: Rejection) -> bool:
        """T4. Keeps the evidence; ``True`` when this is the first within 10 s: a receipt is due."""
        ...

    async def cancel(self, job_id: str, actor: str) -> Written:
        """T18/T19 for every open task. Raises ``NotFound``; an ended job answers ``already``."""
        ...

    # agents ----------------------------------------------------------------------

    async def register(self, agent: AgentRecord) -> None:
        """Enter or refresh this incarnation. Raises ``Conflict`` when a singleton already lives."""
        ...

    async def beat(self, beat: Beat) -> BeatReply:
        """Extend leases, report, learn what to do. ``known`` false: register again."""
        ...

    async def stopped(self, incarnation: str) -> bool:
        """The process ends; ``True`` when no other incarnation of its agent id is running."""
        ...

    async def claim(self, task_id: str, incarnation: str) -> Claim | None:
        """T5-T7 for one task; ``None`` when somebody else has it or it is not claimable."""
        ...

    async def claim_batch(self, incarnation: str, limit: int) -> Sequence[Claim]:
        """T5-T7 for up to ``limit`` tasks of the agent's pools, by priority, then age."""
        ...

    async def checkpoint(self, fence: Fence, manifest: dict[str, FileRef]) -> Written:
        """Keep the workspace as it is now, for whoever resumes."""
        ...

    async def finish(self, fence: Fence, finish: Finish, job_id: str) -> Written:
        """T15: result, hand-off, deliveries and job end in one transaction. Repeats answer ``already``."""
        ...

    async def fail(self, fence: Fence, failure: Failure) -> Written:
        """T12-T14: queue again with full-jitter back-off (2 s … 300 s), else dead."""
        ...

    async def release(self, fence: Fence, reason: str) -> Written:
        """T9: give back at once; the attempt is not burnt."""
        ...

    async def stop_task(self, fence: Fence, partial: str) -> Written:
        """T29: the owner stopped after the beat said cancel, expire or escalate."""
        ...

    async def wait(self, fence: Fence, waiting: Waiting) -> Written:
        """T24: give the task up until a timer, a person or approvals; ``already``: nothing is pending."""
        ...

    # foreign agents --------------------------------------------------------------

    async def foreign_tasks(self, limit: int) -> Sequence[ForeignTask]:
        """Tasks bound to agents without a row here: at most ``limit`` due ones and as many forwarded ones.

        The agents take turns, so the backlog of one that is away hides nobody else's tasks.
        """
        ...

    async def forward(self, task_id: str, until: datetime) -> Written | None:
        """T26: it is being sent; ``None`` when somebody else did."""
        ...

    async def forward_ended(
        self, task_id: str, attempt: int, outcome: Finish | Failure, job_id: str
    ) -> Written:
        """T27: the answer or failure of ``ForeignTask.attempt``; a repeat answers ``already``."""
        ...

    # people ------------------------------------------------------------------------

    async def decide(
        self,
        task_id: str,
        action: str,
        *,
        job_id: str,
        actor: str,
        words: str | None = None,
        next: NextTask | None = None,  # noqa: A002 - the wire's word
    ) -> Written:
        """T21: ``action`` is ``retry`` (``words`` guide) | ``accept`` (the proposed result stands) |
        ``answer`` (``words`` are the result) | ``cancel``; ``next`` replaces what would follow.
        Raises ``NotFound``, ``Conflict`` (nobody is asked), ``InputRefused``.
        """
        ...

    async def escalate(self, job_id: str, actor: str, *, task_id: str | None = None, reason: str) -> Written:
        """T28 for one task or every open one."""
        ...

    async def clone(
        self, job_id: str, new_job_id: str, actor: str, *, correction: str | None = None
    ) -> Submitted:
        """T22: the same submission again, or with ``correction`` a completed job with that result.
        Raises ``NotFound``, ``Conflict`` (still open).
        """
        ...

    async def assign(self, task_id: str, incarnation: str, actor: str) -> Written:
        """T5 by an operator: the incarnation claims it within 30 s. Raises ``NotFound``, ``Conflict``."""
        ...

    async def command(
        self, command_id: str, agent_id: str, action: str, actor: str, *, incarnation: str | None = None
    ) -> Sequence[str]:
        """``pause`` | ``resume`` | ``drain`` | ``stop`` | ``restart``; returns the incarnations concerned.
        A pause belongs to the agent id and survives its processes. Raises ``NotFound``.
        """
        ...

    async def approvals(self, *, state: str | None = None, limit: int = 50) -> Sequence[ApprovalRow]:
        """Newest first."""
        ...

    async def decide_approval(
        self, approval_id: str, decision: str, arguments_sha256: str, actor: str, *, reason: str = ""
    ) -> Written:
        """``approved`` | ``rejected`` for exactly the arguments of that hash; the last one wakes the task.
        Raises ``NotFound``, ``InputRefused`` (other arguments), ``Conflict`` (decided otherwise).
        """
        ...

    # upkeep ----------------------------------------------------------------------

    async def take_chore(self, chore: str, interval_seconds: float) -> bool:
        """Whether this caller runs ``chore`` now (its last run is older than the interval)."""
        ...

    async def reap(self, limit: int = 100) -> Effects:
        """T8, T11, T18-T20, T25, T27, T30: leases, deadlines, timers over, nobody to do it.

        One call takes about ``limit`` tasks; without changes nothing is left to do.
        """
        ...

    async def ring_due(self) -> Sequence[Wake]:
        """Wakes of retries and ``not_before`` jobs that became due since the last call."""
        ...

    async def refresh_board(self) -> None:
        """Bring the ``open`` and ``claim`` rows of the board in line with the tasks (top 100 a pool)."""
        ...

    async def lease_board(self, limit: int) -> Sequence[BoardMessage]:
        """Take retained topics whose last version is not sent yet, for 10 s."""
        ...

    async def board_sent(self, sent: Sequence[BoardMessage]) -> None:
        """Mark as sent what this caller still holds and what did not change meanwhile."""
        ...

    async def board_reset(self) -> None:
        """The broker lost its retained messages: send every row again."""
        ...

    async def board_shown(
        self, kinds: Sequence[str], *, after: Sequence[str] = (), limit: int | None = None
    ) -> Sequence[ShownTopic]:
        """What the broker should hold of these kinds, by kind and key; ``after`` is a key to go on from."""
        ...

    async def board_lost(self, lost: Sequence[ShownTopic]) -> int:
        """The broker does not hold these: send again those that did not change meanwhile; how many."""
        ...

    async def take_outbox(self, limit: int) -> Sequence[Delivery]:
        """Deliveries older than 2 s that nobody sent (leased for 10 s)."""
        ...

    async def outbox_sent(self, ids: Sequence[int]) -> None:
        """Forget deliveries that were sent."""
        ...

    async def seal(self, limit: int) -> int:
        """Number and chain events; how many, 0 also while somebody else seals."""
        ...

    async def sealed_changes(self, after: int, limit: int = 500) -> Sequence[tuple[int, Change]]:
        """Events after a sealed number, dense and in commit order."""
        ...

    async def broken_links(self, limit: int = 10) -> Sequence[int]:
        """Numbers at which the chain of operator acts and job ends does not verify; all tenants."""
        ...

    async def retire(self, keep_days: float = 7.0, limit: int = 200) -> Retired:
        """Retention: results after an hour, at most ``limit`` jobs after ``keep_days``, old rejects, agents
        gone for a day; returns stopped and lost incarnations whose presence topic must be cleared.
        """
        ...

    # blobs -----------------------------------------------------------------------

    async def put_blob(self, content: bytes, media_type: str) -> str:
        """Store up to 32 MiB and return the SHA-256; storing twice is harmless."""
        ...

    async def get_blob(self, sha256: str) -> Blob:
        """Raises ``NotFound``."""
        ...

    async def missing_blobs(self, hashes: Sequence[str]) -> Sequence[str]:
        """Which of the hashes are not stored."""
        ...

    # reads -----------------------------------------------------------------------

    async def jobs(
        self, *, state: JobState | None = None, limit: int = 50, before: str | None = None
    ) -> Sequence[JobRow]:
        """Newest first; ``before`` is the job id after which to go on (keyset)."""
        ...

    async def find_jobs(self, prefix: str, limit: int = 3) -> Sequence[str]:
        """Job ids that start with ``prefix``; ``@last`` is the newest."""
        ...

    async def job(self, job_id: str) -> JobDetail:
        """Raises ``NotFound``."""
        ...

    async def changes(self, job_id: str, after: int = 0) -> Sequence[tuple[int, Change]]:
        """Events of a job with their numbers, in order."""
        ...

    async def decisions(
        self, age_seconds: float, *, limit: int = 50, before: tuple[datetime, str] | None = None
    ) -> Sequence[DecisionRow]:
        """Routing decisions of the last ``age_seconds``, newest first; ``before`` is (at, task id)."""
        ...

    async def agents(self) -> Sequence[AgentRow]:
        """Incarnations seen within the last day, running ones first."""
        ...

    async def pools(self) -> Sequence[PoolRow]:
        """Counts of every pool that has agents or open tasks."""
        ...

    async def job_counts(self) -> dict[JobState, int]:
        """Jobs by state (ended ones of the last day)."""
        ...

    async def unsent(self) -> Unsent:
        """What is committed and not sent yet: receipts, replies, messages to agents of others."""
        ...

    async def close(self) -> None:
        """Give back all connections."""
        ...
