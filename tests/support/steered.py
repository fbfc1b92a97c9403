"""A real ledger on Postgres whose clock and dice a test holds in its hand.

The migrated functions stay as they are but for one word: ``clock_timestamp()`` becomes a function
that reads a row which the test writes (and ``random()`` becomes one half), so that hours pass in no
time and both ledgers see the same moment to the microsecond.
"""

import random
import re
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from tests.support.postgres import Databases

_FOUNDATION = """
CREATE TABLE public.steered (moment timestamptz NOT NULL);
INSERT INTO public.steered VALUES ('2026-01-01T00:00:00Z');
CREATE FUNCTION public.steered_clock() RETURNS timestamptz LANGUAGE sql SECURITY DEFINER
    AS 'SELECT moment FROM public.steered';
CREATE FUNCTION public.steered_ms(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE
    AS 'SELECT (extract(epoch FROM moment) * 1000)::bigint';
CREATE FUNCTION public.steered_dice() RETURNS double precision LANGUAGE sql AS 'SELECT 0.5::float8';
"""
_FUNCTIONS = """
SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('agent2389', 'agent2389_v1')
    AND p.prosrc ~ '(clock_timestamp|statement_timestamp|[^_]random)\\(\\)'
"""
_DEFAULTS = """
SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', d.adrelid::regclass, a.attname,
    replace(pg_get_expr(d.adbin, d.adrelid), 'clock_timestamp()', 'public.steered_clock()'))
FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE pg_get_expr(d.adbin, d.adrelid) LIKE '%clock_timestamp()%'
"""
_ROWS = """
SELECT format('DELETE FROM %I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'agent2389'
    AND tablename NOT IN ('meta', 'principals', 'transitions', 'migrations')
"""
_UNSEALED = "UPDATE agent2389.meta SET sealed_number = 0, sealed_hash = '', chain_begins = ''"
_LOOK = """
WITH moved AS (UPDATE public.steered SET moment = $1)
SELECT jsonb_build_object(
    'tasks', (SELECT jsonb_agg(jsonb_build_array(tenant, task_id, state, epoch, attempt, crashes, rung,
        owner_incarnation, owner_agent, stop_requested, public.steered_ms(lease_until), public.steered_ms(run_after), public.steered_ms(deadline), public.steered_ms(finished_at))
        ORDER BY tenant, task_id COLLATE "C") FROM agent2389.tasks),
    'jobs', (SELECT jsonb_agg(jsonb_build_array(tenant, job_id, state, open_tasks, hops, input_tokens,
        round(cost_usd, 4), public.steered_ms(finished_at)) ORDER BY tenant, job_id COLLATE "C") FROM agent2389.jobs),
    'results', (SELECT jsonb_agg(jsonb_build_array(tenant, task_id, epoch, standing, incarnation)
        ORDER BY tenant, task_id COLLATE "C", epoch) FROM agent2389.results),
    'finals', (SELECT jsonb_agg(jsonb_build_array(tenant, job_id, state, public.steered_ms(at))
        ORDER BY tenant, job_id COLLATE "C") FROM agent2389.job_results),
    'agents', (SELECT jsonb_agg(jsonb_build_array(tenant, incarnation, state, free_slots, public.steered_ms(last_beat), tasks_total)
        ORDER BY tenant, incarnation COLLATE "C") FROM agent2389.agents),
    'notices', (SELECT jsonb_agg(jsonb_build_array(tenant, name, number, failures, refusals, reason, holder, public.steered_ms(free_at))
        ORDER BY tenant, name COLLATE "C") FROM agent2389.notices),
    'links', (SELECT jsonb_agg(jsonb_build_array(number, buried) ORDER BY number) FROM (
        SELECT number, false AS buried FROM agent2389.events WHERE hash IS NOT NULL
        UNION ALL SELECT number, true FROM agent2389.buried_links) links),
    'outbox', (SELECT count(*) FROM agent2389.outbox))::text
"""


class Dice(random.Random):
    """Back-off takes the middle on both sides; tokens stay random."""

    def random(self) -> float:
        return 0.5


class Steering:
    """The superuser's hand on one database: its clock, its rows."""

    def __init__(self, connection: asyncpg.Connection, name: str) -> None:
        self._connection = connection
        self._clean = ""
        self.name = name

    @classmethod
    async def of(cls, databases: Databases) -> "Steering":
        """A fresh database whose functions read the steered clock."""
        name = await databases.new()
        admin = await asyncpg.connect(databases.admin_dsn(name))
        steering = cls(admin, name)
        await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        await admin.execute("SET session_replication_role = replica")
        await admin.execute(_FOUNDATION)
        for row in await admin.fetch(_FUNCTIONS):
            await admin.execute(_steered(row[0]))
        for row in await admin.fetch(_DEFAULTS):
            await admin.execute(row[0])
        cleared = [row[0] for row in await admin.fetch(_ROWS)]
        steering._clean = "; ".join([*cleared, _UNSEALED])
        return steering

    async def begin(self, moment: datetime) -> None:
        """No row, and ``moment`` as the time."""
        await self._connection.execute(self._clean)
        await self.look(moment)

    async def look(self, moment: datetime) -> dict[str, Any]:
        """What the tables hold; afterwards it is ``moment``."""
        return msgspec.json.decode(await self._connection.fetchval(_LOOK, moment), type=dict[str, Any])

    async def spoil(self, function: str, guard: str, wrong: str) -> None:
        """Break one guard of the database."""
        definition = await self._connection.fetchval("SELECT pg_get_functiondef($1::regproc)", function)
        assert guard in definition, f"{function} has no {guard!r}"
        await self._connection.execute(definition.replace(guard, wrong))

    async def close(self) -> None:
        await self._connection.close()


def _steered(definition: str) -> str:
    clocked = re.sub(r"\b(clock|statement)_timestamp\(\)", "public.steered_clock()", definition)
    return re.sub(r"\brandom\(\)", "public.steered_dice()", clocked)
