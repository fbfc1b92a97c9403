"""Golden routing cases: situations in TOML with the decisions that are right in them."""

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from agent2389.errors import ConfigurationError
from agent2389.router.port import Candidate, Decision, Outcome, Situation, Step

Content = TypeVar("Content")
SPLITS = ("tuning", "held_out")


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One case; the keys are told in ``router/cases/README.md``."""

    name: str
    instruction: str
    own: str
    answer: str
    expected: tuple[str, ...]
    covers: str = ""
    steps: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    pools: dict[str, str] = {}
    max_hops: int = 16
    split: str = ""

    def situation(self) -> Situation:
        """The case as a strategy sees it, candidates in the order of the file."""
        return Situation(
            instruction=self.instruction,
            answer=self.answer,
            own_capability=self.own,
            agent_id=f"{self.own}-1",
            hop=len(self.steps) + 1,
            max_hops=self.max_hops,
            steps=tuple(
                Step(hop=hop, capability=capability, agent_id=f"{capability}-1", summary=summary)
                for hop, (capability, summary) in enumerate(self.steps, 1)
            ),
            candidates=tuple(
                Candidate(
                    capability=name,
                    description=description,
                    agents=() if name in self.idle else (f"{name}-1",),
                    free_slots=4,
                    slots=4,
                )
                for name, description in self.pools.items()
            ),
        )

    def is_right(self, decision: Decision) -> bool:
        """Whether the decision is one of those expected."""
        return told(decision) in {"+".join(sorted(item.split("+"))) for item in self.expected}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    covers: str
    case: tuple[Case, ...]


def told(decision: Decision) -> str:
    """A decision as cases write it: ``done``, ``escalate``, ``writing``, ``judging+writing``."""
    if decision.outcome is not Outcome.HAND_OFF:
        return str(decision.outcome)
    return "+".join(sorted(target.name for target in decision.targets))


def load_cases(folder: Path, splits: tuple[str, ...] = SPLITS) -> tuple[Case, ...]:
    """Every case of ``folder``'s splits, in order. Raises ``ConfigurationError`` naming the file."""
    pools = _read(folder / "pools.toml", dict[str, str])
    found: list[Case] = []
    for split in splits:
        for path in sorted((folder / split).glob("*.toml")):
            file = _read(path, _File)
            found += [
                msgspec.structs.replace(
                    case, split=split, covers=case.covers or file.covers, pools=_pools(case, pools)
                )
                for case in file.case
            ]
    if not found:
        raise ConfigurationError(
            f"{folder} holds no routing cases", hint="name the folder: --cases router/cases"
        )
    return tuple(found)


def _pools(case: Case, standard: dict[str, str]) -> dict[str, str]:
    kept = {
        case.rename.get(name, name): description
        for name, description in standard.items()
        if name not in case.without and (not case.only or name in case.only)
    }
    return {**kept, **case.pools}


def _read(path: Path, kind: type[Content]) -> Content:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path}: {error}", hint="see router/cases/README.md") from None
