"""One agent's work on the ledger in memory: real rooms, a model that a test scripts."""

import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent2389.agent.parts import Observer, Parts, Running
from agent2389.agent.task import TaskRun
from agent2389.config.model import AgentConfiguration
from agent2389.config.profiles import Profile
from agent2389.errors import ModelFailed
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Claim
from agent2389.llm.messages import Chunk, Finished, Reply, Request, TokenUsage, ToolCall
from agent2389.llm.port import Model
from agent2389.router.build import build_fixed_router, build_router
from agent2389.router.policy import Policy, load_policy
from agent2389.tools.port import Effect, TaskScope, Tool, ToolOutput
from agent2389.tools.registry import TOOLKITS, ToolSet
from agent2389.upkeep.dispatch import Dispatcher
from tests.support.jobs import claim_one, join, new_job
from tests.support.recorded_broker import RecordedConnection

Say = str | Reply | Exception | Callable[[Request], Any]


def says(text: str, *calls: ToolCall, cost: float | None = 0.0, **changes: Any) -> Reply:
    fields: dict[str, Any] = {
        "text": text,
        "tool_calls": calls,
        "usage": TokenUsage(10, 5),
        "cost_usd": cost,
        "finished": Finished.TOOL_CALLS if calls else Finished.STOP,
        "model": "scripted",
    }
    return Reply(**(fields | changes))


def call(name: str, call_id: str = "c1", **arguments: Any) -> ToolCall:
    return ToolCall(call_id, name, json.dumps(arguments))


class ScriptedModel:
    """Says what stands in ``script``, in order; remembers what it was asked."""

    provider = "openai"
    name = "scripted"

    def __init__(self, *script: Say) -> None:
        self.script = list(script)
        self.requests: list[Request] = []

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if not self.script:
            raise ModelFailed("the script is over", retryable=False)
        said = self.script.pop(0)
        if callable(said):
            said = said(request)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else says(said)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(reply=await self.answer(request))

    async def verify(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to close."""


class Effects:
    """A toolkit whose calls are counted: ``look`` reads outside, ``send`` cannot be taken back."""

    name = "effects"

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.looked: list[dict[str, Any]] = []
        self.page = "a page"

    def missing(self) -> str | None:
        return None

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def tools(self) -> tuple[Tool, ...]:
        text = {"type": "object", "properties": {"to": {"type": "string"}, "text": {"type": "string"}}}
        address = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}

        async def send(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
            self.sent.append({**arguments, "key": scope.idempotency_key})
            return ToolOutput(text="sent")

        async def look(arguments: Mapping[str, Any], _: TaskScope) -> ToolOutput:
            self.looked.append(dict(arguments))
            return ToolOutput(text=self.page, untrusted=True)

        return (
            Tool(name="send", description="Send.", parameters=text, call=send, effect=Effect.UNSAFE),
            Tool(
                name="look",
                description="Read a page.",
                parameters=address,
                call=look,
                address="url",
                finds_addresses=True,
            ),
        )


class House:
    """An agent with its ledger; ``work`` claims and does one task."""

    def __init__(self, ledger: Ledger, parts: Parts, folder: Path, incarnation: str) -> None:
        self.ledger = ledger
        self.parts = parts
        self.incarnation = incarnation
        self.broker = RecordedConnection()
        self.run = TaskRun(parts, ledger, Dispatcher(ledger, self.broker), folder)

    async def work(self, claim: Claim | None = None) -> str:
        """The outcome of one task."""
        return await self.run.run(await self.running(claim))

    async def running(self, claim: Claim | None = None) -> Running:
        import asyncio

        claim = claim or await claim_one(self.ledger, self.incarnation)
        return Running(claim, asyncio.get_running_loop().time())

    async def text_of(self, job_id: str = "job-1") -> str | None:
        detail = await self.ledger.job(job_id)
        return json.loads(detail.final)["result"]["text"] if detail.final else None


def _itself(toolkit: Any) -> Any:
    return toolkit


@asynccontextmanager
async def house(
    folder: Path,
    model: Model,
    *,
    ledger: Ledger | None = None,
    toolkits: Sequence[Any] = (),
    job: dict[str, Any] | None = None,
    agent_id: str = "r1",
    capabilities: Sequence[str] = ("research",),
    policy: Policy | None = None,
    profiles: Mapping[str, Profile] | None = None,
    **sections: Any,
) -> AsyncIterator[House]:
    """An agent with ``toolkits`` (objects, or names of built-in ones) and one job to do."""
    document = {
        "agent": {"id": agent_id, "capabilities": tuple(capabilities)},
        "toolkits": tuple(item if isinstance(item, str) else item.name for item in toolkits),
        **sections,
    }
    configuration = AgentConfiguration.model_validate(document)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for item in toolkits:
            if not isinstance(item, str):
                patch.setitem(TOOLKITS, item.name, functools.partial(_itself, item))
        ledger = ledger or MemoryLedger()
        tools = ToolSet(configuration, ledger.dossier)
        await tools.open()
        assert not tools.skipped, tools.skipped
        incarnation = await join(ledger, agent_id, *capabilities)
        if job is not None:
            await ledger.submit(new_job(**job))
        parts = Parts(
            configuration=configuration,
            incarnation=incarnation,
            model=model,
            router=build_router(configuration.routing, policy or load_policy(), lambda: model),
            fixed_router=build_fixed_router(),
            tools=tools,
            model_for_job=lambda _: model,
            observer=Observer(),
            profiles=profiles or {},
        )
        yield House(ledger, parts, folder, incarnation)
        await tools.close()


def shown(request: Request) -> str:
    """What a model was shown, as one text."""
    return "\n".join(turn.text for turn in request.turns)


def built(value: Any) -> Any:
    """A struct as plain data."""
    return msgspec.to_builtins(value)
