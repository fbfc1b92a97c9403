"""What the kit says about an implementation."""

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """One word about one requirement."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    NOT_OBSERVED = "not_observed"


class Finding(msgspec.Struct, frozen=True):
    """What a check found; ``evidence`` is what was seen, in one sentence."""

    verdict: Verdict
    evidence: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement with its verdict; ``seconds`` is how long its check took."""

    id: str
    sentence: str
    verdict: Verdict
    evidence: str
    seconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All requirements of one run; ``strict`` is false when known deviations were tolerated."""

    agent: str
    strict: bool
    started: bool
    requirements: tuple[Judged, ...]

    def with_verdict(self, verdict: Verdict) -> tuple[str, ...]:
        """The ids with this verdict."""
        return tuple(item.id for item in self.requirements if item.verdict is verdict)


def passed(evidence: str) -> Finding:
    """The requirement holds as far as it was looked at."""
    return Finding(Verdict.PASS, evidence)


def failed(evidence: str) -> Finding:
    """The requirement is broken."""
    return Finding(Verdict.FAIL, evidence)


def not_observed(reason: str) -> Finding:
    """Nothing can be said from here, and why."""
    return Finding(Verdict.NOT_OBSERVED, reason)
