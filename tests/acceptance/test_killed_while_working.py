"""kill -9 at every named point of a task's work: another process goes on, and nothing paid is paid twice.

The witness is not ours to fool: a model endpoint and an HTTP service write down what they were asked.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio
from aiohttp import web

from agent2389.agent import faults
from agent2389.broker.local import local_broker
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.states import JobState, TaskState
from agent2389.telemetry.children import start, stop
from tests.support.jobs import new_job
from tests.support.mesh import clean_environ, command
from tests.support.postgres import Databases
from tests.support.waiting import until

LEASE = 2.0
IN_DOUBT = {("tools.begun", 2), ("tool.before_call", 3), ("tool.called", 3)}
"""Between the begin and the end of the call that cannot be taken back: nobody can know."""
SCENARIOS = (
    ("task.claimed", 1),
    ("files.laid_out", 1),
    ("model.before_begin", 1),
    ("model.begun", 1),
    ("model.answered", 2),
    ("model.ended", 2),
    ("tools.before_begin", 1),
    ("tools.begun", 1),
    ("tools.begun", 2),
    ("tool.before_call", 2),
    ("tool.before_call", 3),
    ("tool.called", 2),
    ("tool.called", 3),
    ("files.stored", 1),
    ("tool.ended", 3),
    ("tools.complete", 1),
    ("answer.ready", 1),
    ("routing.decided", 1),
    ("finish.before_write", 1),
    ("finish.written", 1),
)
AGENT = """
toolkits = ["workspace", "http"]
[agent]
id = "{name}"
capabilities = ["{name}"]
[llm]
provider = "openai"
model = "witness"
base_url = "{url}/v1"
api_key_env = "WITNESS_KEY"
max_retries = 0
[toolkit_config.http]
allow_private = ["127.0.0.1"]
ports = [{port}]
[approvals]
unsafe = "never"
[worker]
lease_seconds = {lease}
"""


class Witness:
    """Plays the model (two files at once, then one POST, then an answer) and counts everything."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, int]] = Counter()
        self.effects: Counter[str] = Counter()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def model(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = next(item["content"] for item in asked["messages"] if item["role"] == "user").split()[-1]
        step = sum(item["role"] == "assistant" for item in asked["messages"])
        self.calls[name, step] += 1
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "witness",
                "choices": [{"index": 0, **self._choice(name, step)}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }
        )

    def _choice(self, name: str, step: int) -> dict[str, Any]:
        calls = {
            0: [("write_file", {"path": f"{one}.txt", "content": one}) for one in ("a", "b")],
            1: [("http_request", {"method": "POST", "url": f"{self.url}/effect/{name}", "body": "x"})],
        }.get(step)
        if calls is None:
            return {"message": {"role": "assistant", "content": "all done"}, "finish_reason": "stop"}
        told = [
            {
                "id": f"c{step}{number}",
                "type": "function",
                "function": {"name": tool, "arguments": json.dumps(arguments)},
            }
            for number, (tool, arguments) in enumerate(calls)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": told}
        return {"message": message, "finish_reason": "tool_calls"}

    async def effect(self, request: web.Request) -> web.Response:
        self.effects[request.match_info["name"]] += 1
        return web.Response(text="noted")

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})


@pytest_asyncio.fixture
async def witness() -> AsyncIterator[Witness]:
    found = Witness()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", found.model)
    app.router.add_get("/v1/models", found.models)
    app.router.add_post("/effect/{name}", found.effect)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    yield found
    await runner.cleanup()


