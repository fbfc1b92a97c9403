"""The guards of the database itself: not even a superuser by hand writes a row that must not be."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import ApprovalRequest, Claim, NextTask, Waiting
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases

OWN = "owner_incarnation = 'me', lease_until = now() + interval '1 hour', token_hash = 'x'"
TASK = (
    "INSERT INTO agent2389.tasks (tenant, task_id, job_id, hop, pool, capability, rank, deadline, state, epoch,"
    " parent_task, slot) VALUES ('default', {task}, 'waits', 1, 'a', 'a', 5, now(), {state}, {epoch}, 'parent', 1)"
)
RESULT = (
    "INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, usage, agent_id,"
    " token_hash) SELECT tenant, task_id, epoch + 9, job_id, 'current', outcome, payload, usage, agent_id,"
    " token_hash FROM agent2389.results WHERE standing = 'current'"
)


def task(job: str, change: str) -> str:
    return f"UPDATE agent2389.tasks SET {change} WHERE job_id = '{job}'"


WRONG = {
    # what a row may hold
    "owner while queued": (task("waits", OWN), "23514"),
    "lease while queued": (task("waits", "lease_until = now()"), "23514"),
    "token while queued": (task("waits", "token_hash = 'x'"), "23514"),
    "owned without lease": (task("owned", "lease_until = NULL"), "23514"),
    "owned without token": (task("owned", "token_hash = NULL"), "23514"),
    "too many attempts": (task("waits", "attempt = 99"), "23514"),
    "too many crashes": (task("waits", "crashes = 99"), "23514"),
    "waiting for something while queued": (task("waits", 'waiting = \'{"for": "timer"}\''), "23514"),
    "held while queued": (task("waits", "held = '{}'"), "23514"),
    "two tasks in a slot": (
        TASK.format(task="'t'", state="'queued'", epoch=0)
        + ", ('default', 'u', 'waits', 1, 'a', 'a', 5, now(),"
        " 'queued', 0, 'parent', 1)",
        "23505",
    ),
    "two current results": (RESULT, "23505"),
    "open job without tasks": ("UPDATE agent2389.jobs SET open_tasks = 0 WHERE job_id = 'waits'", "23514"),
    # what a row may become
    "epoch falls": (task("owned", "epoch = epoch - 1"), "A2902"),
    "claim without epoch": (task("waits", f"state = 'in_progress', {OWN}"), "A2902"),
    "assignment without epoch": (task("waits", f"state = 'assigned', {OWN}"), "A2902"),
    "cancelled task moves": (task("gone", "reason = 'x'"), "A2903"),
    "completed task moves": (task("done", "reason = 'x'"), "A2903"),
    "queued to verified": (task("waits", "state = 'verified'"), "A2901"),
    "queued to completed": (task("waits", "state = 'completed', finished_at = now()"), "A2901"),
    "another job": (task("owned", "job_id = 'waits'"), "A2904"),
    "another pool": (task("waits", "pool = 'other'"), "A2904"),
    "another hop": (task("waits", "hop = 9"), "A2904"),
    "born completed": (TASK.format(task="'t'", state="'completed'", epoch=0), "A2901"),
    "born with an epoch": (TASK.format(task="'t'", state="'queued'", epoch=5), "A2901"),
    "ended job moves": ("UPDATE agent2389.jobs SET state = 'failed' WHERE job_id = 'done'", "A2903"),
    "another hash": ("UPDATE agent2389.jobs SET content_hash = 'x' WHERE job_id = 'done'", "A2903"),
    "another payload": ("UPDATE agent2389.job_results SET payload = '{}'", "A2903"),
    "another number": ("UPDATE agent2389.events SET number = number + 999 WHERE number IS NOT NULL", "A2903"),
    "another event": ("UPDATE agent2389.events SET type = 'x' WHERE number IS NULL", "A2903"),
    "another buried link": ("UPDATE agent2389.buried_links SET hash = 'x'", "A2903"),
    "superseded by hand": (
        "UPDATE agent2389.results SET standing = 'superseded' WHERE standing = 'current'",
        "A2903",
    ),
    "another proposal": ("UPDATE agent2389.results SET payload = '{}' WHERE standing = 'proposed'", "A2903"),
    "another decision": (
        "UPDATE agent2389.approvals SET state = 'rejected' WHERE state = 'approved'",
        "A2903",
    ),
    "decision about what was withdrawn": (
        "UPDATE agent2389.approvals SET state = 'approved' WHERE state = 'withdrawn'",
        "A2903",
    ),
    "other arguments": ("UPDATE agent2389.approvals SET arguments = '[]' WHERE state = 'pending'", "A2903"),
    **{
        f"delete of {table}": (f"DELETE FROM agent2389.{table}", "A2903")
        for table in ("tasks", "results", "job_results", "events", "approvals")
    },
}


class Ledger:
    """A ledger with a row of every kind, and a superuser's hand on it; nothing that it writes stays."""

    def __init__(self, runner: asyncio.Runner, connection: asyncpg.Connection) -> None:
        self._runner = runner
        self._connection = connection

    def attempt(self, statement: str) -> str | None:
        """The SQLSTATE of the refusal, if there is one."""
        return self._runner.run(self._attempt(statement))

    def rows(self, query: str) -> int:
        counted = self._connection.fetchval(f"SELECT count(*) FROM ({query}) counted")
        return int(self._runner.run(counted))

    async def _attempt(self, statement: str) -> str | None:
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            await self._connection.execute(statement)
        except asyncpg.PostgresError as refused:
            return str(refused.sqlstate)
        finally:
            await transaction.rollback()
        return None


