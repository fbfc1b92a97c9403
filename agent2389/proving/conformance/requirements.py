"""The register of requirements: id, sentence, check."""

from collections.abc import Awaitable, Callable

import msgspec

from agent2389.proving.conformance.bench import Bench
from agent2389.proving.conformance.report import Finding

Check = Callable[[Bench], Awaitable[Finding]]


class Requirement(msgspec.Struct, frozen=True):
    """One requirement of the protocol and how it is looked at."""

    id: str
    sentence: str
    check: Check


REQUIREMENTS: dict[str, Requirement] = {}
"""Every requirement by its id, filled by the modules of checks."""


def requirement(id_: str, sentence: str) -> Callable[[Check], Check]:
    """Register a check."""

    def register(check: Check) -> Check:
        REQUIREMENTS[id_] = Requirement(id_, sentence, check)
        return check

    return register
