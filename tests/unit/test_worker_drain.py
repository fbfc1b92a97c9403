"""A process that leaves: what it owns ends first, whatever was under way when it was asked to go."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from agent2389.agent.presence import Announcer
from agent2389.agent.worker import Worker
from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import Claim
from agent2389.llm.messages import Reply, Request
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from tests.support.agent_house import House, ScriptedModel, house, says
from tests.support.jobs import new_job
from tests.support.waiting import until

SHORT_SECONDS = 0.2


class HeldModel(ScriptedModel):
    """Answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, asyncio.Event] = {}

    async def answer(self, request: Request) -> Reply:
        text = request.turns[-1].text
        job_id = next(name for name in ("first", "second") if name in text)
        await self.asked.setdefault(job_id, asyncio.Event()).wait()
        return says(f"{job_id} done")


class SlowClaims(MemoryLedger):
    """The answer to a claim comes when the test lets it; the claim itself is made at once."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()
        self.under_way = False

    async def claim_batch(self, incarnation: str, most: int) -> Sequence[Claim]:
        claims = await super().claim_batch(incarnation, most)
        self.under_way = bool(claims)
        await self.answers.wait()
        return claims


async def worker_of(place: House, broker: MemoryBroker) -> Worker:
    parts = place.parts
    announcer = Announcer(parts.configuration, parts.incarnation, await place.ledger.mesh_id())
    connection = await broker.connect("r1", will=announcer.will())
    by_hand = await broker.connect("r1-intake", manual_acknowledgement=True)
    dispatcher = Dispatcher(place.ledger, connection)
    intake = Intake(place.ledger, by_hand, dispatcher)
    return Worker(parts, place.ledger, connection, intake, dispatcher, announcer, place.run)


async def test_a_claim_answered_after_the_last_task_ended_is_worked_on_to_its_end(tmp_path: Path) -> None:
    """Otherwise the process left with a task of its own, which waited for the end of its lease."""
    ledger, model = SlowClaims(), HeldModel()
    broker = MemoryBroker(MemoryServer())
    async with house(tmp_path, model, ledger=ledger) as place:
        worker = await worker_of(place, broker)
        await ledger.submit(new_job("job-1", instruction="the first"))
        life = asyncio.create_task(worker.run())
        await until(lambda: "first" in model.asked)

        ledger.answers.clear()
        ledger.under_way = False
        await ledger.submit(new_job("job-2", instruction="the second"))
        worker._claimer.look()
        await until(lambda: ledger.under_way)
        worker.ask_drain()
        model.asked["first"].set()
        await until(lambda: worker.tasks_total == 1)
        ledger.answers.set()
        await until(lambda: "second" in model.asked)

        await asyncio.sleep(SHORT_SECONDS)
        assert not life.done(), "it left with a task in work"
        model.asked["second"].set()
        await life
        assert await place.text_of("job-2") == "second done"
    await broker.close()
