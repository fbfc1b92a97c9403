"""The processes of a simulated mesh: agents and ops made of the real rooms, and a model that plays."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent2389.agent.parts import Observer, Parts
from agent2389.agent.presence import Announcer
from agent2389.agent.task import TaskRun
from agent2389.agent.worker import Worker
from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.config.model import AgentConfiguration, AgentSection, LifecycleSection, RoutingSection
from agent2389.config.rules import Condition, Rule
from agent2389.errors import ConfigurationError, ModelFailed, Unreachable
from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.port import Ledger
from agent2389.ledger.states import AgentState
from agent2389.llm.messages import Chunk, Finished, Reply, Request, Role, TokenUsage, ToolCall
from agent2389.llm.port import Model
from agent2389.router.build import build_fixed_router, build_router
from agent2389.router.policy import Policy, load_policy
from agent2389.telemetry import surroundings
from agent2389.tools.registry import ToolSet
from agent2389.upkeep.chores import Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from agent2389.upkeep.reconcile import Reconciler
from agent2389.wire.names import new_uuid7

BEAT_SECONDS = 10.0
POOLS = (("research",), ("writing",), ("research", "writing"), ("editing", "general"), ("research",))


def _own(capability: str) -> Condition:
    return Condition(path="$.own_capability", operator="equals", value=capability)


RULES = (
    Rule(conditions=(_own("research"),), to="writing", reason="research is written up"),
    Rule(conditions=(_own("writing"),), done=True, reason="written"),
    Rule(conditions=(_own("general"),), escalate=True, reason="only a person can say"),
)


class Temper(msgspec.Struct, frozen=True):
    """How the model behaves: probabilities, and the longest answer in seconds."""

    fails: float = 0.05
    refuses: float = 0.01
    calls_tool: float = 0.3
    slow: float = 0.05
    longest: float = 12.0


class Place(msgspec.Struct, frozen=True):
    """Where a process runs: its way to the ledger, to the broker, to a disk."""

    ledger: Callable[[], Ledger]
    server: MemoryServer
    folder: Path
    temper: Temper


class PlayedModel:
    """Takes its time, calls a tool, fails now and then, and answers."""

    provider = "rehearsal"
    name = "played"

    def __init__(self, temper: Temper) -> None:
        self._temper = temper

    async def answer(self, request: Request) -> Reply:
        """One answer, by chance."""
        temper, chance = self._temper, surroundings.chance()
        longest = 5 * temper.longest if chance.random() < temper.slow else temper.longest
        await asyncio.sleep(chance.uniform(0.05, longest))
        if chance.random() < temper.fails:
            raise ModelFailed("the endpoint is overloaded", retryable=True)
        if chance.random() < temper.refuses:
            raise ModelFailed("the endpoint refuses the request", retryable=False)
        used = TokenUsage(input=7, output=5)
        spoken = sum(turn.role is Role.ASSISTANT for turn in request.turns)
        if request.tools and spoken == 0 and chance.random() < temper.calls_tool:
            call = ToolCall("1", "echo", '{"text": "once more"}')
            return Reply(
                text="",
                tool_calls=(call,),
                usage=used,
                cost_usd=0.001,
                finished=Finished.TOOL_CALLS,
                model=self.name,
            )
        return Reply(
            text=f"an answer of {chance.randrange(1000)}", usage=used, cost_usd=0.001, model=self.name
        )

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The whole answer in one piece."""
        yield Chunk(reply=await self.answer(request))

    async def verify(self) -> None:
        """It always answers."""

    async def close(self) -> None:
        """It holds nothing."""


@functools.cache
def configuration_of(number: int) -> AgentConfiguration:
    """The file of agent ``number``; the fifth is a replica of the first."""
    agent_id = f"a{number % 4}"
    return AgentConfiguration(
        agent=AgentSection(id=agent_id, capabilities=POOLS[number % len(POOLS)], slots=2),
        toolkits=("echo",),
        routing=RoutingSection(strategy="rules", rules=RULES),
        lifecycle=LifecycleSection(drain_timeout_secs=20),
    )


@functools.cache
def _policy() -> Policy:
    return load_policy()


