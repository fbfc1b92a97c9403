"""Random ways through the ledger, taken in memory and on Postgres at once: every answer the same.

A new operation is one rule of three lines: draw, ask ``both`` sides, keep what later rules need.
"""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.records import Claim, Failure, NextTask, Rejection
from agent2389.ledger.states import AgentState, JobState, TaskState
from agent2389.upkeep.chores import INTERVALS
from tests.support.further_ways import JOB, RECENT, SOMETIMES, TENANT, WHO, FurtherWays, retired
from tests.support.jobs import finish, new_job
from tests.support.postgres import Databases
from tests.support.twins import TENANTS, Pair, PostgresSide, Twins


class Ways(FurtherWays):
    """Two tenants, three incarnations of two agents, four job ids."""

    postgres: ClassVar[PostgresSide | None] = None
    runs: ClassVar[int] = 0
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.twins = Twins(self.postgres)
        self.claims: list[tuple[str, Pair]] = []
        self.board: list[tuple[str, Pair]] = []

    def both(self, tenant: str, ask: Any, **options: Any) -> Pair:
        type(self).steps += 1
        return self.twins.both(tenant, ask, **options)

    def claim(self, back: int) -> tuple[str, Pair]:
        return self.claims[-1 - back % len(self.claims)]

    def assigned(self, tenant: str, who: str) -> list[str]:
        """Tasks that an operator gave to ``who`` and nobody has taken yet."""
        return sorted(
            task_id
            for (owner, task_id), row in self.twins.tables.tasks.items()
            if (owner, row.owner, row.state) == (tenant, who, TaskState.ASSIGNED)
        )

    def won(self, tenant: str, answer: Pair) -> None:
        many = isinstance(answer.memory, list)
        pairs = (
            zip(answer.memory, answer.postgres, strict=True) if many else [(answer.memory, answer.postgres)]
        )
        self.claims += [(tenant, Pair(*pair)) for pair in pairs if isinstance(pair[0], Claim)]

    @initialize()
    def everybody_is_there(self) -> None:
        for tenant in TENANTS:
            for who in ("r1-a", "r2-a"):
                self.register(tenant, who)
                self.beat(tenant, who, AgentState.RUNNING, 0)
            for job in ("job-0", "job-1"):
                self.submit_bare(tenant, job)

    # producers -------------------------------------------------------------------

    @rule(
        tenant=TENANT,
        job=JOB,
        other=SOMETIMES,
        bound=SOMETIMES,
        seconds=st.sampled_from((None, None, 5, 90)),
        later=SOMETIMES,
        priority=st.integers(4, 6),
        talk=SOMETIMES,
    )
    def submit(
        self,
        tenant: str,
        job: str,
        other: bool,
        bound: bool,
        seconds: int | None,
        later: bool,
        priority: int,
        talk: bool,
    ) -> None:
        now = self.twins.now
        changes: dict[str, Any] = {"capability": None, "agent": "r1"} if bound else {}
        changes |= {"deadline": now + timedelta(seconds=seconds)} if seconds else {}
        changes |= {"not_before": now + timedelta(seconds=40)} if later else {}
        changes |= {"conversation_id": "talk", "wire_task_id": "wire"} if talk else {}
        changes |= {"content_hash": "other"} if other else {}
        asked = new_job(job, priority=priority, max_hops=3, **changes)
        self.both(tenant, lambda ledger, of: ledger.submit(asked))

    @rule(tenant=TENANT, job=JOB)
    def submit_bare(self, tenant: str, job: str) -> None:
        asked = new_job(job, content_hash=f"bare {job}", recent_seconds=60)
        self.both(tenant, lambda ledger, of: ledger.submit(asked))

    @rule(tenant=TENANT, job=JOB)
    def cancel(self, tenant: str, job: str) -> None:
        self.both(tenant, lambda ledger, of: ledger.cancel(job, "me"))

    @rule(tenant=TENANT)
    def reject(self, tenant: str) -> None:
        refused = Rejection(topic="t", payload_sha256="x", size=1, code="malformed")
        self.both(tenant, lambda ledger, of: ledger.reject(refused))

    # agents ----------------------------------------------------------------------

    @rule(tenant=TENANT, who=WHO, leave=st.sampled_from((False,) * 9 + (True,)))
    def register(self, tenant: str, who: str, leave: bool = False) -> None:
        if leave:
            self.both(tenant, lambda ledger, of: ledger.stopped(who))
        name = who.partition("-")[0]
        record = AgentRecord(
            agent_id=name, incarnation=who, capabilities=("research",), singleton=name == "r2"
        )
        self.both(tenant, lambda ledger, of: ledger.register(record))

    @rule(
        tenant=TENANT,
        who=WHO,
        back=RECENT,
        state=st.sampled_from((*[AgentState.RUNNING] * 9, AgentState.PAUSED, AgentState.DRAINING)),
    )
    def beat(self, tenant: str, who: str, state: AgentState, back: int) -> None:
        held = [pair for owner, pair in self.claims[-1 - back :] if owner == tenant]
        self.both(
            tenant,
            lambda ledger, of: ledger.beat(
                Beat(incarnation=who, state=state, free_slots=2, held=tuple(of(pair).fence for pair in held))
            ),
        )

    @rule(tenant=TENANT, who=WHO, limit=st.integers(1, 3))
    def claim_batch(self, tenant: str, who: str, limit: int) -> None:
        # Which of several assigned tasks comes first is nobody's promise: all but one are named.
        for task_id in self.assigned(tenant, who)[1:]:
            self.won(tenant, self.both(tenant, lambda ledger, of: ledger.claim(task_id, who)))
        self.won(tenant, self.both(tenant, lambda ledger, of: ledger.claim_batch(who, limit)))

    @rule(tenant=TENANT, who=WHO, limit=st.integers(1, 2))
    def claim_again(self, tenant: str, who: str, limit: int) -> None:
        self.claim_batch(tenant, who, limit)

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, who=WHO)
    def claim_one(self, back: int, who: str) -> None:
        tenant, pair = self.claim(back)
        self.won(tenant, self.both(tenant, lambda ledger, of: ledger.claim(of(pair).fence.task_id, who)))

    # what chance alone would seldom bring together ----------------------------------

    @rule(tenant=TENANT, times=st.sampled_from((1, 1, 3)))
    def work_and_die(self, tenant: str, times: int) -> None:
        for _ in range(times):
            self.claim_batch(tenant, "r1-a", 1)
            self.later(31)
            self.reap(tenant)
            self.beat(tenant, "r1-a", AgentState.RUNNING, 0)

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, reaped=st.booleans())
    def sleep_through_the_lease(self, back: int, reaped: bool) -> None:
        self.later(31)
        if reaped:
            self.reap("one")
        self.beat(self.claim(back)[0], "r1-a", AgentState.RUNNING, 3)
        self.finish(back, 1, escalate=False)

    # owners, late ones too -----------------------------------------------------------

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, count=st.sampled_from((0, 0, 0, 1, 2)), escalate=SOMETIMES)
    def finish(self, back: int, count: int, escalate: bool) -> None:
        tenant, pair = self.claim(back)
        items = [NextTask(slot=slot, capability="research") for slot in range(count)]
        done = finish("x", *items, escalate=escalate)
        self.both(tenant, lambda ledger, of: ledger.finish(of(pair).fence, done, of(pair).job_id))

    @precondition(lambda self: self.claims)
    @rule(count=st.sampled_from((0, 1, 2)))
    def finish_the_newest(self, count: int) -> None:
        self.finish(0, count, escalate=False)

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, retryable=st.booleans(), partial=st.sampled_from(("", "half")))
    def fail(self, back: int, retryable: bool, partial: str) -> None:
        tenant, pair = self.claim(back)
        failure = Failure(code="llm_error", message="m", retryable=retryable, partial=partial)
        self.both(tenant, lambda ledger, of: ledger.fail(of(pair).fence, failure))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT)
    def release(self, back: int) -> None:
        tenant, pair = self.claim(back)
        self.both(tenant, lambda ledger, of: ledger.release(of(pair).fence, "drain"))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT, partial=st.sampled_from(("", "half")))
    def stop_task(self, back: int, partial: str) -> None:
        tenant, pair = self.claim(back)
        self.both(tenant, lambda ledger, of: ledger.stop_task(of(pair).fence, partial))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT)
    def checkpoint(self, back: int) -> None:
        tenant, pair = self.claim(back)
        self.both(tenant, lambda ledger, of: ledger.checkpoint(of(pair).fence, {}))

    @precondition(lambda self: self.claims)
    @rule(back=RECENT)
    def write_into_another_tenant(self, back: int) -> None:
        tenant, pair = self.claim(back)
        other = TENANTS[tenant == TENANTS[0]]
        self.both(other, lambda ledger, of: ledger.finish(of(pair).fence, finish(), of(pair).job_id))

    # upkeep ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.1, 0.3, 1, 3, 8, 12, 31, 61, 901)))
    def later(self, seconds: float) -> None:
        self.twins.step(timedelta(seconds=seconds))

    @rule(tenant=TENANT)
    def reap(self, tenant: str) -> None:
        self.both(tenant, lambda ledger, of: ledger.reap())

    @rule(
        tenant=TENANT,
        chore=st.sampled_from(("ring", "show", "show", "sent", "outbox", "retire", "take")),
    )
    def upkeep(self, tenant: str, chore: str) -> None:
        match chore:
            case "ring":
                self.both(tenant, lambda ledger, of: ledger.ring_due(), unordered=True)
            case "show":
                self.both(tenant, lambda ledger, of: ledger.refresh_board())
                shown = self.both(tenant, lambda ledger, of: ledger.lease_board(200), unordered=True)
                self.board.append((tenant, shown))
            case "sent" if self.board:
                whose, rows = self.board[-1]
                self.both(whose, lambda ledger, of: ledger.board_sent(of(rows)))
            case "sent":
                self.both(tenant, lambda ledger, of: ledger.board_reset())
            case "outbox":
                left = self.both(tenant, lambda ledger, of: ledger.take_outbox(50))
                self.both(tenant, lambda ledger, of: ledger.outbox_sent([row.id for row in of(left)[:1]]))
            case "retire":
                self.both(tenant, lambda ledger, of: retired(ledger, 7.0))
            case "take":
                self.both(tenant, lambda ledger, of: ledger.take_chore("reap", INTERVALS["reap"]))

    # reads -----------------------------------------------------------------------

    @rule(tenant=TENANT, job=JOB, state=st.sampled_from((None, *JobState)))
    def look(self, tenant: str, job: str, state: JobState | None) -> None:
        self.both(tenant, lambda ledger, of: ledger.job(job))
        self.both(tenant, lambda ledger, of: ledger.jobs(state=state, limit=3, before=job if state else None))
        self.both(tenant, lambda ledger, of: ledger.find_jobs("job-", 3))
        self.both(tenant, lambda ledger, of: ledger.agents())
        self.both(tenant, lambda ledger, of: ledger.pools())
        self.both(tenant, lambda ledger, of: ledger.job_counts())
        self.both(tenant, lambda ledger, of: ledger.unsent())


