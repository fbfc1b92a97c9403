"""Rules of the stateful machine for what people, judges, joins, timers and foreign agents do to a ledger."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from agent2389.config.model import WebhookSection
from agent2389.ledger.notices import Place
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import ApprovalRequest, Failure, Join, NextTask, Waiting
from agent2389.ledger.states import TaskState
from agent2389.ledger.views import AgentRow, ForeignTask
from agent2389.wire.notice import EVENTS
from tests.support.jobs import finish, new_job
from tests.support.twins import Pair, Twins

TENANT = st.sampled_from(("one", "one", "one", "two"))
WHO = st.sampled_from(("r1-a", "r1-a", "r1-a", "r2-a", "r1-b"))
JOB = st.sampled_from(("job-0", "job-1", "job-2", "job-3"))
RECENT = st.sampled_from((0, 0, 0, 1, 2, 5))
"""Which claim, counted from the newest: old ones are the late writers."""
SOMETIMES = st.sampled_from((False, False, False, True))
PICK = st.integers(0, 7)
TOLD = WebhookSection().events
STRANGER = "x9"
"""An agent without a row here: its tasks are forwarded."""


async def retired(ledger: Ledger, keep_days: float) -> tuple[list[AgentRow], int]:
    """Whom and how many jobs retention took, in one order on both sides."""
    done = await ledger.retire(keep_days)
    return sorted(done.agents, key=lambda row: row.incarnation), done.jobs


class FurtherWays(RuleBasedStateMachine):
    """What a machine of claims needs besides; ``Ways`` brings clock, claims and ``both``."""

    twins: Twins
    claims: list[tuple[str, Pair]]

    def both(self, tenant: str, ask: Any, **options: Any) -> Pair:
        raise NotImplementedError

    def claim(self, back: int) -> tuple[str, Pair]:
        raise NotImplementedError

    def claim_batch(self, tenant: str, who: str, limit: int) -> None:
        raise NotImplementedError

    def task(self, tenant: str, pick: int, *preferred: TaskState) -> tuple[str, str]:
        """Ids of a task and its job: one in a preferred state if there is any."""
        tasks = sorted((key[1], row) for key, row in self.twins.tables.tasks.items() if key[0] == tenant)
        wanted = [item for item in tasks if item[1].state in preferred] or tasks
        if not wanted:
            return "no-such-task", "job-0"
        task_id, row = wanted[pick % len(wanted)]
        return task_id, row.job_id

    # what an owner may end with ------------------------------------------------------

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, needed=st.sampled_from((1, 2, 2)), onward=SOMETIMES)
    def finish_with_branches(self, back: int, needed: int, onward: bool) -> None:
        tenant, pair = self.claim(back)
        branches = [NextTask(slot=slot, capability="research") for slot in range(2)]
        after = NextTask(slot=2, capability="writing" if onward else "research")
        done = finish("x", *branches, join=Join(needed=needed, task=after))
        self.both(tenant, lambda ledger, of: ledger.finish(of(pair).fence, done, of(pair).job_id))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, count=st.sampled_from((0, 0, 1)))
    def finish_for_a_verdict(self, back: int, count: int) -> None:
        tenant, pair = self.claim(back)
        items = [NextTask(slot=slot, capability="research") for slot in range(count)]
        done = finish("x", *items, verify=NextTask(capability="research"))
        self.both(tenant, lambda ledger, of: ledger.finish(of(pair).fence, done, of(pair).job_id))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, verdict=st.sampled_from(("approved", "refused", "refused", None)))
    def give_a_verdict(self, back: int, verdict: str | None) -> None:
        judging = [item for item in self.claims if item[1].memory.verifies]
        tenant, pair = judging[-1 - back % len(judging)] if judging else self.claim(back)
        done = finish("so so", verdict=verdict)
        self.both(tenant, lambda ledger, of: ledger.finish(of(pair).fence, done, of(pair).job_id))

    @rule(tenant=TENANT, verdict=st.sampled_from(("approved", "refused", None)))
    def make_and_judge(self, tenant: str, verdict: str | None) -> None:
        """What chance alone would seldom bring together."""
        for who, done in (
            ("r1-a", finish("x", verify=NextTask(capability="research"))),
            ("r2-a", finish("y", verdict=verdict)),
        ):
            before = len(self.claims)
            self.claim_batch(tenant, who, 1)
            if len(self.claims) > before:
                pair = self.claims[-1][1]
                self.both(tenant, lambda ledger, of: ledger.finish(of(pair).fence, done, of(pair).job_id))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, retryable=st.booleans())
    def fail_and_ask(self, back: int, retryable: bool) -> None:
        tenant, pair = self.claim(back)
        failure = Failure(code="llm_error", message="m", retryable=retryable, escalate=True)
        self.both(tenant, lambda ledger, of: ledger.fail(of(pair).fence, failure))

    @precondition(lambda self: self.claims)
    @rule(
        back=RECENT,
        reason=st.sampled_from(("timer", "person", "approval", "approval")),
        seconds=st.sampled_from((1, 20, 400)),
        count=st.integers(1, 2),
    )
    def wait(self, back: int, reason: str, seconds: int, count: int) -> None:
        tenant, pair = self.claim(back)
        asked = tuple(
            ApprovalRequest(
                approval_id=f"{pair.memory.fence.task_id}-{number}",
                tool="send",
                arguments=f'{{"number": {number}}}',
                arguments_sha256=f"{number:064x}",
                question="may I?",
            )
            for number in range(count)
        )
        waiting = Waiting(
            reason=reason,
            until=self.twins.now + timedelta(seconds=seconds) if reason == "timer" else None,
            question="which one?" if reason == "person" else None,
            approvals=asked if reason == "approval" else (),
        )
        self.both(tenant, lambda ledger, of: ledger.wait(of(pair).fence, waiting))

    # approvals -----------------------------------------------------------------------

    @rule(tenant=TENANT, state=st.sampled_from((None, "pending", "approved")))
    def approvals(self, tenant: str, state: str | None) -> None:
        self.both(tenant, lambda ledger, of: ledger.approvals(state=state, limit=5), unordered=True)

    @rule(
        tenant=TENANT,
        pick=PICK,
        decision=st.sampled_from(("approved", "approved", "rejected")),
        other=SOMETIMES,
    )
    def decide_approval(self, tenant: str, pick: int, decision: str, other: bool) -> None:
        known = sorted(
            (row.approval_id, row.arguments_sha256)
            for key, row in self.twins.tables.approvals.items()
            if key[0] == tenant
        ) or [("none", "0" * 64)]
        approval_id, sha256 = known[pick % len(known)]
        self.both(
            tenant,
            lambda ledger, of: ledger.decide_approval(
                approval_id, decision, "f" * 64 if other else sha256, "ann", reason="so"
            ),
        )

    # people --------------------------------------------------------------------------

    @rule(
        tenant=TENANT,
        pick=PICK,
        action=st.sampled_from(("retry", "retry", "accept", "answer", "cancel")),
        words=st.sampled_from((None, "better")),
        onward=SOMETIMES,
    )
    def decide(self, tenant: str, pick: int, action: str, words: str | None, onward: bool) -> None:
        task_id, job_id = self.task(tenant, pick, TaskState.ESCALATED, TaskState.WAITING)
        following = NextTask(capability="research") if onward else None
        self.both(
            tenant,
            lambda ledger, of: ledger.decide(
                task_id, action, job_id=job_id, actor="ann", words=words, next=following
            ),
        )

    @rule(tenant=TENANT, job=JOB, one=st.booleans(), pick=PICK)
    def escalate(self, tenant: str, job: str, one: bool, pick: int) -> None:
        task_id, of_job = self.task(tenant, pick)
        whose, which = (of_job, task_id) if one else (job, None)
        self.both(
            tenant, lambda ledger, of: ledger.escalate(whose, "ann", task_id=which, reason="look at it")
        )

    @rule(tenant=TENANT, job=JOB, again=JOB, correction=st.sampled_from((None, None, "the right answer")))
    def clone(self, tenant: str, job: str, again: str, correction: str | None) -> None:
        self.both(
            tenant, lambda ledger, of: ledger.clone(job, f"{again}-again", "ann", correction=correction)
        )

    @rule(tenant=TENANT, pick=PICK, who=WHO)
    def assign(self, tenant: str, pick: int, who: str) -> None:
        task_id, _ = self.task(tenant, pick, TaskState.QUEUED)
        self.both(tenant, lambda ledger, of: ledger.assign(task_id, who, "ann"))

    @rule(
        tenant=TENANT,
        agent=st.sampled_from(("r1", "r2", "nobody")),
        action=st.sampled_from(("pause", "resume", "resume", "drain", "restart")),
        one=SOMETIMES,
    )
    def command(self, tenant: str, agent: str, action: str, one: bool) -> None:
        incarnation = f"{agent}-a" if one else None
        self.both(
            tenant,
            lambda ledger, of: ledger.command(
                f"c{len(self.claims)}-{self.twins.now.timestamp()}",
                agent,
                action,
                "ann",
                incarnation=incarnation,
            ),
            unordered=True,
        )

    # foreign agents --------------------------------------------------------------------

    @rule(tenant=TENANT, job=JOB, wire=st.booleans())
    def submit_for_a_stranger(self, tenant: str, job: str, wire: bool) -> None:
        more = {"conversation_id": "talk", "wire_task_id": f"wire {job}"} if wire else {}
        asked = new_job(f"{job}-away", capability=None, agent=STRANGER, **more)
        self.both(tenant, lambda ledger, of: ledger.submit(asked))
        self.both(tenant, lambda ledger, of: ledger.foreign_tasks(5), unordered=True)

    def stranger(self, tenant: str, pick: int) -> ForeignTask | None:
        found = self.both(tenant, lambda ledger, of: ledger.foreign_tasks(5), unordered=True).memory
        return found[pick % len(found)] if found else None

    @rule(tenant=TENANT, pick=PICK, seconds=st.sampled_from((5, 60)))
    def forward(self, tenant: str, pick: int, seconds: int) -> None:
        task, until = self.stranger(tenant, pick), self.twins.now + timedelta(seconds=seconds)
        task_id = task.task_id if task else self.task(tenant, pick)[0]
        self.both(tenant, lambda ledger, of: ledger.forward(task_id, until))

    @rule(tenant=TENANT, pick=PICK, good=st.booleans(), retryable=st.booleans(), late=SOMETIMES)
    def forward_ended(self, tenant: str, pick: int, good: bool, retryable: bool, late: bool) -> None:
        task = self.stranger(tenant, pick)
        if task is None:
            task_id, job_id = self.task(tenant, pick, TaskState.FORWARDED)
            attempt = 0
        else:
            task_id, job_id, attempt = task.task_id, task.job_id, task.attempt - late
        outcome = finish("from afar") if good else Failure(code="llm_error", message="m", retryable=retryable)
        self.both(tenant, lambda ledger, of: ledger.forward_ended(task_id, attempt, outcome, job_id))

    # the chain ---------------------------------------------------------------------------

    @rule(tenant=TENANT, after=st.sampled_from((0, 3)))
    def seal(self, tenant: str, after: int) -> None:
        self.both(tenant, lambda ledger, of: ledger.seal(1000))
        self.both(tenant, lambda ledger, of: ledger.sealed_changes(after, 200))
        assert not self.both(tenant, lambda ledger, of: ledger.broken_links(5)).memory

    @rule(tenant=TENANT, sealed=st.booleans(), keep=st.sampled_from((0.0, 5.0, 60.0)))
    def bury(self, tenant: str, sealed: bool, keep: float) -> None:
        """Retention; what the sealer has not seen stays."""
        if sealed:
            self.both(tenant, lambda ledger, of: ledger.seal(1000))
        self.both(tenant, lambda ledger, of: retired(ledger, keep / 86400))
        assert not self.both(tenant, lambda ledger, of: ledger.broken_links(5)).memory

    @rule(
        tenant=TENANT,
        holder=st.sampled_from(("ops-a", "ops-a", "ops-b")),
        limit=st.sampled_from((1, 3)),
        lease=st.sampled_from((5, 40)),
        types=st.sampled_from((TOLD, TOLD, EVENTS)),
    )
    def take_notices(self, tenant: str, holder: str, limit: int, lease: int, types: tuple[str, ...]) -> None:
        self.both(
            tenant,
            lambda ledger, of: ledger.notices.take(
                "webhook", holder, types, limit=limit, lease_seconds=lease
            ),
        )
        self.both(tenant, lambda ledger, of: ledger.notices.standing("webhook", types))

    @rule(
        tenant=TENANT,
        holder=st.sampled_from(("ops-a", "ops-a", "ops-b")),
        number=st.sampled_from((0, 2, 5, 20)),
        failures=st.sampled_from((0, 0, 3)),
        rest=st.sampled_from((0, 10)),
        ends=st.booleans(),
    )
    def keep_notices(
        self, tenant: str, holder: str, number: int, failures: int, rest: int, ends: bool
    ) -> None:
        place = Place(
            number=min(number, self.twins.tables.sealed_number),
            failures=failures,
            refusals=failures // 2,
            reason="it answers 500" if failures else None,
        )
        self.both(
            tenant,
            lambda ledger, of: ledger.notices.keep("webhook", holder, place, seconds=rest, ends=ends),
        )

    @rule(tenant=TENANT)
    def decisions(self, tenant: str) -> None:
        self.both(tenant, lambda ledger, of: ledger.decisions(3600, limit=5))
