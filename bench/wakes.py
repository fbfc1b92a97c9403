"""How many claims the agents of an idle pool attempt for each task: with one claim per wake, about one.

Run: .venv/bin/python bench/wakes.py [TASKS] [AGENTS...]. Real workers on a real Postgres and a real broker,
all in this process; each task comes alone, as into an idle mesh. Prints a markdown table.
"""

import asyncio
import datetime as dt
import os
import platform
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent2389.agent.parts import Observer, Parts, Running
from agent2389.agent.presence import Announcer
from agent2389.agent.worker import Worker
from agent2389.broker.address import parse_broker_url
from agent2389.broker.local import local_broker
from agent2389.broker.mqtt import MqttBroker
from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.ledger.embedded import embedded_postgres
from agent2389.ledger.migrate import migrate, provision_login
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import Finish, NewJob, RouteDecision, TaskResult, Usage
from agent2389.telemetry.logs import configure_logging
from agent2389.upkeep.chores import INTERVALS
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from agent2389.wire.names import new_uuid7

POOL = "research"
LEDGERS = 8
"""Agents share connections: a hundred of their own would measure Postgres' limit, not ours."""
WORK_SECONDS = 0.02
SETTLE_SECONDS = 4.5
"""Three beats, after which all replicas know one another."""
REST_SECONDS = 0.03
DONE = Finish(
    result=TaskResult(text="done"),
    usage=Usage(),
    decision=RouteDecision(strategy="bench", outcome="done", reason="one hop"),
)


class CountingLedger(PostgresLedger):
    """Counts the claims that reach the database."""

    counts: ClassVar[Counter[str]] = Counter()

    async def claim(self, task_id: str, incarnation: str) -> Any:
        won = await super().claim(task_id, incarnation)
        self.counts["wake, won" if won else "wake, lost"] += 1
        return won

    async def claim_batch(self, incarnation: str, limit: int) -> Any:
        won = await super().claim_batch(incarnation, limit)
        self.counts["look, won" if won else "look, empty"] += 1
        return won


class Quick:
    """Work that takes a moment and is always done."""

    def __init__(self, ledger: PostgresLedger, dispatcher: Dispatcher) -> None:
        self._ledger, self._dispatcher = ledger, dispatcher

    async def run(self, running: Running) -> str:
        await asyncio.sleep(WORK_SECONDS)
        written = await self._ledger.finish(running.claim.fence, DONE, running.claim.job_id)
        await self._dispatcher.perform(written.effects)
        return "completed"


async def worker(ledger: PostgresLedger, broker: MqttBroker, number: int, *, slots: int = 1) -> Worker:
    section = AgentSection(id=f"a{number}", capabilities=(POOL,), slots=slots)
    configuration = AgentConfiguration(agent=section)
    incarnation = new_uuid7()
    nothing: Any = None
    parts = Parts(
        configuration=configuration,
        incarnation=incarnation,
        observer=Observer(),
        model=nothing,
        router=nothing,
        fixed_router=nothing,
        tools=nothing,
        model_for_job=nothing,
    )
    connection = await broker.connect(f"a{number}-{incarnation}")
    await connection.wait_connected(20)
    dispatcher = Dispatcher(ledger, connection)
    quick: Any = Quick(ledger, dispatcher)
    announcer = Announcer(configuration, incarnation, await ledger.mesh_id())
    return Worker(
        parts, ledger, connection, Intake(ledger, connection, dispatcher), dispatcher, announcer, quick
    )


async def measure(dsn: str, url: str, agents: int, tasks: int) -> tuple[Counter[str], int]:
    """Claims by kind while ``tasks`` went through one after the other."""
    counts = CountingLedger.counts
    counts.clear()
    async with AsyncExitStack() as stack:
        ledgers = [await CountingLedger.open(dsn, role="agent2389_agent") for _ in range(LEDGERS)]
        broker = MqttBroker(parse_broker_url(url))
        stack.push_async_callback(broker.close)
        for ledger in ledgers:
            ledger.expect_chores(INTERVALS)
            stack.push_async_callback(ledger.close)
        workers = [await worker(ledgers[n % LEDGERS], broker, n) for n in range(agents)]
        running = [asyncio.create_task(one.run()) for one in workers]
        producer = Dispatcher(ledgers[0], await broker.connect("bench"))
        await asyncio.sleep(SETTLE_SECONDS)
        counts.clear()
        done = sum(one.tasks_total for one in workers)
        for number in range(tasks):
            submitted = await ledgers[0].submit(
                NewJob(
                    job_id=f"n{agents}-{number}",
                    content_hash="x",
                    instruction="x",
                    capability=POOL,
                    submission={},
                )
            )
            await producer.perform(submitted.effects)
            while sum(one.tasks_total for one in workers) - done <= number:
                await asyncio.sleep(0.002)
            await asyncio.sleep(REST_SECONDS)
        found = Counter(counts)
        for one in workers:
            one.ask_drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                await asyncio.gather(*running)
    return found, tasks


async def main() -> None:
    configure_logging("error")
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    sizes = [int(text) for text in sys.argv[2:]] or [1, 10, 100]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {dt.date.today()}\n"
    )
    print("| idle agents | tasks | claims for each task | by wake: won / lost | by looking: won / empty |")
    print("|---|---|---|---|---|")
    for agents in sizes:
        with tempfile.TemporaryDirectory() as folder:
            async with embedded_postgres(Path(folder)) as postgres, local_broker(Path(folder)) as broker:
                await migrate(postgres.dsn)
                await provision_login(postgres.dsn, "bench", "bench")
                address, _, database = postgres.dsn.rpartition("@")[2].partition("/")
                dsn = f"postgresql://bench:bench@{address}/{database}"
                counts, count = await measure(dsn, broker.url, agents, tasks)
        each = sum(counts.values()) / count
        wakes = f"{counts['wake, won']} / {counts['wake, lost']}"
        looks = f"{counts['look, won']} / {counts['look, empty']}"
        print(f"| {agents} | {count} | {each:.2f} | {wakes} | {looks} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
