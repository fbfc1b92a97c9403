"""What the journal costs: bytes kept per call as a job grows, and what a killed task of 20 calls repeats.

Run: .venv/bin/python bench/journal.py [CALLS]. A real Postgres, the real agent, a model that answers at once
and counts what it is asked. Prints a markdown table. The comparison in one run is a journal that stores the
whole conversation with every call, which is what message lists in checkpoints come to.
"""

import asyncio
import datetime as dt
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent2389.broker.local import local_broker
from agent2389.ledger.embedded import embedded_postgres
from agent2389.ledger.migrate import migrate, provision_login
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import NewJob
from agent2389.ledger.states import JobState
from agent2389.telemetry.children import start, stop

LEASE = 3.0
SAID = (
    "A sentence that a tool gave back, of about one hundred characters, so that every call weighs the same."
)
AGENT = """
toolkits = ["echo"]
[agent]
id = "{name}"
capabilities = ["{name}"]
[llm]
provider = "openai"
model = "counted"
base_url = "{url}/v1"
api_key_env = "COUNTED_KEY"
max_retries = 0
context_tokens = 1000000
[budget]
max_iterations = {most}
max_tool_calls = {most}
[worker]
lease_seconds = {lease}
"""


class CountedModel:
    """Calls ``echo`` until ``calls`` answers were given, then ends; counts how often each was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        self.calls: dict[str, int] = {}
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = next(item["content"] for item in body["messages"] if item["role"] == "user").split()[-1]
        step = sum(item["role"] == "assistant" for item in body["messages"])
        self.asked[name, step] += 1
        last = step + 1 >= self.calls[name]
        message: dict[str, Any] = {"role": "assistant", "content": "done" if last else None}
        if not last:
            arguments = json.dumps({"text": f"{step}: {SAID}"})
            call = {
                "id": f"c{step}",
                "type": "function",
                "function": {"name": "echo", "arguments": arguments},
            }
            message["tool_calls"] = [call]
        choice = {"index": 0, "message": message, "finish_reason": "stop" if last else "tool_calls"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        made = {"id": "x", "object": "chat.completion", "created": 0, "model": "counted"}
        return web.json_response({**made, "choices": [choice], "usage": usage})

    async def serve(self) -> web.AppRunner:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/v1/chat/completions", self.answer)
        app.router.add_get("/v1/models", lambda _: web.json_response({"object": "list", "data": []}))
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # noqa: SLF001
        return runner


async def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    model = CountedModel()
    runner = await model.serve()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        async with embedded_postgres(data / "postgres") as server, local_broker(data / "broker") as broker:
            await migrate(server.dsn)
            await provision_login(server.dsn, "bench", "bench-word")
            dsn = f"postgresql://bench:bench-word@{server.dsn.rpartition('@')[2]}"
            environ = {
                **os.environ,
                "DATABASE_URL": dsn,
                "MQTT_BROKER_URL": broker.url,
                "COUNTED_KEY": "x",
                "HEALTH_PORT": "0",
                "LOG_LEVEL": "error",
            }
            ledger = await PostgresLedger.open(dsn, lease_seconds=LEASE)
            admin = await asyncpg.connect(server.dsn)
            print(
                f"`bench/journal.py {calls}` · {platform.machine()}, {os.cpu_count()} cores, "
                f"Python {platform.python_version()} · {dt.date.today()}\n"
            )
            print("| calls of a job | bytes kept | per call | whole conversation with every call |")
            print("|---|---|---|---|")
            for number in (calls // 4, calls // 2, calls):
                await grown(ledger, admin, model, data, environ, number)
            await resumed(ledger, model, data, environ)
            await admin.close()
            await ledger.close()
    await runner.cleanup()


async def grown(ledger: Any, admin: Any, model: CountedModel, data: Path, environ: Any, calls: int) -> None:
    name = f"grow{calls}"
    process = await job(ledger, model, data, environ, name, calls)
    await ended(ledger, name)
    await stop(process)
    bodies = await admin.fetch(
        "SELECT s.step, octet_length(m.body) AS size FROM agent2389.transcript s "
        "JOIN agent2389.messages m USING (tenant, sha256) "
        "JOIN agent2389.tasks t USING (tenant, task_id) WHERE t.job_id = $1 ORDER BY s.step, s.slot",
        name,
    )
    kept = sum(row["size"] for row in bodies)
    so_far = whole = 0
    for row in bodies:
        so_far += row["size"]
        whole += so_far
    print(f"| {calls} | {kept:,} | {kept / calls:,.0f} | {whole:,} ({whole / kept:.0f} x) |")


async def resumed(ledger: Any, model: CountedModel, data: Path, environ: Any) -> None:
    """Killed when call 15 of 20 was answered and recorded; the next process goes on."""
    name = "resume"
    process = await job(ledger, model, data, environ, name, 20)
    while model.asked[name, 14] == 0:
        await asyncio.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    killed_at = time.monotonic()
    made = sum(count for (job_id, _), count in model.asked.items() if job_id == name)
    again = await start(
        (sys.executable, "-m", "agent2389", "run", str(data / f"{name}.toml")),
        data / "again.log",
        environ=environ,
    )
    while sum(count for (job_id, _), count in model.asked.items() if job_id == name) == made:
        await asyncio.sleep(0.001)
    gone_on = time.monotonic() - killed_at
    await ended(ledger, name)
    await stop(again)
    asked = [model.asked[name, step] for step in range(20)]
    finished_twice = sum(count > 1 for count in asked[:14])
    print(
        f"\nA task of 20 calls killed while call 15 was under way: the next process went on after "
        f"{gone_on:.1f} s (lease {LEASE:g} s, its start included); finished calls repeated: "
        f"{finished_twice}; calls asked for in all: {sum(asked)}."
    )


async def job(ledger: Any, model: CountedModel, data: Path, environ: Any, name: str, calls: int) -> Any:
    model.calls[name] = calls
    file = data / f"{name}.toml"
    file.write_text(AGENT.format(name=name, url=model.url, most=calls + 5, lease=LEASE))
    said = f"count for {name}"
    await ledger.submit(
        NewJob(
            job_id=name,
            content_hash=name,
            instruction=said,
            capability=name,
            submission={"instruction": said},
        )
    )
    command = (sys.executable, "-m", "agent2389", "run", str(file))
    return await start(command, data / f"{name}.log", environ=environ)


async def ended(ledger: Any, name: str) -> None:
    while (await ledger.job(name)).job.state in (JobState.QUEUED, JobState.RUNNING):
        await asyncio.sleep(0.05)
    state = (await ledger.job(name)).job.state
    assert state is JobState.COMPLETED, f"{name} is {state}"


if __name__ == "__main__":
    asyncio.run(main())
