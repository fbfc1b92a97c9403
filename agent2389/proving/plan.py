"""What a fault run is asked to do."""

import re
from pathlib import Path

import msgspec

from agent2389.errors import ConfigurationError


class FaultKind(msgspec.Struct, frozen=True):
    """A fault by its number: what it does, how often (seconds), whether it must hit owned tasks."""

    code: str
    title: str
    every: float
    must_hit: bool = True


KINDS: tuple[FaultKind, ...] = (
    FaultKind("F1", "kill -9 of a random agent", 1.0),
    FaultKind(
        "F2", "an agent stopped for longer than its lease, then continued; writers that come late", 2.0
    ),
    FaultKind("F3", "agents that kill themselves at a named point of their work", 2.0, must_hit=False),
    FaultKind("F4", "kill -9 of the broker, which loses everything it held", 10.0),
    FaultKind("F5", "immediate shutdown of Postgres and a new start", 10.0),
    FaultKind("F6", "broker and Postgres away at the same time", 20.0),
    FaultKind("F7", "an agent cut off from broker and ledger, its bytes held back and delivered late", 5.0),
    FaultKind("F8", "an agent whose clock is an hour off", 5.0, must_hit=False),
    FaultKind("F9", "all jobs wait before the first agent starts", 60.0, must_hit=False),
    FaultKind("F10", "a second process with the same agent file", 5.0, must_hit=False),
    FaultKind("F11", "a job cancelled at a random moment", 0.2, must_hit=False),
    FaultKind("F12", "a rolling restart of all agents", 1.0, must_hit=False),
    FaultKind("F13", "a job that kills every agent that takes it", 5.0, must_hit=False),
    FaultKind("F14", "a Postgres, and in turn a broker, that takes no writes for a while", 10.0),
    FaultKind("F15", "a model endpoint of which 30 % of the calls fail, in spells slower than a lease", 15.0),
    FaultKind("OPS", "kill -9 of the ops service", 10.0, must_hit=False),
)
BY_CODE = {kind.code: kind for kind in KINDS}
_FAULT = re.compile(r"([A-Za-z]+\d*)(?::(\d+(?:\.\d+)?))?")


class Fault(msgspec.Struct, frozen=True):
    """A chosen fault and the seconds between two of them."""

    kind: FaultKind
    every: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times in seconds; ``rate`` (jobs a second) 0 means as fast as they are accepted.

    ``seconds`` > 0 goes on submitting for so long, however many jobs that makes. ``least_hits`` is
    how often each fault must strike (and hit an owned task, where it can); with fewer the run fails.
    ``outage`` is how long a killed server stays away.
    """

    data: Path
    faults: tuple[Fault, ...]
    jobs: int = 1000
    agents: int = 6
    slots: int = 2
    lease: float = 3.0
    work: float = 0.0
    outage: float = 1.0
    seed: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    least_hits: int = 3
    stall: float = 120.0
    sample: float = 0.0

    def has(self, code: str) -> bool:
        """Whether the fault is part of the run."""
        return any(fault.kind.code == code for fault in self.faults)


def read_faults(text: str, every: float | None) -> tuple[Fault, ...]:
    """``F1,F5:10`` as faults; ``every`` applies to those without an own number.

    Raises ``ConfigurationError`` for an unknown one.
    """
    faults = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        found = _FAULT.fullmatch(word)
        kind = BY_CODE.get(found[1].upper()) if found else None
        if found is None or kind is None:
            raise ConfigurationError(
                f"there is no fault {word!r}", hint="agent2389 chaos --list names them all"
            )
        faults.append(Fault(kind, float(found[2]) if found[2] else every or kind.every))
    return tuple(faults)