async def _filled(databases: Databases) -> asyncpg.Connection:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    incarnation = await join(ledger)

    async def begun(job_id: str) -> Claim:
        await ledger.submit(new_job(job_id))
        return await claim_one(ledger, incarnation)

    claim = await begun("done")
    await ledger.finish(claim.fence, finish(), "done")
    await ledger.seal(1000)
    await ledger.submit(new_job("gone"))
    await ledger.cancel("gone", "me")
    claim = await begun("proposed")
    await ledger.finish(claim.fence, finish(verify=NextTask(capability="judging")), "proposed")
    claim = await begun("asks")
    asked = tuple(
        ApprovalRequest(
            approval_id=f"approval-{number}",
            tool="send",
            arguments="{}",
            arguments_sha256=f"{number:064x}",
            question="may I?",
        )
        for number in range(3)
    )
    await ledger.wait(claim.fence, Waiting(reason="approval", approvals=asked[:2]))
    await ledger.decide_approval("approval-0", "approved", asked[0].arguments_sha256, "ann")
    claim = await begun("withdrawn")
    await ledger.wait(claim.fence, Waiting(reason="approval", approvals=asked[2:]))
    await ledger.cancel("withdrawn", "me")
    await begun("owned")
    await ledger.submit(new_job("waits"))
    await ledger.close()
    connection = await asyncpg.connect(databases.admin_dsn(name))
    await connection.execute("INSERT INTO agent2389.buried_links VALUES (0, 'before', 'link')")
    return connection


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[Ledger]:
    with asyncio.Runner() as runner:
        connection = runner.run(_filled(databases))
        yield Ledger(runner, connection)
        runner.run(connection.close())


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_row_is_refused_whoever_writes_it(filled: Ledger, wrong: str) -> None:
    statement, sqlstate = WRONG[wrong]
    assert filled.attempt(statement) == sqlstate


@pytest.mark.parametrize(
    ("statement", "query"),
    [
        (task("waits", "reason = 'x'"), "SELECT FROM agent2389.tasks WHERE job_id = 'waits'"),
        (
            task("proposed", "reason = 'x'"),
            "SELECT FROM agent2389.tasks WHERE state = 'completed' AND held IS NOT NULL",
        ),
        (
            "UPDATE agent2389.results SET standing = 'superseded' WHERE standing = 'proposed'",
            "SELECT FROM agent2389.results WHERE standing = 'proposed'",
        ),
        (
            "UPDATE agent2389.approvals SET state = 'withdrawn', decided_at = now() WHERE state = 'pending'",
            "SELECT FROM agent2389.approvals WHERE state = 'pending'",
        ),
        (
            "UPDATE agent2389.approvals SET state = 'pending', decided_at = NULL WHERE state = 'withdrawn'",
            "SELECT FROM agent2389.approvals WHERE state = 'withdrawn'",
        ),
    ],
)
def test_what_is_allowed_meets_a_row_and_passes(filled: Ledger, statement: str, query: str) -> None:
    """Refusals above would prove nothing if every statement were refused, or met no row."""
    assert filled.rows(query) > 0
    assert filled.attempt(statement) is None
