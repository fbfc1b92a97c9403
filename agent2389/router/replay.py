"""Asking a strategy again about decisions that were made: where would it have gone instead?"""

from collections.abc import Iterable

import msgspec

from agent2389.ledger.views import DecisionRow
from agent2389.router.cases import told
from agent2389.router.port import Candidate, Router, Situation, Step


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded decision and the new one; costs in USD, times in seconds."""

    job_id: str
    hop: int
    capability: str
    recorded_strategy: str
    recorded: str
    replayed: str
    same: bool
    reason: str
    fallback: str | None
    recorded_cost_usd: float | None
    cost_usd: float | None
    recorded_seconds: float
    seconds: float


def situation_of(row: DecisionRow) -> Situation | None:
    """What the strategy saw then; ``None`` when it cannot be asked again.

    A given route (``fixed``) was the job's decision, and older rows kept no candidates.
    """
    if row.decision.strategy == "fixed" or not row.decision.candidates:
        return None
    return Situation(
        instruction=row.instruction,
        answer=row.answer,
        own_capability=row.capability,
        agent_id=row.agent_id,
        hop=row.hop,
        max_hops=row.max_hops,
        steps=tuple(
            Step(hop=step.hop, capability=step.capability, agent_id=step.agent_id, summary=step.text)
            for step in row.history
        ),
        candidates=tuple(
            msgspec.convert({key: value for key, value in item.items() if key != "score"}, Candidate)
            for item in row.decision.candidates
        ),
    )


async def replay(router: Router, rows: Iterable[DecisionRow]) -> tuple[list[Replayed], int]:
    """The new decisions, and how many rows could not be asked again."""
    found: list[Replayed] = []
    skipped = 0
    for row in rows:
        situation = situation_of(row)
        if situation is None:
            skipped += 1
            continue
        decision = await router.decide(situation)
        before, now = recorded_as(row), told(decision)
        found.append(
            Replayed(
                job_id=row.job_id,
                hop=row.hop,
                capability=row.capability,
                recorded_strategy=row.decision.strategy,
                recorded=before,
                replayed=now,
                same=before == now,
                reason=decision.reason,
                fallback=decision.fallback,
                recorded_cost_usd=row.decision.cost_usd,
                cost_usd=decision.cost_usd,
                recorded_seconds=row.decision.seconds,
                seconds=decision.model_seconds,
            )
        )
    return found, skipped


def recorded_as(row: DecisionRow) -> str:
    """The recorded decision in the words of ``told``."""
    if row.decision.outcome != "hand_off":
        return row.decision.outcome
    return "+".join(sorted(name.strip() for name in (row.decision.chosen or "").split(",")))
