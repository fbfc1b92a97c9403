"""Many seeds one after the other, and what they came to together."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from agent2389.proving.sim import Outcome, SimPlan, simulate


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all seeds; ``log_sha256`` is that of the last seed's log."""

    first_seed: int
    seeds: int
    failed_seeds: tuple[int, ...]
    jobs: dict[str, int]
    faults: dict[str, int]
    crashes: int
    late_writes_refused: int
    messages_dropped: int
    decided_by_person: int
    virtual_hours: float
    seconds: float
    log_sha256: str


def play(seeds: Iterable[int], plan: SimPlan) -> Iterator[Outcome]:
    """Each seed's outcome as soon as it is known."""
    for seed in seeds:
        yield simulate(seed, plan)


class Sums:
    """Adds outcomes up without keeping their logs."""

    def __init__(self) -> None:
        self._seeds: list[int] = []
        self._failed: list[int] = []
        self._jobs: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._virtual = self._seconds = 0.0
        self._digest = ""

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self._seeds.append(outcome.seed)
        if outcome.found:
            self._failed.append(outcome.seed)
        self._jobs.update(outcome.jobs)
        self._faults.update(outcome.faults)
        for name in ("crashes", "late_writes_refused", "messages_dropped", "decided_by_person"):
            self._counts[name] += getattr(outcome, name)
        self._virtual += outcome.virtual_seconds
        self._seconds += outcome.seconds
        self._digest = outcome.digest

    def figures(self) -> Figures:
        """The sums so far; at least one seed was added."""
        return Figures(
            first_seed=self._seeds[0],
            seeds=len(self._seeds),
            failed_seeds=tuple(self._failed),
            jobs=dict(sorted(self._jobs.items())),
            faults=dict(sorted(self._faults.items())),
            crashes=self._counts["crashes"],
            late_writes_refused=self._counts["late_writes_refused"],
            messages_dropped=self._counts["messages_dropped"],
            decided_by_person=self._counts["decided_by_person"],
            virtual_hours=round(self._virtual / 3600, 3),
            seconds=round(self._seconds, 1),
            log_sha256=self._digest,
        )
