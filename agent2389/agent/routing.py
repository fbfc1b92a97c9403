"""Routing calls in the journal of the task on whose behalf they are made."""

import contextvars
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import msgspec

from agent2389.agent import faults
from agent2389.agent.journal import TaskJournal
from agent2389.errors import BudgetExceeded, ModelFailed
from agent2389.ledger.journal import Amounts, EffectEnd, EffectStart, Message
from agent2389.llm.messages import Chunk, Reply, Request, Role
from agent2389.llm.port import Model
from agent2389.llm.prices import Prices
from agent2389.telemetry import surroundings

ROUTING_STEP = 1_000_000
"""Beyond every step of a conversation: routing is journaled beside it, not in it."""


class _Desk:
    """The open journal and how many routing calls it has seen."""

    def __init__(self, journal: TaskJournal) -> None:
        self.journal = journal
        self.calls = 0


_DESK: contextvars.ContextVar[_Desk | None] = contextvars.ContextVar("routing_desk", default=None)


class RoutingNote(msgspec.Struct, frozen=True):
    """A routing reply as the transcript keeps it; the hash says what was asked."""

    role: Role
    text: str
    reply: Reply
    request_hash: str


@contextmanager
def routing_for(journal: TaskJournal) -> Iterator[None]:
    """Calls of a ``JournaledModel`` within the block belong to the task of ``journal``."""
    token = _DESK.set(_Desk(journal))
    try:
        yield
    finally:
        _DESK.reset(token)


class JournaledModel:
    """A model whose answers are journaled, and returned from the journal after a crash."""

    def __init__(self, inner: Model, prices: Prices) -> None:
        self._inner = inner
        self._prices = prices

    @property
    def name(self) -> str:
        """The inner model's."""
        return self._inner.name

    @property
    def provider(self) -> str:
        """The inner model's."""
        return self._inner.provider

    async def answer(self, request: Request) -> Reply:
        """One complete answer, asked for once in the life of a generation."""
        desk = _DESK.get()
        if desk is None:
            return await self._inner.answer(request)
        digest = hashlib.sha256(msgspec.json.encode(request.turns)).hexdigest()
        call, known = await self._begin(desk, request, digest)
        if known is not None:
            return known
        faults.reach("routing.begun")
        began = surroundings.elapsed()
        try:
            reply = await self._inner.answer(request)
        except ModelFailed:
            await desk.journal.end([EffectEnd(step=ROUTING_STEP, call=call, void=True)], [])
            raise
        faults.reach("routing.answered")
        used = Amounts(
            cost_usd=self._prices.settled(self._inner, reply),
            input_tokens=reply.usage.input,
            output_tokens=reply.usage.output,
            seconds=round(surroundings.elapsed() - began, 6),
        )
        note = RoutingNote(Role.ASSISTANT, reply.text, reply, digest)
        message = Message(step=ROUTING_STEP, slot=call, kind="note", body=msgspec.json.encode(note).decode())
        await desk.journal.end([EffectEnd(step=ROUTING_STEP, call=call, used=used)], [message])
        return reply

    async def _begin(self, desk: _Desk, request: Request, digest: str) -> tuple[int, Reply | None]:
        """The call's number, and the answer if exactly this was asked before.

        The answer to another question (other candidates live now) is left alone: it names by index.
        """
        while True:
            call, desk.calls = desk.calls, desk.calls + 1
            try:
                (answer,) = await desk.journal.begin([await self._start(call, request, digest)])
            except BudgetExceeded as refused:
                # The task's answer stands; who goes next can be decided without this model.
                raise ModelFailed(str(refused), retryable=False) from None
            if answer.verdict != "done":
                return call, None
            if answer.response is not None:
                note = msgspec.json.decode(answer.response, type=RoutingNote)
                if note.request_hash == digest:
                    return call, note.reply

    async def _start(self, call: int, request: Request, digest: str) -> EffectStart:
        cost, tokens = await self._prices.estimate(self._inner, request)
        return EffectStart(
            step=ROUTING_STEP,
            call=call,
            kind="model",
            name=self._inner.name,
            repeat="pure",
            request_hash=digest,
            reserve=Amounts(
                cost_usd=cost, input_tokens=tokens.input, output_tokens=tokens.output, seconds=request.timeout
            ),
        )

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Not journaled: routing asks for whole answers."""
        return self._inner.stream(request)

    async def verify(self) -> None:
        """The inner model's."""
        await self._inner.verify()

    async def close(self) -> None:
        """The inner model's."""
        await self._inner.close()
