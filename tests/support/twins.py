"""Two ledgers taken through the same steps: the one in memory, which says what is right, and Postgres."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from agent2389.errors import Agent2389Error
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.memory_tables import Tables
from agent2389.ledger.migrate import provision_login
from agent2389.ledger.port import Ledger
from agent2389.ledger.postgres import PostgresLedger
from agent2389.upkeep.chores import INTERVALS
from tests.support.postgres import Databases
from tests.support.steered import Dice, Steering

START = datetime(2026, 1, 1, tzinfo=UTC)
TENANTS = ("one", "two")
STEP = timedelta(milliseconds=1)
LEASE_SECONDS = 30.0
SECRET = {"token", "lease", "peers_digest", "known_peers"}
"""Random on each side, so never the same."""

Of = Callable[[Any], Any]
Ask = Callable[[Ledger, Of], Awaitable[Any]]


class Pair(msgspec.Struct, frozen=True):
    """The same answer as each side gave it; ``of`` picks the side that is being asked."""

    memory: Any
    postgres: Any


class PostgresSide:
    """One database for many runs: a login for each tenant, and the hand on its clock."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, steering: Steering, ledgers: dict[str, Ledger]
    ) -> None:
        self.loop = loop
        self.steering = steering
        self.ledgers = ledgers

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    @classmethod
    async def steered(cls, databases: Databases) -> "PostgresSide":
        """A fresh database on the test's clock, with a login for each tenant."""
        steering = await Steering.of(databases)
        for tenant in TENANTS:
            admin = databases.admin_dsn(steering.name)
            await provision_login(admin, f"mesh_{tenant}", "mesh-test", tenant=tenant)
        logins = {t: databases.login_dsn(steering.name, f"mesh_{t}", "mesh-test") for t in TENANTS}
        return await cls.open(steering, logins)

    @classmethod
    async def open(cls, steering: Steering, logins: dict[str, str]) -> "PostgresSide":
        ledgers: dict[str, Ledger] = {}
        for tenant, dsn in logins.items():
            ledgers[tenant] = await PostgresLedger.open(dsn, lease_seconds=LEASE_SECONDS)
            ledgers[tenant].expect_chores(INTERVALS)
        return cls(asyncio.get_running_loop(), steering, ledgers)

    async def close(self) -> None:
        for ledger in self.ledgers.values():
            await ledger.close()
        await self.steering.close()


class Twins:
    """``both`` asks each side the same and compares answer, tables and rules; time stands still between."""

    def __init__(self, postgres: PostgresSide | None) -> None:
        self.now = START
        self.tables = Tables(lambda: self.now, Dice(2389))
        self.memory = {name: MemoryLedger(tables=self.tables, tenant=name) for name in TENANTS}
        for ledger in self.memory.values():
            ledger.expect_chores(INTERVALS)
        self.postgres = postgres
        if postgres is not None:
            postgres.run(postgres.steering.begin(START))

    def both(self, tenant: str, ask: Ask, *, unordered: bool = False) -> Pair:
        """The two answers, which are the same but for secrets; errors are answers."""
        right = _answer(ask(self.memory[tenant], lambda pair: getattr(pair, "memory", pair)))
        other = right
        if self.postgres is not None:
            asked = ask(self.postgres.ledgers[tenant], lambda pair: getattr(pair, "postgres", pair))
            other = self.postgres.run(_caught(asked))
            expected, found = plain(right), plain(other)
            if unordered:
                expected, found = sorted(expected, key=json.dumps), sorted(found, key=json.dumps)
            assert found == expected, f"Postgres answers {found}, memory {expected}"
        self.step(STEP)
        return Pair(right, other)

    def step(self, time: timedelta) -> None:
        """Check every rule and both tables, then let ``time`` pass."""
        self.memory["one"].check_invariants()
        later = self.now + time
        if self.postgres is not None:
            found = self.postgres.run(self.postgres.steering.look(later))
            expected = shown(self.tables)
            for name, rows in expected.items():
                assert found[name] == rows, f"{name} in Postgres: {found[name]}, in memory: {rows}"
        self.now = later


def plain(answer: Any) -> Any:
    """An answer as JSON without what is random, and with embedded JSON opened."""
    if isinstance(answer, Agent2389Error):
        return {"error": type(answer).__name__, "code": getattr(answer, "code", None)}
    return _scrubbed(msgspec.to_builtins(answer))


def _scrubbed(value: Any) -> Any:
    match value:
        case dict():
            # Numbers of outbox rows differ; the order in which they are given does not.
            hidden = SECRET | ({"id"} if "body" in value else set())
            kept = {key: _scrubbed(item) for key, item in value.items() if key not in hidden}
            return kept | ({"due": sorted(kept["due"])} if "due" in kept else {})
        case list() | tuple():
            return [_scrubbed(item) for item in value]
        case float():
            return round(value, 4)
        case str() if value[:1] == "{":
            return _scrubbed(json.loads(value))
        case str() if value[10:11] == "T" and value[:2] == "20":
            return datetime.fromisoformat(value).isoformat()
        case _:
            return value


def shown(tables: Tables) -> dict[str, Any]:
    """The tables of the memory ledger as ``Steering.look`` tells those of Postgres."""
    rows: dict[str, Any] = {
        "tasks": [
            [
                t.tenant,
                t.task_id,
                t.state,
                t.epoch,
                t.attempt,
                t.crashes,
                t.rung,
                t.owner,
                t.agent_id,
                t.stop_requested,
                *map(_moment, (t.lease_until, t.run_after, t.deadline, t.finished_at)),
            ]
            for _, t in sorted(tables.tasks.items())
        ],
        "jobs": [
            [
                j.tenant,
                j.new.job_id,
                j.ended or "open",
                j.open_tasks,
                j.hops,
                j.used.input_tokens,
                None if j.used.cost_usd is None else round(j.used.cost_usd, 4),
                _moment(j.finished_at),
            ]
            for _, j in sorted(tables.jobs.items())
        ],
        "results": [
            [key[0], key[1], epoch, row.standing, row.incarnation]
            for key, epochs in sorted(tables.results.items())
            for epoch, row in sorted(epochs.items())
        ],
        "finals": [[*key, final.state, _moment(final.at)] for key, final in sorted(tables.finals.items())],
        "agents": [
            [*key, a.state, a.free_slots, _moment(a.last_beat), a.tasks_total]
            for key, a in sorted(tables.agents.items())
        ],
        "notices": [
            [
                *key,
                n.place.number,
                n.place.failures,
                n.place.refusals,
                n.place.reason,
                n.holder,
                _moment(n.free_at),
            ]
            for key, n in sorted(tables.notices.items())
        ],
        "links": sorted(
            [[event.number, False] for event in tables.events if event.link]
            + [[number, True] for number in tables.buried_links]
        ),
    }
    return {name: found or None for name, found in rows.items()} | {"outbox": len(tables.outbox)}


def _moment(moment: datetime | None) -> int | None:
    """Milliseconds of the epoch."""
    return None if moment is None else round(moment.timestamp() * 1000)


def _answer(asked: Awaitable[Any]) -> Any:
    """The answer of a ledger that never waits."""
    coroutine = _caught(asked)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the memory ledger waited for something")


async def _caught(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except Agent2389Error as error:
        return error
