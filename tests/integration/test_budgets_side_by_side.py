"""Fifty tasks that spend at the same time, over many connections, pass no budget by more than one call."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent2389.ledger.journal import Amounts, EffectEnd, EffectStart, OwnLimits
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.port import Ledger
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import Budget, Claim, NextTask
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases

TASKS = 50
CONNECTIONS = 10
CALLS = 10
LIMIT = 1.0
RESERVE = 0.04
NO_LIMITS = OwnLimits()


Opened = Callable[[], Awaitable[list[Ledger]]]


@pytest.fixture(params=["memory", "postgres"])
def open_ledgers(request: pytest.FixtureRequest) -> Opened:
    """Opens one ledger over as many connections as there would be agents."""
    if request.param == "memory":

        async def memory() -> list[Ledger]:
            return [MemoryLedger()] * CONNECTIONS

        return memory
    databases: Databases = request.getfixturevalue("databases")

    async def postgres() -> list[Ledger]:
        dsn = databases.login_dsn(await databases.new())
        return [await PostgresLedger.open(dsn) for _ in range(CONNECTIONS)]

    return postgres


@pytest.fixture
async def ledgers(open_ledgers: Opened) -> AsyncIterator[list[Ledger]]:
    opened = await open_ledgers()
    yield opened
    for ledger in opened:
        await ledger.close()


async def of_many_jobs(ledger: Ledger, incarnation: str) -> list[Claim]:
    for number in range(TASKS):
        await ledger.submit(new_job(f"job-{number}"))
    return list(await ledger.claim_batch(incarnation, TASKS))


async def of_one_job(ledger: Ledger, incarnation: str) -> list[Claim]:
    """Fifty branches of one job with a budget."""
    await ledger.submit(new_job(budget=Budget(cost_usd=LIMIT)))
    first = await claim_one(ledger, incarnation)
    branches = [NextTask(slot=slot, capability="research") for slot in range(TASKS)]
    await ledger.finish(first.fence, finish("split", *branches), "job-1")
    return list(await ledger.claim_batch(incarnation, TASKS))


async def on_the_job(ledger: Ledger, incarnation: str) -> tuple[list[Claim], OwnLimits]:
    return await of_one_job(ledger, incarnation), NO_LIMITS


async def on_the_agents_day(ledger: Ledger, incarnation: str) -> tuple[list[Claim], OwnLimits]:
    return await of_many_jobs(ledger, incarnation), OwnLimits(day=Budget(cost_usd=LIMIT))


async def on_the_agents_month(ledger: Ledger, incarnation: str) -> tuple[list[Claim], OwnLimits]:
    return await of_many_jobs(ledger, incarnation), OwnLimits(month=Budget(cost_usd=LIMIT))


async def on_the_tenants_day(ledger: Ledger, incarnation: str) -> tuple[list[Claim], OwnLimits]:
    await ledger.set_limit("day", "cost_usd", LIMIT)
    return await of_many_jobs(ledger, incarnation), NO_LIMITS


async def on_the_tenants_month(ledger: Ledger, incarnation: str) -> tuple[list[Claim], OwnLimits]:
    await ledger.set_limit("month", "cost_usd", LIMIT)
    return await of_many_jobs(ledger, incarnation), NO_LIMITS


async def on_the_tenant(ledger: Ledger, incarnation: str) -> tuple[list[Claim], OwnLimits]:
    await ledger.set_limit("all", "cost_usd", LIMIT)
    return await of_many_jobs(ledger, incarnation), NO_LIMITS


Scope = Callable[[Ledger, str], Awaitable[tuple[list[Claim], OwnLimits]]]
SCOPES = (
    on_the_job,
    on_the_agents_day,
    on_the_agents_month,
    on_the_tenants_day,
    on_the_tenants_month,
    on_the_tenant,
)


class Purse:
    """What is spent, what is reserved for calls under way, and the most that both came to together."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.reserved = 0.0
        self.most = 0.0
        self.refused = 0

    def reserve(self) -> None:
        self.reserved += RESERVE
        self.most = max(self.most, self.spent + self.reserved)

    def settle(self, cost: float) -> None:
        self.reserved -= RESERVE
        self.spent += cost


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("share", [1.0, 0.5])
async def test_no_budget_is_passed_by_more_than_one_reservation(
    ledgers: list[Ledger], scope: Scope, share: float
) -> None:
    """``share`` is the least part of a reservation that a call really costs."""
    incarnation = await join(ledgers[0])
    claims, limits = await scope(ledgers[0], incarnation)
    assert len(claims) == TASKS
    dice = random.Random(2389)
    purse = Purse()

    async def work(number: int, claim: Claim) -> None:
        ledger = ledgers[number % CONNECTIONS]
        for step in range(CALLS):
            start = EffectStart(
                step=step,
                call=0,
                kind="model",
                name="m",
                repeat="pure",
                request_hash="h",
                reserve=Amounts(cost_usd=RESERVE),
            )
            begun = await ledger.effect_begin(claim.fence, [start], limits)
            if begun.verdict == "refused":
                purse.refused += 1
                return
            purse.reserve()
            await asyncio.sleep(dice.random() * 0.002)
            cost = RESERVE * dice.uniform(share, 1.0)
            # Counted as settled from here on: the ledger may grant what this frees before it answers us.
            purse.settle(cost)
            await ledger.effect_end(claim.fence, [EffectEnd(step=step, call=0, used=Amounts(cost_usd=cost))])

    await asyncio.gather(*(work(number, claim) for number, claim in enumerate(claims)))
    assert purse.most <= LIMIT + RESERVE + 1e-9
    assert purse.spent <= LIMIT + RESERVE + 1e-9
    assert purse.refused == TASKS
    assert purse.spent >= LIMIT * share - RESERVE, "and it could be used"
