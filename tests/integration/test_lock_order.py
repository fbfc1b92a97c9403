"""Statements that work side by side never wait for each other in a circle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from agent2389.ledger.fleet import Beat
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.states import AgentState
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases
from tests.support.waiting import until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"


@asynccontextmanager
async def house(databases: Databases) -> AsyncIterator[tuple[PostgresLedger, asyncpg.Connection, str]]:
    name = await databases.new()
    ledger = await PostgresLedger.open(databases.login_dsn(name))
    admin = await asyncpg.connect(databases.admin_dsn(name))
    try:
        yield ledger, admin, name
    finally:
        await ledger.close()
        await admin.close()


async def test_a_beat_that_waits_for_a_task_holds_no_agent(databases: Databases) -> None:
    async with house(databases) as (ledger, admin, name):
        incarnation = await join(ledger)
        await ledger.submit(new_job())
        claim = await claim_one(ledger, incarnation)
        beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=0, held=(claim.fence,))
        watcher = await asyncpg.connect(databases.admin_dsn(name))
        try:
            async with admin.transaction():
                await admin.execute("SELECT FROM agent2389.tasks FOR UPDATE")
                waiting = asyncio.create_task(ledger.beat(beat))
                await until(lambda: watcher.fetchval(WAITING, name))
                # What a finish of this agent does next, with the task's row in its hand.
                await admin.execute("SELECT FROM agent2389.agents FOR UPDATE NOWAIT")
            assert (await waiting).tasks == {claim.fence.task_id: "ok"}
        finally:
            await watcher.close()


async def test_beats_and_finishes_of_one_agent_never_deadlock(databases: Databases) -> None:
    async with house(databases) as (ledger, admin, name):
        incarnation = await join(ledger)
        for number in range(60):
            await ledger.submit(new_job(f"job-{number}"))
            claim = await claim_one(ledger, incarnation)
            beat = Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=0, held=(claim.fence,))
            written, *_ = await asyncio.gather(
                ledger.finish(claim.fence, finish("text"), claim.job_id), ledger.beat(beat)
            )
            assert written.verdict == "ok"
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1"
        assert await admin.fetchval(deadlocks, name) == 0


async def test_bringing_the_board_in_line_waits_for_no_sender(databases: Databases) -> None:
    async with house(databases) as (ledger, admin, _):
        await ledger.submit(new_job("one"))

        async def shown() -> bool:
            await ledger.refresh_board()
            return bool(await ledger.board_shown(("open",)))

        await until(shown)
        await ledger.cancel("one", "me")
        async with admin.transaction():
            await admin.execute("SELECT FROM agent2389.board FOR UPDATE")
            await ledger.submit(new_job("two"))

            async def new_one_too() -> bool:
                async with asyncio.timeout(1):
                    await ledger.refresh_board()
                return len(await ledger.board_shown(("open",))) == 2

            await until(new_one_too)
        await until(shown)

        async def first_is_cleared() -> bool:
            await ledger.refresh_board()
            return len(await ledger.lease_board(10)) + len(await ledger.board_shown(("open",))) > 0 and (
                [row.digest is None for row in await ledger.board_shown(("open",))].count(False) == 1
            )

        await until(first_is_cleared)


@pytest.mark.parametrize("rows", [1, 50])
async def test_two_senders_of_the_same_rows_do_not_deadlock(databases: Databases, rows: int) -> None:
    async with house(databases) as (ledger, admin, name):
        other = await PostgresLedger.open(databases.login_dsn(name))
        try:
            for number in range(rows):
                await ledger.submit(new_job(f"job-{number}"))
                await ledger.cancel(f"job-{number}", "me")
            taken = await ledger.lease_board(100)
            await asyncio.gather(ledger.board_sent(taken), other.board_sent(tuple(reversed(taken))))
            assert (
                await admin.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = $1", name) == 0
            )
            assert {row.sent for row in await ledger.board_shown(("result",))} == {False}, (
                "a lease is used once"
            )
        finally:
            await other.close()
