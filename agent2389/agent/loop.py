"""Model and tools in turn until there is an answer."""

from collections.abc import Callable

import msgspec

from agent2389.agent import faults
from agent2389.agent.compaction import compacted
from agent2389.agent.containment import Containment
from agent2389.agent.conversation import Conversation, StoredTurn
from agent2389.agent.files import Workspace
from agent2389.agent.journal import TaskJournal
from agent2389.agent.limits import Meter
from agent2389.agent.parts import Observer, Running
from agent2389.agent.phases import Phases
from agent2389.agent.toolcalls import ToolTurn
from agent2389.errors import BudgetExceeded, ModelFailed
from agent2389.ledger.journal import Amounts, EffectEnd, EffectStart
from agent2389.ledger.records import Usage
from agent2389.llm.messages import Finished, Reply, Request, ToolSpec
from agent2389.llm.port import Model
from agent2389.llm.prices import Prices
from agent2389.telemetry import surroundings
from agent2389.tools.port import TaskScope
from agent2389.tools.registry import ToolSet

LEAST_ANSWER_SECONDS = 1.0


class Answer(msgspec.Struct, frozen=True):
    """What a task's loop comes to."""

    text: str
    model: str
    rehearsal: bool


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How models are asked. ``fallback`` opens the free model to go on with when money is used up."""

    temperature: float | None
    max_tokens: int | None
    timeout: float
    context_tokens: int
    fallback: Callable[[], Model] | None = None


class Loop:
    """One task's conversation. Nothing follows tool results but the model's next turn."""

    def __init__(
        self,
        model: Model,
        tools: ToolSet,
        meter: Meter,
        observer: Observer,
        journal: TaskJournal,
        prices: Prices,
        containment: Containment,
        settings: Settings,
    ) -> None:
        self._model = model
        self._tools = tools
        self._meter = meter
        self._observer = observer
        self._journal = journal
        self._prices = prices
        self._containment = containment
        self._settings = settings
        self._free = False

    async def run(
        self,
        conversation: Conversation,
        phases: Phases,
        scope: TaskScope,
        running: Running,
        workspace: Workspace,
    ) -> Answer:
        """Go on from where ``conversation`` stands until the model answers without calling a tool, and
        its phases are complete.

        Raises ``ModelFailed``, ``BudgetExceeded`` (with the last text as ``partial``) and what the
        journal raises.
        """
        while True:
            if conversation.answer is not None:
                objection = await phases.objection()
                if objection is None:
                    return _checked(conversation.answer)
                await self._journal.end([], [conversation.add_objection(objection)])
                continue
            specs = await phases.specs()
            if calls := conversation.open_calls():
                for _ in calls:
                    self._meter.before_tool_call(running.partial)
                    self._meter.add(Usage(tool_calls=1))
                turn = ToolTurn(
                    self._tools,
                    self._journal,
                    conversation,
                    workspace,
                    self._observer,
                    scope,
                    self._containment,
                    frozenset(spec.name for spec in specs),
                )
                await turn.run(calls)
            else:
                self._meter.before_model_call(conversation.step, running.partial)
                reply = await self._ask(conversation, specs)
                running.partial = reply.text or running.partial

    async def _ask(self, conversation: Conversation, specs: tuple[ToolSpec, ...]) -> Reply:
        request = self._request(conversation, specs)
        place = conversation.step
        faults.reach("model.before_begin")
        await self._begin(conversation, request)
        faults.reach("model.begun")
        started = surroundings.elapsed()
        try:
            reply = storable(await self._model.answer(request))
        except ModelFailed:
            seconds = surroundings.elapsed() - started
            self._observer.model_called(self._model.provider, self._model.name, Usage(), seconds, failed=True)
            await self._journal.end(
                [EffectEnd(step=place, call=0, void=True, used=Amounts(seconds=seconds))], []
            )
            raise
        faults.reach("model.answered")
        seconds = surroundings.elapsed() - started
        used = self._count(reply, seconds)
        messages = [*conversation.take_unsaved(), conversation.add_reply(reply)]
        await self._journal.end([EffectEnd(step=place, call=0, used=used)], messages)
        faults.reach("model.ended")
        return reply

    async def _begin(self, conversation: Conversation, request: Request) -> None:
        """Journal the call; with no money left, once more with the free model."""
        try:
            await self._journal.begin([await self._start(conversation, request)])
        except BudgetExceeded as refused:
            if refused.unit != "cost_usd" or self._free or self._settings.fallback is None:
                raise
            self._model, self._free = self._settings.fallback(), True
            await self._journal.begin([await self._start(conversation, request)])

    async def _start(self, conversation: Conversation, request: Request) -> EffectStart:
        cost, tokens = await self._prices.estimate(self._model, request, free=self._free)
        return EffectStart(
            step=conversation.step,
            call=0,
            kind="model",
            name=self._model.name,
            repeat="pure",
            request_hash=conversation.request_hash,
            reserve=Amounts(
                cost_usd=cost, input_tokens=tokens.input, output_tokens=tokens.output, seconds=request.timeout
            ),
        )

    def _request(self, conversation: Conversation, specs: tuple[ToolSpec, ...]) -> Request:
        settings, left = self._settings, self._meter.seconds_left
        timeout = settings.timeout
        if left is not None:
            timeout = max(min(timeout, left), LEAST_ANSWER_SECONDS)
        return Request(
            turns=compacted(conversation.turns, settings.context_tokens),
            tools=specs,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            timeout=timeout,
        )

    def _count(self, reply: Reply, seconds: float) -> Amounts:
        cost = self._prices.settled(self._model, reply, free=self._free)
        used = Usage(
            input_tokens=reply.usage.input, output_tokens=reply.usage.output, model_calls=1, cost_usd=cost
        )
        self._meter.add(used)
        self._observer.model_called(self._model.provider, reply.model, used, seconds, failed=False)
        return Amounts(
            cost_usd=cost,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            seconds=round(seconds, 6),
        )


def storable(reply: Reply) -> Reply:
    """The reply without what no JSON document may hold: U+0000 and halves of surrogate pairs."""
    text = reply.text.replace("\x00", "").encode("utf-8", "replace").decode()
    return reply if text == reply.text else msgspec.structs.replace(reply, text=text)


def _checked(turn: StoredTurn) -> Answer:
    if turn.finished is Finished.REFUSED:
        raise ModelFailed("the model refuses to answer", retryable=False)
    if not turn.text.strip():
        raise ModelFailed("the model answered with nothing", retryable=True)
    if turn.finished is Finished.LENGTH:
        raise BudgetExceeded("the answer was cut at max_tokens", partial=turn.text)
    return Answer(turn.text, turn.model, turn.rehearsal)
