"""Each invariant is broken by hand, with the guards switched off, and fsck sees it."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest
import pytest_asyncio

from agent2389.errors import NotAllowed, NotFound
from agent2389.ledger.inspection import Inspector, Problem
from agent2389.ledger.journal import Amounts, EffectEnd, EffectStart, OwnLimits
from agent2389.ledger.migrate import provision_login
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import ApprovalRequest, Budget, Failure, NextTask, Usage, Waiting
from agent2389.proving.fsck import Report, inspect
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases


class Broken(NamedTuple):
    """A ledger with one job of each kind, a superuser to break it, and the inspector."""

    ledger: PostgresLedger
    admin: asyncpg.Connection
    inspector: Inspector

    async def by(self, *statements: str) -> None:
        await self.admin.execute("SET session_replication_role = replica")
        for statement in statements:
            await self.admin.execute(statement)
        await self.admin.execute("SET session_replication_role = DEFAULT")

    async def report(self) -> Report:
        return await inspect(self.inspector, None)

    async def violations(self, invariant: str) -> list[Problem]:
        return [item for item in (await self.report()).violations if item.invariant == invariant]


@pytest_asyncio.fixture
async def broken(databases: Databases) -> AsyncIterator[Broken]:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    admin = await asyncpg.connect(databases.admin_dsn(name))
    inspector = await Inspector.open(databases.login_dsn(name))
    try:
        agent = await join(ledger)
        await ledger.submit(new_job("done"))
        claim = await claim_one(ledger, agent)
        await ledger.finish(claim.fence, finish("one", NextTask(capability="research")), "done")
        await ledger.finish((await claim_one(ledger, agent)).fence, finish("two"), "done")
        await ledger.submit(new_job("cancelled"))
        await ledger.cancel("cancelled", "a person")
        await ledger.submit(new_job("owned"))
        await claim_one(ledger, agent)
        await ledger.submit(new_job("waits"))
        await ledger.outbox_sent([row["id"] for row in await admin.fetch("SELECT id FROM agent2389.outbox")])
        yield Broken(ledger, admin, inspector)
    finally:
        await inspector.close()
        await admin.close()
        await ledger.close()


async def test_a_healthy_ledger_only_settles(broken: Broken) -> None:
    report = await broken.report()
    assert report.is_clean
    assert {item.subject for item in report.settling if item.invariant == "I2"} == {"owned", "waits"}
    assert set(report.not_checked) == {"I13"}


TASKS, JOBS, RESULTS = "agent2389.tasks", "agent2389.jobs", "agent2389.results"
NO_CHECKS = """DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'agent2389.tasks'::regclass AND contype = 'c' LOOP
        EXECUTE format('ALTER TABLE agent2389.tasks DROP CONSTRAINT %I', name);
    END LOOP;
