"""The work of one claimed task: conversation, tools and routing, up to what will be written."""

from collections.abc import Callable

import structlog

from agent2389.agent import faults
from agent2389.agent.behaviour import Behaviour
from agent2389.agent.containment import Containment
from agent2389.agent.conversation import Conversation
from agent2389.agent.files import Workspace, without_state
from agent2389.agent.handoff import HandOff
from agent2389.agent.journal import Kept, TaskJournal
from agent2389.agent.limits import Limits, Meter
from agent2389.agent.loop import Answer, Loop, Settings
from agent2389.agent.parts import Parts, Running
from agent2389.agent.phases import RULES, Phases
from agent2389.agent.prompt import opening_turns
from agent2389.agent.routing import ROUTING_STEP, JournaledModel, routing_for
from agent2389.agent.verdict import verdict_of
from agent2389.errors import ConfigurationError, ProtocolCode, RunFailed
from agent2389.ledger.journal import Journal, Resumed
from agent2389.ledger.records import Finish
from agent2389.llm.port import Model
from agent2389.llm.prices import Prices
from agent2389.router.port import Router
from agent2389.tools.port import TaskScope

log = structlog.get_logger(__name__)


class Work:
    """One attempt at a task, from where its last owner stood."""

    def __init__(
        self,
        parts: Parts,
        ledger: Journal,
        handoff: HandOff,
        prices: Prices,
        running: Running,
        workspace: Workspace,
        behaviour: Behaviour,
        limits: Limits,
    ) -> None:
        self._parts = parts
        self._handoff = handoff
        self._prices = prices
        self._running = running
        self._claim = running.claim
        self._workspace = workspace
        self._behaviour = behaviour
        self.meter = Meter(limits)
        self._journal = TaskJournal(ledger, running, limits.own, self._kept())

    async def run(self) -> Finish:
        """What to write when all is done. Raises what ends an attempt (``errors``)."""
        past = await self._journal.resume()
        self.meter.go_on_from(past.used_before(ROUTING_STEP))
        faults.reach("journal.resumed")
        await self._workspace.lay_out(self._claim.manifest)
        faults.reach("files.laid_out")
        answer = await self._answer(past)
        faults.reach("answer.ready")
        if self._claim.verifies is not None:
            return await self._judged(answer)
        with routing_for(self._journal):
            decision, seconds = await self._handoff.decide(self._claim, answer, self._router())
        faults.reach("routing.decided")
        manifest = without_state(await self._workspace.collect())
        return await self._handoff.finish(
            self._claim, answer, decision, seconds=seconds, used=self.meter.usage, manifest=manifest
        )

    async def _judged(self, answer: Answer) -> Finish:
        judge = JournaledModel(self._model(), self._prices)
        with routing_for(self._journal):
            verdict = await verdict_of(answer.text, judge, self._behaviour.timeout)
        manifest = without_state(await self._workspace.collect())
        return await self._handoff.finish_verdict(answer, verdict, used=self.meter.usage, manifest=manifest)

    async def _answer(self, past: Resumed) -> Answer:
        claim, behaviour, tools = self._claim, self._behaviour, self._parts.tools
        scope = TaskScope(
            job_id=claim.job_id,
            task_id=claim.fence.task_id,
            tenant=claim.tenant,
            workspace=self._workspace.path,
            fence=claim.fence,
        )
        specs = tools.specs(only=behaviour.only, add=behaviour.add, remove=behaviour.remove)
        approvals = self._parts.configuration.approvals
        loop = Loop(
            self._model(),
            tools,
            self.meter,
            self._parts.observer,
            self._journal,
            self._prices,
            Containment(approvals, tools, claim, {spec.name for spec in specs}),
            self._settings(),
        )
        opening = opening_turns(behaviour.system_prompt, claim, RULES if behaviour.phases else "")
        conversation = Conversation(opening, past.messages)
        if past.messages:
            log.info("task resumes", task_id=claim.fence.task_id, step=conversation.step)
        phases = Phases(tools, scope, specs, is_on=behaviour.phases)
        return await loop.run(conversation, phases, scope, self._running, self._workspace)

    def _settings(self) -> Settings:
        behaviour, configuration = self._behaviour, self._parts.configuration
        return Settings(
            context_tokens=configuration.llm.context_tokens,
            temperature=behaviour.temperature,
            max_tokens=behaviour.max_tokens,
            timeout=behaviour.timeout,
            fallback=self._free_model() if configuration.budget.on_exhausted == "fallback" else None,
        )

    def _free_model(self) -> Callable[[], Model]:
        """Opens the endpoint to go on with when money is used up."""
        endpoint = self._parts.configuration.budget.fallback_endpoint
        return lambda: self._parts.model_for_job({"endpoint": endpoint})

    def _kept(self) -> Kept | None:
        sink = self._parts.transcripts
        return None if sink is None else lambda messages: sink(self._claim, messages)

    def _model(self) -> Model:
        wanted = self._behaviour.llm
        try:
            return self._parts.model_for_job(wanted) if wanted else self._parts.model
        except ConfigurationError as error:
            raise RunFailed(str(error), code=ProtocolCode.INVALID_INPUT, retryable=False) from None

    def _router(self) -> Router:
        submission = self._claim.submission
        strategy = (submission.get("routing") or {}).get("strategy")
        only_fixed = strategy in ("fixed", "none") or submission.get("protocol") == "v1"
        return self._parts.fixed_router if only_fixed else self._parts.router
