"""The journal of one task on this process: every call begins and ends in the ledger."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from agent2389.agent.parts import Running
from agent2389.errors import BudgetExceeded, CancelRequested, InDoubt, LeaseLost, Unreachable
from agent2389.ledger.journal import (
    Begun,
    EffectAnswer,
    EffectEnd,
    EffectStart,
    Journal,
    Message,
    OwnLimits,
    Refusal,
    Resumed,
)
from agent2389.ledger.records import FileRef

WRITE_PAUSE_SECONDS = 0.3
Answer = TypeVar("Answer")
Kept = Callable[[Sequence[Message]], None]

log = structlog.get_logger(__name__)


class TaskJournal:
    """Presents the task's fence and waits for a ledger that is away as long as the lease lives.

    Raises ``LeaseLost``, ``CancelRequested``, ``BudgetExceeded`` (with the unit that is used up)
    and ``InDoubt``. ``kept`` hears of every message that was committed.
    """

    def __init__(self, ledger: Journal, running: Running, own: OwnLimits, kept: Kept | None = None) -> None:
        self._ledger = ledger
        self._running = running
        self._own = own
        self._kept = kept

    async def resume(self) -> Resumed:
        """Where the task's last owner stood. A task that nobody owned before has no past."""
        fence = self._running.claim.fence
        if fence.epoch <= 1:
            return Resumed(verdict="ok")
        found = await self._ask(lambda: self._ledger.resume(fence))
        self._check(found.verdict)
        return found

    async def begin(self, starts: Sequence[EffectStart]) -> tuple[EffectAnswer, ...]:
        """Journal and reserve ``starts`` before they are made; one answer for each."""
        fence = self._running.claim.fence
        asked = asyncio.create_task(self._ask(lambda: self._ledger.effect_begin(fence, starts, self._own)))
        try:
            begun = await asyncio.shield(asked)
        except asyncio.CancelledError:
            await self._take_back(asked, starts)
            raise
        if begun.verdict == "refused" and begun.refusal is not None:
            raise _exceeded(begun.refusal, self._running.partial)
        if begun.verdict == "in_doubt":
            raise InDoubt(
                f"{begun.doubtful} may have happened before a crash and must not happen twice",
                hint="say what became of it: agent2389 effect resolve JOB",
            )
        self._check(begun.verdict)
        return begun.answers

    async def end(
        self,
        ends: Sequence[EffectEnd],
        messages: Sequence[Message],
        manifest: dict[str, FileRef] | None = None,
    ) -> None:
        """Record calls that were made, with what they said and the files as they are now."""
        fence = self._running.claim.fence
        # What was paid is recorded even when the task is being stopped.
        asked = asyncio.create_task(
            self._ask(lambda: self._ledger.effect_end(fence, ends, messages, manifest))
        )
        asked.add_done_callback(_heard)
        verdict = await asyncio.shield(asked)
        self._check(verdict)
        if self._kept is not None:
            self._kept(messages)

    async def _take_back(self, asked: asyncio.Task[Begun], starts: Sequence[EffectStart]) -> None:
        """Stopped while beginning: the calls were not made, so they must not be in doubt."""
        try:
            await asked
            ends = [EffectEnd(step=start.step, call=start.call, void=True) for start in starts]
            await self._ledger.effect_end(self._running.claim.fence, ends)
        except Exception as error:  # noqa: BLE001 - the task is stopping; at worst the calls stay in doubt
            log.warning("calls that were not made stay in doubt", reason=str(error))

    def _check(self, verdict: str) -> None:
        if verdict == "fenced":
            raise LeaseLost("somebody else owns the task now")
        if verdict == "cancel":
            raise CancelRequested("the task was asked to stop")

    async def _ask(self, write: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await write()
            except Unreachable as error:
                if loop.time() >= self._running.lease_deadline:
                    raise LeaseLost("the lease is over and the ledger does not answer") from None
                log.warning("the ledger is away, the journal waits", reason=str(error))
            await asyncio.sleep(WRITE_PAUSE_SECONDS)


def _heard(asked: asyncio.Task[str]) -> None:
    """A task that was stopped does not wait for the end of its write; its failure is then no news."""
    if not asked.cancelled():
        asked.exception()


def told(refusal: Refusal) -> str:
    """A refusal for people."""
    scope = refusal.scope.partition(":")[0]
    period = {"all": ""}.get(refusal.period, f" in {refusal.period}")
    if refusal.reason == "price_unknown":
        return f"the model's price is unknown and the {scope} has a limit in money{period}"
    unit = {"cost_usd": "USD", "tool_calls": "tool calls"}.get(refusal.unit, refusal.unit)
    return f"the {scope}'s limit of {refusal.limit:g} {unit}{period} is reached"


def _exceeded(refusal: Refusal, partial: str) -> BudgetExceeded:
    if refusal.reason == "price_unknown":
        hint = 'name the price in [prices.models], or set unknown = "zero" in [prices]'
    else:
        hint = "raise the limit, or say in budget.on_exhausted what to do then"
    return BudgetExceeded(told(refusal), partial=partial, unit=refusal.unit, hint=hint)
