"""What people decide, on Postgres."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from agent2389.ledger import queries
from agent2389.ledger.postgres_session import Session
from agent2389.ledger.records import NextTask, Submitted, Written
from agent2389.ledger.views import ApprovalRow
from agent2389.wire.names import task_id_of

SQL = queries.load("queries.sql")
Answer = TypeVar("Answer")


class PostgresPeople:
    """The part of ``ledger.port.Ledger`` behind questions, corrections, approvals and commands."""

    _rest: Session

    async def decide(
        self,
        task_id: str,
        action: str,
        *,
        job_id: str,
        actor: str,
        words: str | None = None,
        next: NextTask | None = None,  # noqa: A002 - the wire's word
    ) -> Written:
        """T21."""
        body = None
        if next is not None:
            item = {**msgspec.to_builtins(next), "task_id": task_id_of(job_id, task_id, next.slot)}
            body = msgspec.json.encode({"next": [item], "join": None}).decode()
        return await self._decided(Written, "decide", task_id, action, words, actor, body)

    async def escalate(self, job_id: str, actor: str, *, task_id: str | None = None, reason: str) -> Written:
        """T28."""
        return await self._decided(Written, "escalate", job_id, task_id, actor, reason)

    async def clone(
        self, job_id: str, new_job_id: str, actor: str, *, correction: str | None = None
    ) -> Submitted:
        """T22."""
        first = task_id_of(new_job_id, "", 0)
        return await self._decided(Submitted, "clone", job_id, new_job_id, first, actor, correction)

    async def assign(self, task_id: str, incarnation: str, actor: str) -> Written:
        """T5 by an operator."""
        return await self._decided(Written, "assign", task_id, incarnation, actor)

    async def command(
        self, command_id: str, agent_id: str, action: str, actor: str, *, incarnation: str | None = None
    ) -> Sequence[str]:
        """Pause, resume, drain, stop, restart."""
        return await self._decided(
            tuple[str, ...], "command", command_id, agent_id, incarnation, action, actor
        )

    async def approvals(self, *, state: str | None = None, limit: int = 50) -> Sequence[ApprovalRow]:
        """Newest first."""
        return await self._decided(tuple[ApprovalRow, ...], "approvals", state, limit)

    async def decide_approval(
        self, approval_id: str, decision: str, arguments_sha256: str, actor: str, *, reason: str = ""
    ) -> Written:
        """A person's word about one tool call."""
        return await self._decided(
            Written, "decide_approval", approval_id, decision, arguments_sha256, actor, reason
        )

    async def _decided(self, kind: type[Answer], name: str, *arguments: Any) -> Answer:
        return msgspec.json.decode(await self._rest.value(SQL[name], *arguments), type=kind)
