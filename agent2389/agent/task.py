"""One claimed task from its first turn to the write that ends it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from agent2389.agent import faults
from agent2389.agent.containment import Containment
from agent2389.agent.conversation import Conversation
from agent2389.agent.files import Workspace, without_state
from agent2389.agent.handoff import HandOff
from agent2389.agent.journal import Kept, TaskJournal
from agent2389.agent.limits import Limits, Meter, effective
from agent2389.agent.loop import Answer, Loop, Settings
from agent2389.agent.parts import Parts, Running, StopReason
from agent2389.agent.prompt import opening_turns
from agent2389.agent.routing import ROUTING_STEP, JournaledModel, routing_for
from agent2389.agent.verdict import verdict_of
from agent2389.errors import (
    Agent2389Error,
    ApprovalNeeded,
    BudgetExceeded,
    CancelRequested,
    ConfigurationError,
    InDoubt,
    LeaseLost,
    ProtocolCode,
    RunFailed,
    Unreachable,
)
from agent2389.ledger.blobs import begun
from agent2389.ledger.journal import Resumed
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import ApprovalRequest, Claim, Failure, FileRef, Finish, Waiting, Written
from agent2389.llm.port import Model
from agent2389.llm.prices import Prices
from agent2389.router.port import Router
from agent2389.tools.port import TaskScope
from agent2389.upkeep.dispatch import Dispatcher

WRITE_PAUSE_SECONDS = 0.3

log = structlog.get_logger(__name__)


class TaskRun:
    """Does tasks for one process. ``run`` never raises: every end is a write, or none without lease."""

    def __init__(self, parts: Parts, ledger: Ledger, dispatcher: Dispatcher, workspaces: Path) -> None:
        self._parts = parts
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._workspaces = workspaces
        self._handoff = HandOff(ledger, parts.configuration.agent.id, parts.observer)
        self._prices = Prices(parts.configuration.prices, parts.configuration.llm)
        self._fallback: Model | None = None

    async def run(self, running: Running) -> str:
        """Work on the task. Returns its outcome: completed, failed, escalated, waiting, cancelled, released,
        lost.
        """
        claim = running.claim
        faults.reach("task.claimed")
        limits = effective(claim, self._parts.configuration)
        meter = Meter(limits)
        workspace = Workspace(self._workspaces, self._ledger, claim.tenant, claim.fence.task_id)
        try:
            try:
                return await self._work(running, limits, meter, workspace)
            except asyncio.CancelledError:
                if running.stop_reason is None:
                    raise
                return await asyncio.shield(self._stopped(running, workspace))
            except LeaseLost:
                self._parts.observer.claimed("fenced")
                return "lost"
            except CancelRequested:
                return await self._stop_task(running, running.partial)
            except ApprovalNeeded as needed:
                return await self._wait_for_people(running, workspace, needed.requests)
            except InDoubt as doubt:
                return await self._escalate(running, "in_doubt", str(doubt))
            except BudgetExceeded as error:
                if self._parts.configuration.budget.on_exhausted == "escalate":
                    return await self._escalate(running, "budget", str(error))
                return await self._failed(running, meter, error)
            except Unreachable as error:
                return await self._failed(running, meter, RunFailed(str(error), retryable=True))
            except Agent2389Error as error:
                return await self._failed(running, meter, error)
            except Exception:
                # A bug of ours must end this attempt, not the process and its other tasks.
                log.exception("task failed unexpectedly", task_id=claim.fence.task_id)
                return await self._failed(running, meter, RunFailed("an internal error ended the attempt"))
        finally:
            await workspace.discard()

    async def _work(self, running: Running, limits: Limits, meter: Meter, workspace: Workspace) -> str:
        claim = running.claim
        journal = TaskJournal(self._ledger, running, limits.own, self._kept_of(claim))
        past = await journal.resume()
        meter.go_on_from(past.used_before(ROUTING_STEP))
        faults.reach("journal.resumed")
        await workspace.lay_out(claim.manifest)
        faults.reach("files.laid_out")
        answer = await self._answer(running, journal, past, meter, workspace)
        faults.reach("answer.ready")
        finish = await self._finish(running, answer, journal, meter, workspace)
        faults.reach("finish.before_write")
        written = await self._write(running, lambda: self._ledger.finish(claim.fence, finish, claim.job_id))
        faults.reach("finish.written")
        if written is None or written.verdict == "fenced":
            self._parts.observer.claimed("fenced")
            return "lost"
        if written.verdict == "cancel":
            return await self._stop_task(running, answer.text)
        return "completed"

    async def _finish(
        self, running: Running, answer: Answer, journal: TaskJournal, meter: Meter, workspace: Workspace
    ) -> Finish:
        claim = running.claim
        if claim.verifies is not None:
            judge = JournaledModel(self._model(claim), self._prices)
            with routing_for(journal):
                verdict = await verdict_of(answer.text, judge, self._parts.configuration.llm.timeout)
            manifest = without_state(await workspace.collect())
            return await self._handoff.finish_verdict(answer, verdict, used=meter.usage, manifest=manifest)
        with routing_for(journal):
            decision, seconds = await self._handoff.decide(claim, answer, self._router(claim))
        faults.reach("routing.decided")
        manifest = without_state(await workspace.collect())
        return await self._handoff.finish(
            claim, answer, decision, seconds=seconds, used=meter.usage, manifest=manifest
        )

    async def _answer(
        self, running: Running, journal: TaskJournal, past: Resumed, meter: Meter, workspace: Workspace
    ) -> Answer:
        claim, configuration = running.claim, self._parts.configuration
        toolkits = claim.submission.get("toolkits") or {}
        specs = self._parts.tools.specs(
            add=tuple(toolkits.get("add", ())), remove=tuple(toolkits.get("remove", ()))
        )
        loop = Loop(
            self._model(claim),
            self._parts.tools,
            meter,
            self._parts.observer,
            journal,
            self._prices,
            Containment(configuration.approvals, self._parts.tools, claim, {spec.name for spec in specs}),
            Settings(
                context_tokens=configuration.llm.context_tokens,
                temperature=configuration.llm.temperature,
                max_tokens=configuration.llm.max_tokens,
                timeout=configuration.llm.timeout,
                fallback=self._open_fallback if configuration.budget.on_exhausted == "fallback" else None,
            ),
        )
        scope = TaskScope(
            job_id=claim.job_id,
            task_id=claim.fence.task_id,
            tenant=claim.tenant,
            workspace=workspace.path,
        )
        opening = opening_turns(configuration.llm.system_prompt, claim)
        conversation = Conversation(opening, past.messages)
        if past.messages:
            log.info("task resumes", task_id=claim.fence.task_id, step=conversation.step)
        return await loop.run(conversation, specs, scope, running, workspace)

    def _open_fallback(self) -> Model:
        """The free endpoint to go on with when money is used up; opened once."""
        if self._fallback is None:
            name = self._parts.configuration.budget.fallback_endpoint
            self._fallback = self._parts.model_for_job({"endpoint": name})
        return self._fallback

    def _kept_of(self, claim: Claim) -> Kept | None:
        sink = self._parts.transcripts
        return None if sink is None else lambda messages: sink(claim, messages)

    def _model(self, claim: Claim) -> Model:
        wanted = claim.submission.get("llm") or {}
        try:
            return self._parts.model_for_job(wanted) if wanted else self._parts.model
        except ConfigurationError as error:
            raise RunFailed(str(error), code=ProtocolCode.INVALID_INPUT, retryable=False) from None

    def _router(self, claim: Claim) -> Router:
        routing = claim.submission.get("routing") or {}
        only_fixed = routing.get("strategy") in ("fixed", "none") or claim.submission.get("protocol") == "v1"
        return self._parts.fixed_router if only_fixed else self._parts.router

    # ends ------------------------------------------------------------------------

    async def _failed(self, running: Running, meter: Meter, error: Agent2389Error) -> str:
        run_failed = isinstance(error, RunFailed)
        failure = Failure(
            code=error.code if isinstance(error, RunFailed) else ProtocolCode.INTERNAL_ERROR,
            message=str(error)[:500],
            retryable=error.retryable if isinstance(error, RunFailed) else True,
            usage=meter.usage,
            partial=begun(error.partial if isinstance(error, BudgetExceeded) else running.partial),
            retry_after=getattr(error, "retry_after", None) if run_failed else None,
            escalate=self._parts.configuration.lifecycle.on_failure == "escalate",
        )
        log.warning(
            "task failed",
            task_id=running.claim.fence.task_id,
            job_id=running.claim.job_id,
            code=failure.code,
            reason=failure.message,
            retryable=failure.retryable,
        )
        written = await self._write(running, lambda: self._ledger.fail(running.claim.fence, failure))
        return "lost" if written is None or written.verdict == "fenced" else "failed"

    async def _stopped(self, running: Running, workspace: Workspace) -> str:
        match running.stop_reason:
            case StopReason.LOST | None:
                self._parts.observer.claimed("fenced")
                return "lost"
            case StopReason.DRAIN:
                return await self._release(running, workspace)
            case StopReason.CANCEL | StopReason.EXPIRE | StopReason.ESCALATE:
                return await self._stop_task(running, running.partial)

    async def _release(self, running: Running, workspace: Workspace) -> str:
        claim = running.claim
        try:
            manifest: dict[str, FileRef] = await workspace.collect()
            await self._ledger.checkpoint(claim.fence, manifest)
        except (Agent2389Error, OSError) as error:
            log.warning("released without its files", task_id=claim.fence.task_id, reason=str(error))
        await self._write(running, lambda: self._ledger.release(claim.fence, "drain"))
        return "released"

    async def _escalate(self, running: Running, reason: str, message: str) -> str:
        fence = running.claim.fence
        written = await self._write(
            running, lambda: self._ledger.escalate_task(fence, reason, message, begun(running.partial))
        )
        return "lost" if written is None or written.verdict == "fenced" else "escalated"

    async def _wait_for_people(
        self, running: Running, workspace: Workspace, requests: Sequence[ApprovalRequest]
    ) -> str:
        """T24: the lease is given up, journal and files are kept; the last decision wakes the task."""
        claim = running.claim
        manifest = await workspace.collect()
        await self._ledger.checkpoint(claim.fence, manifest)
        waiting = Waiting(reason="approval", approvals=tuple(requests))
        written = await self._write(running, lambda: self._ledger.wait(claim.fence, waiting))
        if written is None or written.verdict == "fenced":
            return "lost"
        if written.verdict == "cancel":
            return await self._stop_task(running, running.partial)
        if written.verdict == "already":
            # Everything was decided meanwhile: whoever claims it next sees how.
            await self._write(running, lambda: self._ledger.release(claim.fence, "decided"))
        return "waiting"

    async def _stop_task(self, running: Running, partial: str) -> str:
        await self._write(running, lambda: self._ledger.stop_task(running.claim.fence, begun(partial)))
        return "cancelled"

    async def _write(self, running: Running, write: Callable[[], Awaitable[Written]]) -> Written | None:
        """Write until the ledger answers or the local lease is over; then do what the commit asks for.

        A commit whose answer was lost is asked again and answers ``already``.
        """
        return await asyncio.shield(self._write_until_answered(running, write))

    async def _write_until_answered(
        self, running: Running, write: Callable[[], Awaitable[Written]]
    ) -> Written | None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                written = await write()
            except Unreachable as error:
                if loop.time() >= running.lease_deadline:
                    log.error("lease over before the ledger came back", task_id=running.claim.fence.task_id)
                    return None
                log.warning("the ledger is away, the result waits", reason=str(error))
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
                continue
            await self._dispatcher.perform(written.effects)
            return written
