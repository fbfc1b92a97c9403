"""An agent at work on the ledger in memory, with its own small HTTP face behind aiohttp's test client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient

from agent2389 import __version__
from agent2389.agent.presence import Announcer
from agent2389.agent.worker import Worker
from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.insight.health import Health
from agent2389.ledger.fleet import Beat, BeatReply
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.states import AgentState
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from agent2389.wiring.agent import _application, _Process
from tests.support.agent_house import ScriptedModel, house
from tests.support.ops import as_served
from tests.support.waiting import until


class CountedBeats(MemoryLedger):
    """Remembers how many beats were answered."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = 0

    async def beat(self, beat: Beat) -> BeatReply:
        reply = await super().beat(beat)
        self.beats += 1
        return reply


class Face:
    """A running agent and a client of its HTTP face."""

    def __init__(self, client: TestClient[Any, Any], ledger: CountedBeats, worker: Worker) -> None:
        self.client = client
        self.ledger = ledger
        self.worker = worker

    async def act(self, action: str) -> tuple[int, Any]:
        response = await self.client.post("/action", json={"action": action})
        return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        response = await self.client.get(path)
        return response.status, await response.json(content_type=None)

    async def beaten(self, more: int = 2) -> None:
        """Until the ledger has told the agent ``more`` times what it wishes."""
        enough = self.ledger.beats + more
        await until(lambda: self.ledger.beats >= enough)


@asynccontextmanager
async def running_face(folder: Path, **sections: Any) -> AsyncIterator[Face]:
    ledger, broker = CountedBeats(), MemoryBroker(MemoryServer())
    quick = {"worker": {"lease_seconds": 1}, **sections}
    async with house(folder, ScriptedModel(), ledger=ledger, **quick) as place:
        parts = place.parts
        announcer = Announcer(parts.configuration, parts.incarnation, await ledger.mesh_id())
        connection = await broker.connect("r1", will=announcer.will())
        by_hand = await broker.connect("r1-intake", manual_acknowledgement=True)
        process = _Process()
        process.dispatcher = Dispatcher(ledger, connection)
        intake = Intake(ledger, by_hand, process.dispatcher)
        worker = Worker(parts, ledger, connection, intake, process.dispatcher, announcer, place.run)
        process.worker, process.waiting_for = worker, ""
        health = Health(agent_id="r1", state=lambda: worker.state)
        health.started_up = True
        metrics = Metrics(__version__)
        app = _application(parts.configuration, parts.incarnation, process, health, metrics, [ledger])
        life = asyncio.create_task(worker.run())
        await until(lambda: worker.state is AgentState.RUNNING)
        async with TestClient(await as_served(app)) as client:
            yield Face(client, ledger, worker)
        worker.ask_drain()
        await life
    await broker.close()
