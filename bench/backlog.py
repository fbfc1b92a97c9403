"""A long backlog meets its first agent: whether all of it is drained, and how much of it the broker shows.

Run: .venv/bin/python bench/backlog.py [TASKS] [SLOTS]. A real Postgres and a real broker; a subscriber that
was there all the time counts the open topics which the broker holds. Prints a markdown table.
"""

import asyncio
import datetime as dt
import os
import platform
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent2389.broker.address import parse_broker_url
from agent2389.broker.local import local_broker
from agent2389.broker.mqtt import MqttBroker
from agent2389.ledger.embedded import embedded_postgres
from agent2389.ledger.migrate import migrate, provision_login
from agent2389.ledger.records import NewJob
from agent2389.proving.witness import Witness
from agent2389.telemetry.logs import configure_logging
from agent2389.upkeep.chores import INTERVALS, Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.reconcile import Reconciler
from bench.wakes import POOL, CountingLedger, worker

AT_ONCE = 4
SHOWN_SECONDS = 2.0


async def submit(dsn: str, tasks: int) -> None:
    numbers = iter(range(tasks))

    async def one() -> None:
        ledger = await CountingLedger.open(dsn)
        for number in numbers:
            await ledger.submit(
                NewJob(
                    job_id=f"job-{number}", content_hash="x", instruction="x", capability=POOL, submission={}
                )
            )
        await ledger.close()

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


async def measure(dsn: str, url: str, tasks: int, slots: int) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        broker = MqttBroker(parse_broker_url(url))
        stack.push_async_callback(broker.close)
        connection = await broker.connect("witness")
        await connection.wait_connected(20)
        witness = Witness(connection)
        await witness.listen()
        began = time.monotonic()
        await submit(dsn, tasks)
        submitted = time.monotonic()
        ledgers = [await CountingLedger.open(dsn) for _ in range(2)]
        for ledger in ledgers:
            ledger.expect_chores(INTERVALS)
            stack.push_async_callback(ledger.close)
        own = await broker.connect("upkeep")
        await own.wait_connected(20)
        dispatcher = Dispatcher(ledgers[0], own)
        chores = Chores(ledgers[0], dispatcher, reconciler=Reconciler(ledgers[0], own, dispatcher))
        upkeep = asyncio.create_task(chores.run())
        while witness.most_open == 0:
            await asyncio.sleep(0.1)
        await asyncio.sleep(SHOWN_SECONDS)
        joined = time.monotonic()
        agent = await worker(ledgers[1], broker, 1, slots=slots)
        running = asyncio.create_task(agent.run())
        while agent.tasks_total < tasks:
            await asyncio.sleep(0.2)
            assert not running.done(), "the agent ended"
        drained = time.monotonic()
        agent.ask_drain()
        await running
        upkeep.cancel()
    return {
        "submitted per second": tasks / (submitted - began),
        "drained": agent.tasks_total,
        "drained per second": tasks / (drained - joined),
        "most open topics on the broker": witness.most_open,
    }


async def main() -> None:
    configure_logging("error")
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    slots = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_postgres(Path(folder)) as postgres, local_broker(Path(folder)) as broker:
            await migrate(postgres.dsn)
            await provision_login(postgres.dsn, "bench", "bench")
            address, _, database = postgres.dsn.rpartition("@")[2].partition("/")
            found = await measure(f"postgresql://bench:bench@{address}/{database}", broker.url, tasks, slots)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {dt.date.today()}"
    )
    print(f"\n| {tasks} tasks wait, one agent with {slots} slots joins | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.0f} |")


if __name__ == "__main__":
    asyncio.run(main())