END $$"""
LAST_OF_DONE = "job_id = 'done' AND hop = 2"


@pytest.mark.parametrize(
    ("invariant", "says", "statements"),
    [
        ("I1", "gone", [f"DELETE FROM {TASKS} WHERE job_id = 'waits'", f"DELETE FROM {JOBS} WHERE job_id = 'waits'"]),
        (
            "I1",
            "no job",
            [
                ("INSERT INTO agent2389.outbox (tenant, kind, job_id, body) VALUES ('default', 'receipt', 'never', "
                '\'{"verdict": "accepted"}\')')
            ],
        ),
        ("I2", "never end", [f"DELETE FROM {TASKS} WHERE job_id = 'waits'"]),
        (
            "I2",
            "nobody is to give",
            [(f"UPDATE {TASKS} SET state = 'completed', held = '{{}}', owner_incarnation = NULL, lease_until = NULL, "
             "token_hash = NULL WHERE job_id = 'owned'")],
        ),
        ("I3", "without a result", ["DELETE FROM agent2389.job_results WHERE job_id = 'done'"]),
        ("I3", "has the result", ["UPDATE agent2389.job_results SET state = 'failed' WHERE job_id = 'done'"]),
        ("I3", "0 current", [f"DELETE FROM {RESULTS} WHERE job_id = 'done'"]),
        ("I3", "1 current", [f"UPDATE {TASKS} SET state = 'dead' WHERE {LAST_OF_DONE}"]),
        (
            "I3",
            "2 current",
            [
                "DROP INDEX agent2389.results_one_current",
                (f"INSERT INTO {RESULTS} SELECT tenant, task_id, 9, job_id, standing, outcome, payload, decision, "
                f"usage, agent_id, NULL, token_hash, at FROM {RESULTS} WHERE job_id = 'done'"),
            ],
        ),
        ("I4", "never given", [f"UPDATE {RESULTS} SET epoch = 7"]),
        ("I4", "by thief", [f"UPDATE {RESULTS} SET agent_id = 'thief'"]),
        (
            "I4",
            "after epoch 2",
            [
                f"UPDATE {RESULTS} SET at = at + interval '1 minute'",
                ("INSERT INTO agent2389.events (tenant, job_id, task_id, type, agent_id, data) SELECT tenant, job_id, "
                "task_id, type, agent_id, '{\"epoch\": 2}' FROM agent2389.events WHERE type = 'task.claimed'"),
            ],
        ),
        ("I5", "given epochs 1", [f"UPDATE {TASKS} SET epoch = 3 WHERE job_id = 'owned'"]),
        ("I5", "given epochs 1, 1", [("INSERT INTO agent2389.events (tenant, job_id, task_id, type, data) SELECT tenant, "
            "job_id, task_id, type, data FROM agent2389.events WHERE type = 'task.claimed'")]),
        (
            "I6",
            "exactly when owned",
            [
                NO_CHECKS,
                f"UPDATE {TASKS} SET token_hash = NULL, lease_until = NULL WHERE job_id = 'owned'",
            ],
        ),
        (
            "I7",
            "its job ended",
            [f"UPDATE {JOBS} SET state = 'cancelled', open_tasks = 0, finished_at = now() WHERE job_id = 'owned'"],
        ),
        (
            "I7",
            "told to cancel",
            [
                ("INSERT INTO agent2389.events (tenant, job_id, task_id, type) SELECT tenant, job_id, task_id, "
                f"'task.completed' FROM {TASKS} WHERE job_id = 'cancelled'")
            ],
        ),
        ("I8", "counts 5", [f"UPDATE {JOBS} SET open_tasks = 5 WHERE job_id = 'waits'"]),
        (
            "I8",
            "2 tasks stand in slot 0 after the submission",
            [
                (f"INSERT INTO {TASKS} (tenant, task_id, job_id, hop, pool, capability, rank, deadline, state) "
                f"SELECT tenant, 'twin', job_id, hop, pool, capability, rank, deadline, 'dead' FROM {TASKS} "
                "WHERE job_id = 'waits'")
            ],
        ),
        (
            "I9",
            "nothing says",
            [f"UPDATE {TASKS} SET state = 'expired' WHERE job_id = 'waits'"],
        ),
        (
            "I9",
            "given out afterwards",
            [
                ("INSERT INTO agent2389.events (tenant, job_id, task_id, type, data) SELECT tenant, job_id, task_id, "
                f"'task.claimed', '{{\"epoch\": 1}}' FROM {TASKS} WHERE job_id = 'cancelled'")
            ],
        ),
        ("I9", "switched off", [f"ALTER TABLE {TASKS} DISABLE TRIGGER guard"]),
        ("I9", "legal in one", ["INSERT INTO agent2389.transitions VALUES ('dead', 'queued')"]),
        (
            "I10",
            "spent 9",
            [f"UPDATE {JOBS} SET cost_usd = 9, budget = '{{\"cost_usd\": 1}}' WHERE job_id = 'done'"],
        ),
        ("I11", "hop 17 of 16", [f"UPDATE {TASKS} SET hop = 17 WHERE {LAST_OF_DONE}"]),
        (
            "I11",
            "crash 9 of 3",
            [NO_CHECKS, f"UPDATE {TASKS} SET crashes = 9 WHERE {LAST_OF_DONE}"],
        ),
        (
            "I13",
            "not on the board",
            ["DELETE FROM agent2389.board", ("UPDATE agent2389.tasks SET queued_at = now() - interval '3 minutes', "
             "run_after = now() - interval '3 minutes', claimed_at = now() - interval '3 minutes'")],
        ),
        (
            "I13",
            "does not stand",
            [("INSERT INTO agent2389.board (tenant, kind, key, payload, changed_at) VALUES ('default', 'open', "
             "'{research,none,0}', '{}', now() - interval '3 minutes')")],
        ),
        (
            "I13",
            "another payload",
            ["UPDATE agent2389.board SET payload = '{}', changed_at = now() - interval '3 minutes' WHERE kind = 'result'",
             "UPDATE agent2389.job_results SET at = now() - interval '3 minutes'"],
        ),
        ("I15", "does not force", [f"ALTER TABLE {TASKS} NO FORCE ROW LEVEL SECURITY"]),
        ("I15", "no task of this tenant", [f"UPDATE {RESULTS} SET task_id = 'elsewhere-' || task_id"]),
        (
            "I16",
            "looks like a secret",
            [("UPDATE agent2389.events SET data = '{\"reason\": \"sk-abcdefghijklmnopqrstuvwxyz\"}' "
             "WHERE type = 'job.accepted'")],
        ),
        (
            "I16",
            "looks like a secret",
            [(f"UPDATE {TASKS} SET error = '{{\"message\": \"postgresql://me:secret@host/db is away\"}}' "
             "WHERE job_id = 'waits'")],
        ),
        (
            "I17",
            "not sent",
            [("INSERT INTO agent2389.outbox (tenant, kind, job_id, body, created_at) VALUES ('default', 'receipt', "
             "'done', '{}', now() - interval '2 minutes')")],
        ),
        ("I17", "not sent", ["UPDATE agent2389.board SET sent_version = NULL, changed_at = now() - interval '3 minutes'"]),
    ],
)  # fmt: skip
async def test_a_broken_invariant_is_found(
    broken: Broken, invariant: str, says: str, statements: list[str]
) -> None:
    assert (await broken.report()).is_clean
    await broken.by(*statements)
    assert says in " · ".join(item.message for item in await broken.violations(invariant))


async def test_young_differences_are_settling(broken: Broken) -> None:
    await broken.by(
        "DELETE FROM agent2389.board",
        "INSERT INTO agent2389.outbox (tenant, kind, job_id, body) VALUES ('default', 'receipt', 'done', '{}')",
    )
    report = await broken.report()
    assert report.is_clean
    assert {item.invariant for item in report.settling} == {"I2", "I13", "I17"}


async def test_of_many_problems_the_first_stands_for_the_rest(broken: Broken) -> None:
    await broken.by(
        f"INSERT INTO {RESULTS} SELECT tenant, 'none-' || n, 1, job_id, 'current', 'completed', payload, decision, "
        f"usage, agent_id, NULL, token_hash, at FROM {RESULTS}, generate_series(1, 100) n "
        f"WHERE task_id = (SELECT task_id FROM {TASKS} WHERE {LAST_OF_DONE})",
    )
    found = await broken.violations("I15")
    assert len(found) == 20
    assert sum(item.times for item in found) == 100


async def test_repair_recounts_ends_and_shows(broken: Broken) -> None:
    await broken.by(
        f"UPDATE {JOBS} SET open_tasks = 5 WHERE job_id = 'waits'",
        f"UPDATE {TASKS} SET state = 'completed', owner_incarnation = NULL, lease_until = NULL, token_hash = NULL, "
        "finished_at = now() WHERE job_id = 'owned'",
        f"INSERT INTO {RESULTS} (tenant, task_id, epoch, job_id, standing, outcome, payload, usage, agent_id, "
        f"incarnation, token_hash) SELECT tenant, task_id, epoch, job_id, 'current', 'completed', '{{\"text\": \"x\"}}', '{{}}', "
        f"owner_agent, 'r1-incarnation', '' FROM {TASKS} WHERE job_id = 'owned'",
        "DELETE FROM agent2389.board",
    )
    assert {item.invariant for item in (await broken.report()).violations} == {"I2", "I8"}
    report = await inspect(broken.inspector, None, repair=True)
    assert report.is_clean
    assert report.repaired["jobs_recounted"] == 1
    assert report.repaired["jobs_ended"] == 1
    # The ended job's own transaction shows its result, so two of the three were missing.
    assert report.repaired["results_shown"] == 2
    assert (await broken.ledger.job("owned")).job.state == "completed"


async def test_only_operators_may_look(databases: Databases) -> None:
    name = await databases.new()
    await provision_login(databases.admin_dsn(name), "only_agent", "x", groups=("agent2389_agent",))
    inspector = await Inspector.open(databases.login_dsn(name, "only_agent", "x"))
    try:
        with pytest.raises(NotAllowed):
            await inspector.problems()
    finally:
        await inspector.close()


async def test_an_unsafe_call_that_was_made_twice_is_seen(broken: Broken) -> None:
    columns = (
        "tenant, task_id, job_id, generation, step, call, kind, name, repeat, request_hash, key, state, epoch"
    )
    await broken.by(
        "DROP INDEX agent2389.effects_unsafe_once",
        *(
            f"INSERT INTO agent2389.effects ({columns}) SELECT tenant, task_id, job_id, 0, {step}, 0, 'tool', "
            f"'pay', 'unsafe', 'hash', 'key', 'done', 1 FROM {TASKS} WHERE job_id = 'owned'"
            for step in (1, 2)
        ),
    )
    (found,) = await broken.violations("I12")
    assert found.message == "made the unsafe call pay 2 times"


async def test_a_sealed_event_that_was_changed_is_seen(broken: Broken) -> None:
    await broken.ledger.seal(1000)
    assert await broken.violations("I14") == []
    await broken.by(
        """UPDATE agent2389.events SET data = '{"forged": true}' WHERE hash IS NOT NULL AND job_id = 'cancelled'"""
    )
    assert await broken.violations("I14")


async def test_the_receipt_of_a_buried_job_may_still_be_on_its_way(broken: Broken) -> None:
    await broken.by(
        f"UPDATE {JOBS} SET finished_at = finished_at - interval '8 days' WHERE job_id = 'cancelled'",
        "INSERT INTO agent2389.outbox (tenant, kind, job_id, body) VALUES ('default', 'receipt', 'cancelled', "
        '\'{"verdict": "accepted"}\')',
    )
    await broken.ledger.seal(1000)
    await broken.ledger.retire(7)
    with pytest.raises(NotFound):
        await broken.ledger.job("cancelled")
    assert await broken.violations("I1") == []


async def test_an_answer_of_a_person_takes_an_epoch_that_nobody_was_given(broken: Broken) -> None:
    await broken.ledger.escalate("waits", "ann", reason="mine")
    task_id = (await broken.ledger.job("waits")).tasks[0].task_id
    await broken.ledger.decide(task_id, "answer", job_id="waits", actor="ann", words="it is so")
    assert await broken.violations("I5") == []
    await broken.by(f"UPDATE {RESULTS} SET outcome = 'completed' WHERE job_id = 'waits'")
    assert [item.subject for item in await broken.violations("I5")] == [task_id]


async def test_an_answer_of_a_stranger_takes_an_epoch_that_nobody_was_given(broken: Broken) -> None:
    await broken.ledger.submit(new_job("abroad", capability=None, agent="stranger"))
    (task,) = await broken.ledger.foreign_tasks(10)
    await broken.ledger.forward(task.task_id, task.deadline)
    await broken.ledger.forward_ended(task.task_id, task.attempt, finish("hello"), "abroad")
    assert await broken.violations("I5") == []
    await broken.by(f"UPDATE {RESULTS} SET agent_id = 'thief' WHERE job_id = 'abroad'")
    assert [item.subject for item in await broken.violations("I5")] == [task.task_id]


async def test_an_assignment_takes_an_epoch_whether_it_is_acknowledged_or_not(broken: Broken) -> None:
    task_id = (await broken.ledger.job("waits")).tasks[0].task_id
    await broken.ledger.assign(task_id, "r1-incarnation", "ann")
    assert await broken.violations("I5") == []
    await broken.by(f"UPDATE {TASKS} SET lease_until = now() - interval '5 minutes' WHERE job_id = 'waits'")
    await broken.ledger.reap()
    assert await broken.violations("I5") == []
    await broken.by(f"UPDATE {TASKS} SET run_after = now() WHERE job_id = 'waits'")
    await broken.ledger.assign(task_id, "r1-incarnation", "ann")
    assert (await claim_one(broken.ledger, "r1-incarnation")).fence.epoch == 2
    assert await broken.violations("I5") == []


async def test_the_last_call_of_a_failed_attempt_may_pass_the_limit(broken: Broken) -> None:
    await broken.ledger.cancel("waits", "ann")
    await broken.ledger.submit(new_job("dear", budget=Budget(cost_usd=1.0)))
    fence = (await claim_one(broken.ledger, "r1-incarnation")).fence
    start = EffectStart(
        step=0, call=0, kind="model", name="m", repeat="pure", request_hash="h", reserve=Amounts(cost_usd=0.9)
    )
    assert (await broken.ledger.effect_begin(fence, [start], OwnLimits())).verdict == "ok"
    await broken.ledger.effect_end(fence, [EffectEnd(step=0, call=0, used=Amounts(cost_usd=1.2))])
    spent = Failure(code="llm_error", message="no", retryable=False, usage=Usage(cost_usd=1.2))
    await broken.ledger.fail(fence, spent)
    assert await broken.violations("I10") == []
    await broken.by(f"UPDATE {JOBS} SET cost_usd = 2.3 WHERE job_id = 'dear'")
    assert [item.subject for item in await broken.violations("I10")] == ["dear"]


async def test_a_question_stands_on_the_board_until_it_is_decided(broken: Broken) -> None:
    fence = (await claim_one(broken.ledger, "r1-incarnation")).fence
    asked = ApprovalRequest(
        approval_id="a1", tool="pay", arguments="{}", arguments_sha256="0" * 64, question="May I?"
    )
    await broken.ledger.wait(fence, Waiting(reason="approval", approvals=(asked,)))
    await broken.by(
        "UPDATE agent2389.board SET changed_at = now() - interval '5 minutes' WHERE kind = 'approval'",
        "UPDATE agent2389.approvals SET asked_at = now() - interval '5 minutes'",
    )
    assert await broken.violations("I13") == []
    await broken.by("UPDATE agent2389.approvals SET state = 'rejected', decided_at = now()")
    assert "does not stand" in (await broken.violations("I13"))[0].message
    await broken.by(
        "UPDATE agent2389.approvals SET state = 'pending', decided_at = NULL",
        "DELETE FROM agent2389.board WHERE kind = 'approval'",
    )
    assert "not on the board" in (await broken.violations("I13"))[0].message


async def test_who_moves_into_the_first_hundred_has_time_to_be_shown(broken: Broken) -> None:
    for number in range(110):
        await broken.ledger.submit(new_job(f"one of many {number}", capability="writing"))
    await broken.by(
        f"UPDATE {TASKS} SET queued_at = now() - interval '5 minutes', run_after = now() - interval '5 minutes' WHERE state = 'queued'"
    )
    await broken.ledger.refresh_board()
    await broken.by("UPDATE agent2389.board SET sent_version = version, on_wire = true")
    assert await broken.violations("I13") == []
    await join(broken.ledger, "w1", "writing")
    claims = await broken.ledger.claim_batch("w1-incarnation", 5)
    report = await broken.report()
    assert not [item for item in report.violations if item.invariant == "I13"]
    # Five moved up, and five are still shown that were claimed.
    late = [item for item in report.settling if item.message == "is not on the board"]
    assert len([item for item in late if item.subject.startswith("open")]) == len(claims)
    await broken.by(f"DELETE FROM agent2389.board b USING {TASKS} x WHERE b.key[2] = x.task_id "
                    "AND x.job_id = 'one of many 10'")  # fmt: skip
    assert ["not on the board" in item.message for item in await broken.violations("I13")] == [True]
