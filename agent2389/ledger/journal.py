"""The journal of effects as the rest of the house sees it: its records and its port."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from agent2389.ledger.records import Budget, Fence, FileRef, Usage, Written


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may cost or did cost; ``cost_usd`` is ``None`` when nobody knows the price."""

    cost_usd: float | None = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0


class EffectStart(msgspec.Struct, frozen=True, kw_only=True):
    """One call that is about to be made.

    Its place is (``step``, ``call``): call 0 is the model, 1… are the tools it asked for.
    ``kind``: ``model`` | ``tool``. ``repeat``: ``pure`` | ``idempotent`` | ``keyed`` | ``unsafe``;
    the last two need a ``key``, equal for equal calls of the same task.
    """

    step: int
    call: int
    kind: str
    name: str
    repeat: str
    request_hash: str
    key: str | None = None
    reserve: Amounts = Amounts()


class OwnLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of the asking agent: of this task, and of the agent's UTC day and month."""

    task: Budget = Budget()
    day: Budget = Budget()
    month: Budget = Budget()


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call may not be made. ``reason``: ``exhausted`` | ``price_unknown``.

    ``scope`` is ``task:ID``, ``job:ID``, ``tenant`` or ``agent:ID``; ``period`` is ``all``, a UTC day
    or a UTC month; ``unit`` is ``cost_usd``, ``tokens``, ``tool_calls`` or ``seconds``.
    """

    reason: str
    scope: str
    period: str
    unit: str
    limit: float
    used: float


class EffectAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """``fresh``: make the call (``repeated``: an earlier try may have happened). ``done``: do not,
    ``response`` is the body of the message that was stored for it.
    """

    verdict: str
    repeated: bool = False
    failed: bool = False
    response: str | None = None


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """``ok`` with one answer for each call, or nothing was begun: ``refused`` (budget),
    ``in_doubt`` (the unsafe call ``doubtful`` may have happened), ``cancel``, ``fenced``.
    """

    verdict: str
    answers: tuple[EffectAnswer, ...] = ()
    refusal: Refusal | None = None
    doubtful: str | None = None


class EffectEnd(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was made. ``void``: it is known not to have happened and may begin again."""

    step: int
    call: int
    failed: bool = False
    void: bool = False
    used: Amounts = Amounts()


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message at its place; ``body`` is a JSON object with ``role`` and ``text``.

    ``kind``: ``turn`` (part of the conversation) | ``note`` (kept for the transcript only).
    The message at an effect's place (``slot`` = ``call``) is its response.
    """

    step: int
    slot: int
    body: str
    kind: str = "turn"


class EffectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call as the ledger knows it. ``state``: ``started`` | ``done`` | ``in_doubt`` | ``void``;
    ``used`` sums all ``tries``.
    """

    task_id: str
    generation: int
    step: int
    call: int
    kind: str
    name: str
    repeat: str
    state: str
    failed: bool
    reused: bool
    tries: int
    epoch: int
    agent_id: str | None
    key: str | None
    used: Amounts
    started_at: datetime
    ended_at: datetime | None


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """What a new owner goes on from: conversation and calls of the current generation."""

    verdict: str
    messages: tuple[Message, ...] = ()
    effects: tuple[EffectRow, ...] = ()

    @property
    def used(self) -> Usage:
        """What this generation consumed so far, calls in doubt at what was reserved for them."""
        return self.used_before(None)

    def used_before(self, step: int | None) -> Usage:
        """The same for the steps before ``step``."""
        total = Usage()
        for effect in self.effects:
            if step is None or effect.step < step:
                total = total + _usage(effect)
        return total


def _usage(effect: EffectRow) -> Usage:
    return Usage(
        input_tokens=effect.used.input_tokens,
        output_tokens=effect.used.output_tokens,
        model_calls=effect.tries if effect.kind == "model" else 0,
        tool_calls=effect.tries if effect.kind == "tool" and not effect.reused else 0,
        cost_usd=effect.used.cost_usd,
    )


class TranscriptEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a job's conversations with the call that made it, or a call without message."""

    job_id: str
    task_id: str
    hop: int
    capability: str
    generation: int
    step: int
    slot: int
    kind: str
    at: datetime
    body: str | None
    effect: EffectRow | None


class SpendRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the tenant used in a ``period`` (``day`` | ``month`` | ``all``) beside its limit, if any."""

    period: str
    unit: str
    limit: float | None
    used: float


class Journal(Protocol):
    """The part of the ledger that stands around every call; same errors as ``ledger.port.Ledger``."""

    async def effect_begin(self, fence: Fence, starts: Sequence[EffectStart], own: OwnLimits) -> Begun:
        """Journal and reserve all of ``starts`` or none; the same owner may ask again."""
        ...

    async def effect_end(
        self,
        fence: Fence,
        ends: Sequence[EffectEnd],
        messages: Sequence[Message] = (),
        manifest: dict[str, FileRef] | None = None,
    ) -> str:
        """Done, settled, messages and workspace in one transaction: ``ok`` | ``already`` | ``fenced``."""
        ...

    async def resume(self, fence: Fence) -> Resumed:
        """Where the task's last owner stood; empty for a new generation."""
        ...

    async def escalate_task(self, fence: Fence, reason: str, message: str, partial: str = "") -> Written:
        """The owner asks a person and gives up the lease. ``reason``: ``in_doubt`` | ``budget``."""
        ...

    async def resolve_effect(
        self, task_id: str, step: int, call: int, *, happened: bool, answer: str, actor: str
    ) -> Written:
        """A person says what became of a call in doubt; raises ``NotFound`` when none is there."""
        ...

    async def transcript(self, job_id: str, skip: int = 0, limit: int = 200) -> Sequence[TranscriptEntry]:
        """The conversations of a job in order, page by page."""
        ...

    async def set_limit(self, period: str, unit: str, limit: float | None) -> None:
        """The tenant's limit for a ``day``, a ``month`` or in ``all``; ``None`` takes it away."""
        ...

    async def spending(self) -> Sequence[SpendRow]:
        """What the tenant used in every period and unit."""
        ...

    async def forget_messages(self, limit: int) -> int:
        """Delete messages that no conversation holds any more; how many there were."""
        ...