async def test_no_call_is_made_twice_whenever_an_agent_dies(
    databases: Databases, witness: Witness, tmp_path: Path
) -> None:
    assert len({point for point, _ in SCENARIOS}) >= 12
    assert {point for point, _ in SCENARIOS} <= set(faults.POINTS)
    dsn = databases.login_dsn(await databases.new())
    ledger = await PostgresLedger.open(dsn, lease_seconds=LEASE)
    at_once = asyncio.Semaphore(4)
    async with local_broker(tmp_path / "broker") as broker:
        environ = {
            **clean_environ(),
            "DATABASE_URL": dsn,
            "MQTT_BROKER_URL": broker.url,
            "WITNESS_KEY": "sk-witness",
            "HEALTH_PORT": "0",
        }

        async def one(number: int, point: str, nth: int) -> str | None:
            async with at_once:
                try:
                    return await _scenario(ledger, witness, tmp_path, environ, f"p{number}", point, nth)
                except (AssertionError, TimeoutError) as error:
                    return f"{point} {nth}: {error!r} {dict(witness.calls)}"[:600]

        problems = await asyncio.gather(*(one(number, *item) for number, item in enumerate(SCENARIOS)))
    await ledger.close()
    assert [problem for problem in problems if problem] == []


async def _scenario(
    ledger: PostgresLedger,
    witness: Witness,
    folder: Path,
    environ: dict[str, str],
    name: str,
    point: str,
    nth: int,
) -> str | None:
    """What is wrong after a death at ``point``, or ``None``."""
    file = folder / f"{name}.toml"
    file.write_text(AGENT.format(name=name, url=witness.url, port=witness.port, lease=LEASE))
    job = new_job(
        name, instruction=f"work for {name}", capability=name, submission={"instruction": f"work for {name}"}
    )
    await ledger.submit(job)
    dying = (sys.executable, "-m", "tests.support.dying_agent", point, str(nth), "run", str(file))
    first = await start(dying, folder / f"{name}-1.log", environ=environ)
    try:
        await asyncio.wait_for(first.wait(), 60)
    finally:
        await stop(first)
    if first.returncode != -signal.SIGKILL:
        return f"{point} {nth}: it was not killed there ({first.returncode})"
    second = await start(command("run", str(file)), folder / f"{name}-2.log", environ=environ)
    try:
        return await _judged(ledger, witness, name, point, nth)
    finally:
        await stop(second)


async def _judged(ledger: PostgresLedger, witness: Witness, name: str, point: str, nth: int) -> str | None:
    where = f"{point} {nth}"

    async def settled() -> bool:
        return (await ledger.job(name)).job.state is not JobState.RUNNING and (
            await ledger.job(name)
        ).job.state is not JobState.QUEUED

    await until(settled, 150)
    made = witness.effects[name]
    if (point, nth) in IN_DOUBT:
        task = (await ledger.job(name)).tasks[0]
        if task.state is not TaskState.ESCALATED:
            return f"{where}: in doubt and {task.state} instead of escalated"
        if made > 1:
            return f"{where}: the unsafe call was made {made} times"
        await ledger.resolve_effect(task.task_id, 1, 1, happened=True, answer="noted", actor="test")
        await until(settled_well(ledger, name), 150)
        if witness.effects[name] != made:
            return f"{where}: made again although a person said it happened"
    elif made != 1:
        return f"{where}: the unsafe call was made {made} times"
    detail = await ledger.job(name)
    if detail.job.state is not JobState.COMPLETED:
        return f"{where}: the job is {detail.job.state}"
    calls = [witness.calls[name, step] for step in range(3)]
    # Only the one call that was under way may have been asked for again: its answer was nowhere yet.
    allowed = {"model.begun": 0, "model.answered": 1}.get(point, 0)
    if sorted(calls) != [1, 1, 1] and sorted(calls) != [1, 1, 1 + allowed]:
        return f"{where}: model calls by step {calls}"
    files = {item["name"] for item in msgspec.json.decode(detail.final or "{}")["result"]["files"]}
    return None if files == {"a.txt", "b.txt"} else f"{where}: files {sorted(files)}"


def settled_well(ledger: PostgresLedger, name: str) -> Any:
    async def completed() -> bool:
        return (await ledger.job(name)).job.state is JobState.COMPLETED

    return completed
