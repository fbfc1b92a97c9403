"""A process that starts while the ledger is away: it waits instead of ending."""

import asyncio
from pathlib import Path

import pytest

from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.errors import Agent2389Error, Conflict, Unreachable
from agent2389.ledger.fleet import AgentRecord
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.states import AgentState
from tests.support.agent_house import ScriptedModel, house
from tests.support.waiting import until
from tests.unit.test_worker_drain import worker_of


class Refusing(MemoryLedger):
    """Registers nobody while it has something to say against it."""

    refusal: Agent2389Error | None = None
    asked = 0

    async def register(self, agent: AgentRecord) -> None:
        if self.refusal is not None:
            self.asked += 1
            raise self.refusal
        await super().register(agent)


@pytest.mark.parametrize("comes_back", [True, False])
async def test_an_agent_waits_for_the_ledger_or_for_its_end(tmp_path: Path, comes_back: bool) -> None:
    ledger, broker = Refusing(), MemoryBroker(MemoryServer())
    async with house(tmp_path, ScriptedModel(), ledger=ledger) as place:
        worker = await worker_of(place, broker)
        ledger.refusal = Unreachable("ledger", "away")
        life = asyncio.create_task(worker.run())
        await until(lambda: ledger.asked > 0)
        assert worker.state is AgentState.STARTING
        if comes_back:
            ledger.refusal = None
            await until(lambda: worker.state is AgentState.RUNNING)
        worker.ask_drain()
        await asyncio.wait_for(life, 5)
    await broker.close()


async def test_what_waiting_does_not_mend_ends_the_process(tmp_path: Path) -> None:
    ledger, broker = Refusing(), MemoryBroker(MemoryServer())
    async with house(tmp_path, ScriptedModel(), ledger=ledger) as place:
        worker = await worker_of(place, broker)
        ledger.refusal = Conflict("another one lives")
        with pytest.raises(Conflict, match="another one lives"):
            await worker.run()
    await broker.close()
