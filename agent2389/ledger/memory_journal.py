"""The journal's tables of the in-memory ledger."""

from collections.abc import Collection
from datetime import datetime

import msgspec

from agent2389.ledger.journal import Amounts, EffectRow

Place = tuple[str, str, int, int, int]
"""Tenant, task, generation, step, call (of an effect) or slot (of a message)."""

Account = tuple[str, str, str, str]
"""Tenant, scope, period, unit."""


class Hold(msgspec.Struct, frozen=True):
    """An amount that an open call holds in one account."""

    account: Account
    amount: float


class EffectRecord(msgspec.Struct, kw_only=True):
    """One call. ``used`` sums all tries, ``reserved`` is that of the open one."""

    job_id: str
    kind: str
    name: str
    repeat: str
    request_hash: str
    key: str | None
    epoch: int
    agent_id: str | None
    started_at: datetime
    state: str = "started"
    failed: bool = False
    reused: bool = False
    response: str | None = None
    tries: int = 1
    reserved: Amounts = Amounts()
    used: Amounts = Amounts()
    holds: tuple[Hold, ...] = ()
    ended_at: datetime | None = None

    def row(self, place: Place) -> EffectRow:
        """The call as front doors and owners see it."""
        _, task_id, generation, step, call = place
        return EffectRow(
            task_id=task_id,
            generation=generation,
            step=step,
            call=call,
            kind=self.kind,
            name=self.name,
            repeat=self.repeat,
            state=self.state,
            failed=self.failed,
            reused=self.reused,
            tries=self.tries,
            epoch=self.epoch,
            agent_id=self.agent_id,
            key=self.key,
            used=self.used,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )


class MessagePlace(msgspec.Struct, frozen=True):
    """Which message stands at a place; ``kind`` is ``turn`` or ``note``."""

    kind: str
    sha256: str
    epoch: int
    at: datetime


class Spend(msgspec.Struct):
    """One account: what was used and what open calls hold."""

    used: float = 0.0
    reserved: float = 0.0


class JournalTables:
    """All rows of the journal. An account exists only where a limit does."""

    def __init__(self) -> None:
        self.effects: dict[Place, EffectRecord] = {}
        self.open: dict[tuple[str, str], set[Place]] = {}
        self.messages: dict[tuple[str, str], str] = {}
        self.stored_at: dict[tuple[str, str], datetime] = {}
        self.transcript: dict[Place, MessagePlace] = {}
        self.limits: dict[tuple[str, str, str], float] = {}
        self.spend: dict[Account, Spend] = {}

    def forget(self, tenant: str, job_id: str, tasks: Collection[str]) -> None:
        """Delete what a buried job leaves; messages are forgotten on their own."""
        scopes = {(tenant, f"job:{job_id}"), *((tenant, f"task:{task_id}") for task_id in tasks)}
        keys = {(tenant, task_id) for task_id in tasks}
        self.spend = {account: row for account, row in self.spend.items() if account[:2] not in scopes}
        self.effects = {place: row for place, row in self.effects.items() if place[:2] not in keys}
        self.transcript = {place: row for place, row in self.transcript.items() if place[:2] not in keys}
        self.open = {key: places for key, places in self.open.items() if key not in keys}


def plus(one: Amounts, other: Amounts) -> Amounts:
    """The sum; a price that is not known makes the sum unknown."""
    known = one.cost_usd is not None and other.cost_usd is not None
    return Amounts(
        cost_usd=(one.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        seconds=one.seconds + other.seconds,
    )
