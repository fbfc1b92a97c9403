"""Model and tools in turn until there is an answer."""

import asyncio

import msgspec

from agent2389.agent.limits import Meter
from agent2389.agent.parts import Observer, Running
from agent2389.errors import BudgetExceeded, ModelFailed
from agent2389.ledger.records import Usage
from agent2389.llm.messages import Finished, Reply, Request, Role, ToolCall, ToolSpec, Turn
from agent2389.llm.port import Model
from agent2389.telemetry import surroundings
from agent2389.tools.port import TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet

LEAST_ANSWER_SECONDS = 1.0


class Answer(msgspec.Struct, frozen=True):
    """What a task's loop comes to."""

    text: str
    model: str
    rehearsal: bool


class Loop:
    """One task's conversation. Nothing follows tool results but the model's next turn."""

    def __init__(
        self,
        model: Model,
        tools: ToolSet,
        meter: Meter,
        observer: Observer,
        *,
        temperature: float | None,
        max_tokens: int | None,
        timeout: float,
    ) -> None:
        self._model = model
        self._tools = tools
        self._meter = meter
        self._observer = observer
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._timeout = timeout

    async def run(
        self, turns: tuple[Turn, ...], specs: tuple[ToolSpec, ...], scope: TaskScope, running: Running
    ) -> Answer:
        """Go on until the model answers without calling a tool.

        Raises ``ModelFailed`` and ``BudgetExceeded`` (with the last text as ``partial``).
        """
        iteration = 0
        while True:
            self._meter.before_model_call(iteration, running.partial)
            reply = await self._ask(turns, specs)
            iteration += 1
            running.partial = reply.text or running.partial
            if not reply.tool_calls:
                return self._answer(reply)
            outputs = await self._call_tools(reply.tool_calls, specs, scope, running)
            turns = (
                *turns,
                Turn(role=Role.ASSISTANT, text=reply.text, tool_calls=reply.tool_calls),
                *(
                    Turn(role=Role.TOOL, text=output.text, tool_call_id=call.id)
                    for call, output in zip(reply.tool_calls, outputs, strict=True)
                ),
            )

    def _answer(self, reply: Reply) -> Answer:
        if reply.finished is Finished.REFUSED:
            raise ModelFailed("the model refuses to answer", retryable=False)
        if not reply.text.strip():
            raise ModelFailed("the model answered with nothing", retryable=True)
        if reply.finished is Finished.LENGTH:
            raise BudgetExceeded("the answer was cut at max_tokens", partial=reply.text)
        return Answer(reply.text, reply.model, reply.rehearsal)

    async def _ask(self, turns: tuple[Turn, ...], specs: tuple[ToolSpec, ...]) -> Reply:
        left = self._meter.seconds_left
        timeout = self._timeout if left is None else max(min(self._timeout, left), LEAST_ANSWER_SECONDS)
        request = Request(
            turns=turns,
            tools=specs,
            temperature=self._temperature,
            max_tokens=self._max_tokens,
            timeout=timeout,
        )
        started = surroundings.elapsed()
        try:
            reply = storable(await self._model.answer(request))
        except ModelFailed:
            self._observer.model_called(
                self._model.provider, self._model.name, Usage(), surroundings.elapsed() - started, failed=True
            )
            raise
        used = Usage(
            input_tokens=reply.usage.input,
            output_tokens=reply.usage.output,
            model_calls=1,
            cost_usd=reply.cost_usd,
        )
        self._meter.add(used)
        self._observer.model_called(
            self._model.provider, reply.model, used, surroundings.elapsed() - started, failed=False
        )
        return reply

    async def _call_tools(
        self, calls: tuple[ToolCall, ...], specs: tuple[ToolSpec, ...], scope: TaskScope, running: Running
    ) -> list[ToolOutput]:
        for _ in calls:
            self._meter.before_tool_call(running.partial)
            self._meter.add(Usage(tool_calls=1))
        allowed = frozenset(spec.name for spec in specs)
        return await asyncio.gather(*(self._call_tool(call, allowed, scope) for call in calls))

    async def _call_tool(self, call: ToolCall, allowed: frozenset[str], scope: TaskScope) -> ToolOutput:
        started = surroundings.elapsed()
        output = await self._tools.call(call.name, call.arguments, scope, allowed=allowed)
        self._observer.tool_called(call.name, surroundings.elapsed() - started, failed=output.failed)
        return output


def storable(reply: Reply) -> Reply:
    """The reply without what no JSON document may hold: U+0000 and halves of surrogate pairs."""
    text = reply.text.replace("\x00", "").encode("utf-8", "replace").decode()
    return reply if text == reply.text else msgspec.structs.replace(reply, text=text)
