"""Playing golden cases: how often a strategy is right, what it costs, how long it takes."""

import statistics
import time
from collections.abc import Iterable

import msgspec

from agent2389.router.build import NO_RULE
from agent2389.router.cases import Case, told
from agent2389.router.port import Router


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """One case played once; ``order`` is ``given`` or ``reversed``; times in seconds."""

    case: str
    split: str
    covers: str
    order: str
    expected: tuple[str, ...]
    got: str
    right: bool
    listed: bool
    by_rule: bool
    reason: str
    fallback: str | None
    model: str | None
    seconds: float
    model_seconds: float
    tokens: int
    cost_usd: float | None


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy's figures on a set of cases.

    ``with_rule`` and ``right_with_rule`` count only plays in which some strategy had something to
    say. ``overhead_ms`` is the median time without the model's, ``model_ms`` that of the model.
    """

    strategy: str
    split: str
    models: tuple[str, ...]
    plays: int
    right: int
    with_rule: int
    right_with_rule: int
    out_of_list: int
    fallbacks: int
    tokens: int
    cost_usd: float | None
    overhead_ms: float
    model_ms: float

    @property
    def accuracy(self) -> float:
        """0 to 1."""
        return self.right / self.plays if self.plays else 0.0


async def play(router: Router, cases: Iterable[Case]) -> list[Played]:
    """Every case twice, with the candidates in both orders: a position must not decide."""
    found = []
    for case in cases:
        situation = case.situation()
        turned = msgspec.structs.replace(situation, candidates=tuple(reversed(situation.candidates)))
        for order, given in (("given", situation), ("reversed", turned)):
            started = time.perf_counter()
            decision = await router.decide(given)
            seconds = time.perf_counter() - started
            names = {item.capability for item in given.candidates}
            names |= {agent for item in given.candidates for agent in item.agents}
            found.append(
                Played(
                    case=case.name,
                    split=case.split,
                    covers=case.covers,
                    order=order,
                    expected=case.expected,
                    got=told(decision),
                    right=case.is_right(decision),
                    listed=all(target.name in names for target in decision.targets),
                    by_rule=NO_RULE not in decision.flags,
                    reason=decision.reason,
                    fallback=decision.fallback,
                    model=decision.model,
                    seconds=seconds,
                    model_seconds=decision.model_seconds,
                    tokens=decision.usage.input + decision.usage.output,
                    cost_usd=decision.cost_usd,
                )
            )
    return found


def score(strategy: str, split: str, played: list[Played]) -> Score:
    """The figures of ``played``."""
    costs = [item.cost_usd for item in played]
    decided = [item for item in played if item.by_rule]
    overheads = [item.seconds - item.model_seconds for item in played]
    return Score(
        strategy=strategy,
        split=split,
        models=tuple(sorted({item.model for item in played if item.model})),
        plays=len(played),
        right=sum(item.right for item in played),
        with_rule=len(decided),
        right_with_rule=sum(item.right for item in decided),
        out_of_list=sum(not item.listed for item in played),
        fallbacks=sum(item.fallback is not None for item in played),
        tokens=sum(item.tokens for item in played),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        overhead_ms=round(statistics.median(overheads) * 1000, 3) if played else 0.0,
        model_ms=round(statistics.median(item.model_seconds for item in played) * 1000, 3) if played else 0.0,
    )
