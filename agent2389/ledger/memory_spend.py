"""Budgets of the in-memory ledger: reserve before a call, settle after it."""

from collections.abc import Iterator

from agent2389.ledger.journal import Amounts, OwnLimits, Refusal, SpendRow
from agent2389.ledger.memory_journal import Account, EffectRecord, Hold, Place, Spend
from agent2389.ledger.memory_tables import Tables, TaskRecord
from agent2389.ledger.records import Budget

UNITS = ("cost_usd", "tokens", "tool_calls", "seconds")


class Refused(Exception):
    """A scope is used up."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def reserve(tables: Tables, task: TaskRecord, own: OwnLimits, kind: str, wanted: Amounts) -> tuple[Hold, ...]:
    """Hold what a call may use in every limited scope, in the order task, job, tenant, agent.

    Raises ``Refused`` and leaves earlier holds of the same call to the caller to undo. The check
    comes first, so a limit is passed by one reservation at most.
    """
    holds: list[Hold] = []
    try:
        for account, ceiling in _ceilings(tables, task, own):
            amount = _amount(account[3], kind, wanted)
            if amount is None:
                raise Refused(_refusal("price_unknown", account, ceiling, 0.0))
            if amount <= 0:
                continue
            row = tables.journal.spend.get(account)
            if row is None:
                row = tables.journal.spend[account] = Spend(used=spent_before(tables, account))
            if row.used + row.reserved >= ceiling:
                raise Refused(_refusal("exhausted", account, ceiling, row.used + row.reserved))
            row.reserved += amount
            holds.append(Hold(account, amount))
    except Refused:
        give_back(tables, tuple(holds))
        raise
    return tuple(holds)


def give_back(tables: Tables, holds: tuple[Hold, ...]) -> None:
    """Undo holds of a call that did not begin."""
    for hold in holds:
        tables.journal.spend[hold.account].reserved -= hold.amount


def settle(tables: Tables, effect: EffectRecord, used: Amounts) -> None:
    """Give back what ``effect`` holds and book what was really used."""
    for hold in effect.holds:
        row = tables.journal.spend[hold.account]
        row.reserved -= hold.amount
        row.used += _amount(hold.account[3], "tool", used) or 0.0
    effect.holds = ()


def _amount(unit: str, kind: str, amounts: Amounts) -> float | None:
    match unit:
        case "cost_usd":
            return amounts.cost_usd
        case "tokens":
            return amounts.input_tokens + amounts.output_tokens
        case "tool_calls":
            return 1 if kind == "tool" else 0
        case _:
            return amounts.seconds


def _refusal(reason: str, account: Account, ceiling: float, used: float) -> Refusal:
    _, scope, period, unit = account
    return Refusal(reason=reason, scope=scope, period=period, unit=unit, limit=ceiling, used=used)


def _ceilings(tables: Tables, task: TaskRecord, own: OwnLimits) -> Iterator[tuple[Account, float]]:
    tenant, agent = task.tenant, f"agent:{task.agent_id}"
    job = tables.job_of(task).new.budget
    limits = [
        ((tenant, "tenant", utc_period(tables, period), unit), ceiling)
        for (owner, period, unit), ceiling in tables.journal.limits.items()
        if owner == tenant
    ]
    yield from sorted(_of(own.task, tenant, f"task:{task.task_id}", "all"))
    yield from sorted(_of(job, tenant, f"job:{task.job_id}", "all"))
    yield from sorted(limits)
    yield from sorted(_of(own.day, tenant, agent, utc_period(tables, "day")))
    yield from sorted(_of(own.month, tenant, agent, utc_period(tables, "month")))


def _of(budget: Budget, tenant: str, scope: str, period: str) -> list[tuple[Account, float]]:
    found = ((unit, getattr(budget, unit)) for unit in UNITS)
    return [((tenant, scope, period, unit), ceiling) for unit, ceiling in found if ceiling is not None]


def utc_period(tables: Tables, period: str) -> str:
    """Today or this month on the ledger's clock, in UTC."""
    match period:
        case "day":
            return tables.now().strftime("%Y-%m-%d")
        case "month":
            return tables.now().strftime("%Y-%m")
        case _:
            return "all"


def spent_before(tables: Tables, account: Account) -> float:
    """What a scope used before anybody counted it, open calls at what is reserved for them."""
    total = 0.0
    for place, effect in tables.journal.effects.items():
        if _belongs(place, effect, account):
            total += _spent(effect, account[3])
    return total


def _belongs(place: Place, effect: EffectRecord, account: Account) -> bool:
    tenant, scope, period, _ = account
    kind, _, name = scope.partition(":")
    inside = {
        "task": place[1] == name,
        "job": effect.job_id == name,
        "agent": effect.agent_id == name,
        "tenant": True,
    }[kind]
    moment = effect.started_at.strftime("%Y-%m-%d")
    return place[0] == tenant and inside and (period == "all" or moment.startswith(period))


def _spent(effect: EffectRecord, unit: str) -> float:
    if unit == "tool_calls":
        return effect.tries if effect.kind == "tool" and not effect.reused else 0
    return (_amount(unit, effect.kind, effect.used) or 0.0) + (
        _amount(unit, effect.kind, effect.reserved) or 0.0
    )


def set_limit(tables: Tables, tenant: str, period: str, unit: str, limit: float | None) -> None:
    """The tenant's limit; without one nothing is counted."""
    if limit is not None:
        tables.journal.limits[tenant, period, unit] = limit
        return
    tables.journal.limits.pop((tenant, period, unit), None)
    account = (tenant, "tenant", utc_period(tables, period), unit)
    row = tables.journal.spend.get(account)
    if row is not None and row.reserved == 0:
        del tables.journal.spend[account]


def spending(tables: Tables, tenant: str) -> tuple[SpendRow, ...]:
    """What the tenant used in every period and unit."""
    return tuple(
        SpendRow(
            period=period,
            unit=unit,
            limit=tables.journal.limits.get((tenant, period, unit)),
            used=spent_before(tables, (tenant, "tenant", utc_period(tables, period), unit)),
        )
        for period in ("day", "month", "all")
        for unit in UNITS
    )