class AgentProcess:
    """One agent from its start to its end."""

    def __init__(self, place: Place, number: int) -> None:
        self.configuration = configuration_of(number)
        self.incarnation = ""
        self.worker: Worker | None = None
        self._place = place

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Its names on the broker."""
        own = f"{self.configuration.agent.id}-{self.incarnation}"
        return (own, f"{own}-intake")

    def ask_drain(self) -> None:
        """SIGTERM."""
        if self.worker is not None:
            self.worker.ask_drain()

    async def run(self) -> None:
        """What ``wiring.agent`` does, without HTTP and with everything given."""
        self.incarnation = new_uuid7()
        ledger = self._place.ledger()
        mesh_id = await _until_reached(ledger)
        broker = MemoryBroker(self._place.server)
        announcer = Announcer(self.configuration, self.incarnation, mesh_id)
        client_id, by_hand = self.client_ids
        connection = await broker.connect(client_id, will=announcer.will())
        intake = await broker.connect(by_hand, manual_acknowledgement=True)
        dispatcher = Dispatcher(ledger, connection)
        tools = ToolSet(self.configuration)
        await tools.open()
        model: Model = PlayedModel(self._place.temper)
        parts = Parts(
            configuration=self.configuration,
            incarnation=self.incarnation,
            model=model,
            router=build_router(self.configuration.routing, _policy(), lambda: model),
            fixed_router=build_fixed_router(),
            tools=tools,
            model_for_job=lambda wanted: _no_choice(wanted, model),
            observer=Observer(),
        )
        task_run = TaskRun(parts, ledger, dispatcher, self._place.folder / self.incarnation)
        self.worker = Worker(
            parts, ledger, connection, Intake(ledger, intake, dispatcher), dispatcher, announcer, task_run
        )
        await self.worker.run()
        await broker.close()


class OpsProcess:
    """Intake and upkeep without the HTTP face."""

    def __init__(self, place: Place) -> None:
        self.incarnation = ""
        self._place = place
        self._stop = asyncio.Event()

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Its names on the broker."""
        return (f"ops-{self.incarnation}", f"ops-{self.incarnation}-intake")

    def ask_drain(self) -> None:
        """SIGTERM."""
        self._stop.set()

    async def run(self) -> None:
        """What ``wiring.ops`` does, without HTTP."""
        self.incarnation = new_uuid7()
        ledger = self._place.ledger()
        await _until_reached(ledger)
        broker = MemoryBroker(self._place.server)
        client_id, by_hand = self.client_ids
        connection = await broker.connect(client_id)
        intake_connection = await broker.connect(by_hand, manual_acknowledgement=True)
        dispatcher = Dispatcher(ledger, connection)
        intake = Intake(ledger, intake_connection, dispatcher)
        record = AgentRecord(
            agent_id="ops", incarnation=self.incarnation, capabilities=(), role="ops", slots=0
        )
        await ledger.register(record)
        beat = Beat(incarnation=self.incarnation, state=AgentState.RUNNING, free_slots=0)
        await ledger.beat(beat)
        reconciler = Reconciler(ledger, connection, dispatcher)

        async def is_back() -> None:
            reconciler.broker_is_back()

        connection.on_connected(is_back)
        reconciler.broker_is_back()
        await intake.serve_pools()
        await intake.serve_protocol()
        async with asyncio.TaskGroup() as group:
            sides = [
                group.create_task(_beats(ledger, beat)),
                group.create_task(dispatcher.run()),
                group.create_task(Chores(ledger, dispatcher, reconciler=reconciler).run()),
                group.create_task(reconciler.run()),
                group.create_task(intake.run()),
            ]
            await self._stop.wait()
            for side in sides:
                side.cancel()
        await ledger.stopped(self.incarnation)
        await broker.close()


async def _beats(ledger: Ledger, beat: Beat) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        try:
            await ledger.beat(beat)
        except Unreachable:
            continue  # missed; the next one tells


async def _until_reached(ledger: Ledger) -> str:
    while True:
        try:
            return await ledger.mesh_id()
        except Unreachable:
            await asyncio.sleep(1)


def _no_choice(wanted: Mapping[str, Any], model: Model) -> Model:
    if wanted:
        raise ConfigurationError(f"there is no endpoint for {wanted}", hint="list it in [llm.endpoints]")
    return model
