"""What an agent does with its task while the ledger is away: nothing is burnt, nothing is printed."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from agent2389.agent.journal import TaskJournal
from agent2389.agent.parts import Observer, Parts, Running
from agent2389.agent.task import TaskRun
from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.errors import Unreachable
from agent2389.ledger.records import Claim
from agent2389.ledger.states import TaskState
from agent2389.upkeep.dispatch import Dispatcher
from tests.support.jobs import claim_one, join, new_job
from tests.support.recorded_broker import RecordedConnection
from tests.support.stepped import SteppedMemory

NOTHING: Any = None


async def claimed(ledger: SteppedMemory) -> Claim:
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    return await claim_one(ledger, incarnation)


def task_run(ledger: SteppedMemory, folder: Path) -> TaskRun:
    section = AgentSection(id="r1", capabilities=("research",))
    parts = Parts(
        configuration=AgentConfiguration(agent=section),
        incarnation="r1-incarnation",
        model=NOTHING,
        router=NOTHING,
        fixed_router=NOTHING,
        tools=NOTHING,
        model_for_job=NOTHING,
        observer=Observer(),
    )
    return TaskRun(parts, ledger, Dispatcher(ledger, RecordedConnection()), folder)


@pytest.mark.parametrize(
    ("what", "outcome", "attempt"), [("ledger", "released", 0), ("endpoint", "failed", 1)]
)
async def test_an_outage_of_the_ledger_burns_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, outcome: str, attempt: int
) -> None:
    ledger = SteppedMemory()
    claim = await claimed(ledger)
    run = task_run(ledger, tmp_path)

    async def away(*_: object) -> str:
        raise Unreachable(what, "gone")

    monkeypatch.setattr(run, "_do", away)
    assert await run.run(Running(claim, asyncio.get_running_loop().time())) == outcome
    (task,) = (await ledger.job("job-1")).tasks
    assert (task.state, task.attempt) == (TaskState.QUEUED, attempt)


async def test_a_verdict_that_nobody_waits_for_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = SteppedMemory()
    running = Running(await claimed(ledger), asyncio.get_running_loop().time())
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def away(*_: object) -> str:
        asked.set()
        await go_on.wait()
        running.lease_deadline = 0.0
        raise Unreachable("ledger", "gone")

    monkeypatch.setattr(ledger, "effect_end", away)
    ending = asyncio.create_task(TaskJournal(ledger, running, NOTHING, None).end((), ()))
    await asked.wait()
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    go_on.set()
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
