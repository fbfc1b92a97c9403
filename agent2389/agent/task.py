"""One claimed task from its first turn to the write that ends it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from agent2389.agent import faults
from agent2389.agent.behaviour import behaviour_of
from agent2389.agent.files import Workspace
from agent2389.agent.handoff import HandOff
from agent2389.agent.limits import effective
from agent2389.agent.parts import Parts, Running, StopReason
from agent2389.agent.work import Work
from agent2389.errors import (
    Agent2389Error,
    ApprovalNeeded,
    BudgetExceeded,
    CancelRequested,
    InDoubt,
    ProtocolCode,
    RunFailed,
    Signal,
    Unreachable,
)
from agent2389.ledger.blobs import begun
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import ApprovalRequest, Failure, Usage, Waiting, Written
from agent2389.llm.prices import Prices
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
        self._handoff = HandOff(
            ledger, parts.configuration.agent.id, parts.observer, strangers=parts.strangers
        )
        self._prices = Prices(parts.configuration.prices, parts.configuration.llm)

    async def run(self, running: Running) -> str:
        """Work on the task. Returns its outcome: completed, failed, escalated, waiting, cancelled, released,
        lost.
        """
        claim = running.claim
        faults.reach("task.claimed")
        configuration = self._parts.configuration
        try:
            behaviour = behaviour_of(claim, configuration, self._parts.profiles)
        except RunFailed as error:
            return await self._failed(running, Usage(), error)
        limits = effective(claim, configuration, behaviour.budget)
        workspace = Workspace(self._workspaces, self._ledger, claim.tenant, claim.fence.task_id)
        work = Work(
            self._parts, self._ledger, self._handoff, self._prices, running, workspace, behaviour, limits
        )
        try:
            return await self._end(running, work, workspace)
        finally:
            await workspace.discard()

    async def _end(self, running: Running, work: Work, workspace: Workspace) -> str:
        """The work, and the write that belongs to how it ended."""
        try:
            return await self._do(running, work)
        except asyncio.CancelledError:
            if running.stop_reason is None:
                raise
            return await asyncio.shield(self._stopped(running, workspace))
        except Signal as signal:
            return await self._heed(running, workspace, signal)
        except BudgetExceeded as error:
            if self._parts.configuration.budget.on_exhausted == "escalate":
                return await self._escalate(running, "budget", str(error))
            return await self._failed(running, work.meter.usage, error)
        except Unreachable as error:
            if error.what != "ledger":
                return await self._failed(running, work.meter.usage, error)
            # Its outage burns no attempt of the task, and what was done stands in the journal.
            log.warning(
                "ledger away, task given back", task_id=running.claim.fence.task_id, reason=str(error)
            )
            return await self._release(running, workspace, "ledger_away")
        except Agent2389Error as error:
            return await self._failed(running, work.meter.usage, error)
        except Exception:
            # A bug of ours must end this attempt, not the process and its other tasks.
            log.exception("task failed unexpectedly", task_id=running.claim.fence.task_id)
            ours = RunFailed("an internal error ended the attempt")
            return await self._failed(running, work.meter.usage, ours)

    async def _heed(self, running: Running, workspace: Workspace, signal: Signal) -> str:
        """No failure: the attempt ends for a reason outside it."""
        match signal:
            case CancelRequested():
                return await self._stop_task(running, running.partial)
            case ApprovalNeeded():
                return await self._wait_for_people(running, workspace, signal.requests)
            case InDoubt():
                return await self._escalate(running, "in_doubt", str(signal))
            case _:
                self._parts.observer.claimed("fenced")
                return "lost"

    async def _do(self, running: Running, work: Work) -> str:
        claim = running.claim
        finish = await work.run()
        faults.reach("finish.before_write")
        written = await self._write(running, lambda: self._ledger.finish(claim.fence, finish, claim.job_id))
        faults.reach("finish.written")
        if written is None or written.verdict == "fenced":
            self._parts.observer.claimed("fenced")
            return "lost"
        if written.verdict == "cancel":
            return await self._stop_task(running, finish.result.text)
        return "completed"

    # ends ------------------------------------------------------------------------

    async def _failed(self, running: Running, used: Usage, error: Agent2389Error) -> str:
        run_failed = isinstance(error, RunFailed)
        failure = Failure(
            code=error.code if isinstance(error, RunFailed) else ProtocolCode.INTERNAL_ERROR,
            message=str(error)[:500],
            retryable=error.retryable if isinstance(error, RunFailed) else True,
            usage=used,
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
                return await self._release(running, workspace, "drain")
            case StopReason.CANCEL | StopReason.EXPIRE | StopReason.ESCALATE:
                return await self._stop_task(running, running.partial)

    async def _release(self, running: Running, workspace: Workspace, reason: str) -> str:
        fence = running.claim.fence
        await self._keep_files(running, workspace)
        written = await self._write(running, lambda: self._ledger.release(fence, reason))
        return "lost" if written is None or written.verdict == "fenced" else "released"

    async def _keep_files(self, running: Running, workspace: Workspace) -> None:
        """The files as they are, if the ledger can be reached; what tools wrote stands in the journal."""
        if not workspace.is_laid_out:
            return  # the ledger's own list of them is the right one
        try:
            await self._ledger.checkpoint(running.claim.fence, await workspace.collect())
        except (Agent2389Error, OSError) as error:
            log.warning("given up without its files", task_id=running.claim.fence.task_id, reason=str(error))

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
        await self._keep_files(running, workspace)
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
