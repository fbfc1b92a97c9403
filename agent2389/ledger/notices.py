"""How far events were told to a receiver outside the mesh, as records with the port to them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from agent2389.ledger.records import Change

SPAN = 10_000
"""Sealed numbers that one look goes through, so that a long outage does not make it a long one."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Up to which sealed ``number`` nothing is left to tell, and how the event after it fares.

    ``failures`` counts tries in a row that did not succeed, ``refusals`` those among them in which the
    receiver would not have this very event; ``reason`` is the last one for people, ≤ 500 characters.
    """

    number: int
    failures: int = 0
    refusals: int = 0
    reason: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What to tell next: ``events`` by sealed number; with all of them told the place is ``upto``."""

    place: Place
    upto: int
    events: tuple[tuple[int, Change], ...] = ()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a telling stands: ``waiting`` events among the next ``SPAN`` numbers, ``more`` when there are
    numbers beyond those.
    """

    place: Place
    waiting: int
    more: bool


class Notices(Protocol):
    """The places of one tenant, by name. Only logins of operators may ask; agents get ``NotAllowed``.

    All raise ``Unreachable`` when the database does not answer.
    """

    async def take(
        self, name: str, holder: str, types: Sequence[str], *, limit: int, lease_seconds: float
    ) -> Batch | None:
        """Take the telling under ``name``; ``None`` when it rests or another holder is at it.

        A new name begins at the present end of the sealed events. Events of the types ``types`` come in
        order of their numbers, at most ``limit``; ``task.waiting`` for a timer is never among them.
        """
        ...

    async def keep(self, name: str, holder: str, place: Place, *, seconds: float, ends: bool) -> bool:
        """Write the place and hold on for ``seconds``, or with ``ends`` let go and rest so long.

        ``False``: somebody else has it, so tell nothing more. A number never falls.
        """
        ...

    async def standing(self, name: str, types: Sequence[str]) -> Standing | None:
        """How the telling stands; ``None`` before it was taken for the first time."""
        ...
