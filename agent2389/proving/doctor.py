"""What is wrong with the servers below a mesh, each with the next step: the traps that were measured."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from agent2389.errors import Agent2389Error
from agent2389.ledger.soundings import Soundings

SKEW_SECONDS = 2.0

Check = Callable[[], Awaitable["Warned | None"]]


class Warned(msgspec.Struct, frozen=True):
    """A trap that is open here: what was seen, and what to do about it.

    ``harmless``: to others on this broker only, the mesh itself does not step into it.
    """

    check: str
    message: str
    hint: str
    harmless: bool = False


class Diagnosis(msgspec.Struct, frozen=True):
    """``passed`` names the checks that found nothing, ``skipped`` maps the others to their reason."""

    warnings: tuple[Warned, ...]
    passed: tuple[str, ...]
    skipped: Mapping[str, str]

    @property
    def is_healthy(self) -> bool:
        """Nothing that would hurt the mesh."""
        return all(warned.harmless for warned in self.warnings)


class LedgerDoor(Protocol):
    """A database, asked by whoever may name it."""

    async def sound(self) -> Soundings:
        """Clock, identity, twins."""
        ...

    async def hears_notifications(self) -> bool:
        """Whether LISTEN works there."""
        ...


async def examine(checks: Mapping[str, Check], skipped: Mapping[str, str]) -> Diagnosis:
    """Run every check, one after the other: they measure, so they must not disturb each other."""
    warnings: list[Warned] = []
    passed: list[str] = []
    for name, check in checks.items():
        try:
            found = await check()
        except Agent2389Error as error:
            found = Warned(name, f"could not be examined: {error}", error.hint or "see that the server runs")
        except TimeoutError:
            found = Warned(name, "could not be examined: no answer in time", "see that the server runs")
        if found is None:
            passed.append(name)
        else:
            warnings.append(found)
    return Diagnosis(tuple(warnings), tuple(passed), dict(skipped))


def ledger_checks(ledger: LedgerDoor, listen: LedgerDoor | None = None) -> dict[str, Check]:
    """Checks that need the ledger only; ``listen`` is the direct DSN beside a pooled one."""
    sounded: asyncio.Future[Soundings] | None = None

    async def sound() -> Soundings:
        nonlocal sounded
        if sounded is None:
            sounded = asyncio.ensure_future(ledger.sound())
        return await asyncio.shield(sounded)

    async def clock() -> Warned | None:
        found = await sound()
        if abs(found.skew) <= SKEW_SECONDS + found.round_trip / 2:
            return None
        side = "ahead of" if found.skew > 0 else "behind"
        return Warned(
            "clock",
            f"this machine's clock is {abs(found.skew):.1f} s {side} the ledger's",
            "run NTP here and on the database's machine; leases are safe, but times in messages mislead",
        )

    async def twins() -> Warned | None:
        found = await sound()
        if not found.twins:
            return None
        return Warned(
            "singleton",
            f"more than one process lives of the singleton {', '.join(found.twins)}",
            f"see both with: agent2389 agent show {found.twins[0]}; stop one, or take out singleton = true",
        )

    async def pooled() -> Warned | None:
        if await (listen or ledger).hears_notifications():
            return None
        return Warned(
            "listen",
            "LISTEN is accepted on this DSN and hears nothing: a transaction pooler stands in between",
            "mark it with ?pgbouncer=true and give a direct DSN in AGENT2389_LISTEN_URL",
        )

    return {"clock": clock, "singleton": twins, "listen": pooled}


def configuration_checks(text: str) -> dict[str, Check]:
    """What a Mosquitto configuration says that no client can see."""
    said = _settings(text)

    async def persistence() -> Warned | None:
        if said.get("persistence") != "true":
            return Warned(
                "persistence",
                "the broker keeps nothing over a restart: retained messages of other producers are gone then",
                "set persistence true and autosave_interval 60; the mesh sends its own topics again anyway",
            )
        if said.get("autosave_on_changes") == "true":
            return Warned(
                "persistence",
                "autosave_on_changes writes at every message: 99 a second instead of 1,970 (measured)",
                "take autosave_on_changes out and set autosave_interval 60",
            )
        if _number(said, "autosave_interval", 1800) > 300:
            return Warned(
                "persistence",
                "the broker saves every half hour: of 2,000 acknowledged messages a kill left 0 (measured)",
                "set autosave_interval 60",
            )
        return None

    async def no_delay() -> Warned | None:
        if said.get("set_tcp_nodelay") == "true":
            return None
        return Warned(
            "no-delay in the file",
            "set_tcp_nodelay is not set: with our side's no-delay alone a reply stalls for 44 ms (measured)",
            "set_tcp_nodelay true",
        )

    return {"persistence": persistence, "no-delay in the file": no_delay}


def _settings(text: str) -> dict[str, str]:
    lines = (line.split("#", 1)[0].split(None, 1) for line in text.splitlines())
    return {words[0]: words[1].strip() for words in lines if len(words) == 2}


def _number(said: Mapping[str, str], name: str, default: int) -> int:
    value = said.get(name, "")
    return int(value) if value.isdigit() else default


def names(checks: Sequence[Mapping[str, Check]]) -> dict[str, Check]:
    """All checks of several groups."""
    return {name: check for group in checks for name, check in group.items()}