def ways(runs: int, steps: int, *, shrink: bool = True) -> settings:
    return settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        database=None,
        print_blob=True,
    )


@pytest.fixture
def postgres(databases: Databases) -> Iterator[PostgresSide]:
    with asyncio.Runner() as runner:
        side = runner.run(PostgresSide.steered(databases))
        yield side
        runner.run(side.close())


@pytest.mark.timeout(600)
def test_postgres_answers_like_the_memory_ledger(postgres: PostgresSide) -> None:
    machine: Any = type("OnBoth", (Ways,), {"postgres": postgres, "runs": 0, "steps": 0})
    run_state_machine_as_test(machine, settings=ways(500, 60))
    assert machine.runs >= 500
    assert machine.steps >= 500 * 60


@pytest.mark.timeout(600)
def test_the_same_short_walks_agree_each_time(postgres: PostgresSide) -> None:
    """Always the same walks, so that a broken database is told from a sound one without luck."""
    machine: Any = type("OnBoth", (Ways,), {"postgres": postgres, "runs": 0, "steps": 0})
    run_state_machine_as_test(machine, settings=settings(ways(120, 50, shrink=False), derandomize=True))
    assert machine.runs >= 100


@pytest.mark.timeout(600)
def test_the_memory_ledger_keeps_its_rules() -> None:
    machine: Any = type("InMemory", (Ways,), {"runs": 0, "steps": 0})
    run_state_machine_as_test(machine, settings=ways(5000, 20))
    assert machine.runs >= 5000


@pytest.mark.parametrize(
    ("function", "guard", "wrong"),
    [
        ("agent2389.take_fenced", "task.lease_until > public.steered_clock()", "true"),
        ("agent2389_v1.beat", "AND lease_until > public.steered_clock()", ""),
        ("agent2389.reap_owned", "task.crashes + 1 >= task.max_crashes", "task.crashes >= task.max_crashes"),
        ("agent2389_v1.submit", "known.content_hash = job ->> 'content_hash'", "true"),
        ("agent2389_v1.take_notices", "n.free_at <= public.steered_clock()", "true"),
        ("agent2389_v1.keep_notices", "n.holder = of_holder", "true"),
    ],
)
def test_a_spoiled_guard_is_found(postgres: PostgresSide, function: str, guard: str, wrong: str) -> None:
    postgres.run(postgres.steering.spoil(function, guard, wrong))
    machine: Any = type("Spoiled", (Ways,), {"postgres": postgres})
    with pytest.raises(BaseException, match="Postgres") as found:
        run_state_machine_as_test(machine, settings=ways(500, 60, shrink=False))
    assert isinstance(found.value, AssertionError | ExceptionGroup)
