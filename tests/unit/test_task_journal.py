"""The agent's side of the journal when the task is stopped while the ledger is away."""

import asyncio
import gc
from typing import Any, cast

import pytest

from agent2389.agent.journal import TaskJournal
from agent2389.agent.parts import Running
from agent2389.errors import Unreachable
from agent2389.ledger.journal import EffectEnd, OwnLimits
from tests.support.jobs import claim_one, join, new_job
from tests.support.stepped import SteppedMemory
from tests.support.waiting import until


class Away:
    """A ledger that never answers, and tells when it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def effect_end(self, *_: Any) -> str:
        self.asked += 1
        raise Unreachable("ledger", "the database does not answer")


async def test_a_write_that_outlives_its_task_fails_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, away, loop = SteppedMemory(), Away(), asyncio.get_running_loop()
    monkeypatch.setattr("agent2389.agent.journal.WRITE_PAUSE_SECONDS", 0.01)
    unheard: list[str] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context["message"]))
    incarnation = await join(ledger)
    await ledger.submit(new_job())
    running = Running(await claim_one(ledger, incarnation), loop.time())
    journal = TaskJournal(cast("Any", away), running, OwnLimits())
    before = asyncio.all_tasks()
    ending = asyncio.create_task(journal.end([EffectEnd(step=0, call=0)], []))
    await until(lambda: away.asked > 0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    running.lease_deadline = loop.time()
    await until(lambda: asyncio.all_tasks() <= before)
    gc.collect()
    assert unheard == []
