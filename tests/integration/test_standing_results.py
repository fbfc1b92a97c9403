"""Of a task's proposed results one counts in the end, and none is left that still might."""

import asyncpg

from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import Failure, NextTask
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases
from tests.support.waiting import until


async def test_an_approval_leaves_no_earlier_draft_open(databases: Databases) -> None:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    admin = await asyncpg.connect(databases.admin_dsn(name))
    try:
        author, judge = await join(ledger, "r1", "research"), await join(ledger, "j1", "judging")
        await ledger.submit(new_job())
        first = await claim_one(ledger, author)
        failure = Failure(code="llm_error", message="away", retryable=True, partial="half a draft")
        await ledger.fail(first.fence, failure)

        async def claimed_again() -> object:
            return await ledger.claim_batch(author, 1)

        (second,) = await until(claimed_again)
        verify = NextTask(capability="judging")
        await ledger.finish(second.fence, finish("a whole one", verify=verify), "job-1")
        verdict = await claim_one(ledger, judge)
        await ledger.finish(verdict.fence, finish("good", verdict="approved"), "job-1")
        rows = await admin.fetch(
            "SELECT epoch, standing FROM agent2389.results WHERE task_id = $1 ORDER BY epoch",
            first.fence.task_id,
        )
        assert [tuple(row) for row in rows] == [(1, "superseded"), (2, "current")]
    finally:
        await admin.close()
        await ledger.close()
