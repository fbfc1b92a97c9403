"""The journal on Postgres."""

from collections.abc import Sequence
from typing import Any

import msgspec

from agent2389.ledger import queries
from agent2389.ledger.journal import (
    Begun,
    EffectEnd,
    EffectStart,
    Message,
    OwnLimits,
    Resumed,
    SpendRow,
    TranscriptEntry,
)
from agent2389.ledger.postgres_session import Session
from agent2389.ledger.records import Fence, FileRef, Written

SQL = queries.load("journal.sql")


class PostgresJournal:
    """``ledger.journal.Journal``; the owner's writes go over the connection of the owner's writes."""

    _work: Session
    _rest: Session

    async def effect_begin(self, fence: Fence, starts: Sequence[EffectStart], own: OwnLimits) -> Begun:
        """Journal and reserve."""
        found = await self._owned("effect_begin", fence, _json(starts), _json(own))
        return msgspec.json.decode(found, type=Begun)

    async def effect_end(
        self,
        fence: Fence,
        ends: Sequence[EffectEnd],
        messages: Sequence[Message] = (),
        manifest: dict[str, FileRef] | None = None,
    ) -> str:
        """Done and settled."""
        body = {"ends": ends, "messages": messages, "manifest": manifest}
        return str(await self._owned("effect_end", fence, _json(body)))

    async def resume(self, fence: Fence) -> Resumed:
        """Where the last owner stood."""
        return msgspec.json.decode(await self._owned("resume", fence), type=Resumed)

    async def escalate_task(self, fence: Fence, reason: str, message: str, partial: str = "") -> Written:
        """The owner asks a person."""
        body = {"reason": reason, "message": message, "partial": partial}
        return msgspec.json.decode(await self._owned("escalate_task", fence, _json(body)), type=Written)

    async def resolve_effect(
        self, task_id: str, step: int, call: int, *, happened: bool, answer: str, actor: str
    ) -> Written:
        """A person's word on a call in doubt."""
        found = await self._rest.value(SQL["resolve_effect"], task_id, step, call, happened, answer, actor)
        return msgspec.json.decode(found, type=Written)

    async def transcript(self, job_id: str, skip: int = 0, limit: int = 200) -> Sequence[TranscriptEntry]:
        """The conversations of a job."""
        found = await self._rest.value(SQL["transcript"], job_id, skip, limit)
        return msgspec.json.decode(found, type=tuple[TranscriptEntry, ...])

    async def set_limit(self, period: str, unit: str, limit: float | None) -> None:
        """The tenant's limit."""
        await self._rest.value(SQL["set_limit"], period, unit, limit)

    async def spending(self) -> Sequence[SpendRow]:
        """What the tenant used."""
        return msgspec.json.decode(await self._rest.value(SQL["spending"]), type=tuple[SpendRow, ...])

    async def forget_messages(self, limit: int) -> int:
        """Delete messages without a conversation."""
        return int(await self._rest.value(SQL["forget_messages"], limit))

    async def _owned(self, name: str, fence: Fence, *arguments: str) -> Any:
        return await self._work.value(SQL[name], fence.task_id, fence.epoch, fence.token, *arguments)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
