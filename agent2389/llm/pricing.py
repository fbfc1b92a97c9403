"""What a call costs: configured prices first, then the offline price table, else unknown."""

import asyncio
import subprocess
import sys
from typing import Final

import msgspec
import structlog

from agent2389.llm.messages import TokenUsage

LOOK_UP_SECONDS: Final = 60.0
_FOUND: Final[dict[tuple[str, str], "Price | None"]] = {}
"""What the table said in this process, by provider and model."""
_MILLION: Final = 1_000_000

log = structlog.get_logger(__name__)


class Tier(msgspec.Struct, frozen=True):
    """Another price for all tokens of a call that reads more than ``above``."""

    above: int
    price: float


class Rate(msgspec.Struct, frozen=True):
    """USD for a million tokens of one kind; ``tiers`` grow."""

    base: float
    tiers: tuple[Tier, ...] = ()

    def at(self, read: int) -> float:
        """The rate of a call that reads ``read`` tokens."""
        return next((tier.price for tier in reversed(self.tiers) if read > tier.above), self.base)


class Price(msgspec.Struct, frozen=True):
    """Rates of one model. Without a rate of their own, cached tokens cost what others do."""

    input: Rate
    output: Rate
    cached: Rate | None = None


def flat(read: float, written: float, cached: float | None = None) -> Price:
    """A price without tiers, in USD for a million tokens."""
    return Price(Rate(read), Rate(written), None if cached is None else Rate(cached))


def cost_usd(usage: TokenUsage, price: Price | None) -> float | None:
    """The price of one call, ``None`` when nobody knows it."""
    if price is None:
        return None
    total = usage.input
    cached = (price.cached or price.input).at(total) * usage.cached
    read = price.input.at(total) * (usage.input - usage.cached)
    return (read + cached + price.output.at(total) * usage.output) / _MILLION


class LookUp:
    """The table's price of one model, asked for in a process of its own.

    The table takes 30 MB and most of a second, for three numbers that an agent keeps for its whole life.
    ``begin`` and ``end`` block; between them there is time for other slow things.
    """

    def __init__(self, provider: str, model: str) -> None:
        self._wanted = (provider, model)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it, unless the answer is known; a machine that starts no process has no prices."""
        if self._wanted in _FOUND:
            return
        command = (sys.executable, "-m", "agent2389.llm.price_table", *self._wanted)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, two names as arguments
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except (OSError, ValueError):
            log.warning("no process for the price table", model=self._wanted[1])

    def end(self) -> Price | None:
        """What it found; ``None`` for a model that is not in the table, or when there is no table."""
        process, self._process = self._process, None
        if process is not None:
            try:
                told = process.communicate(timeout=LOOK_UP_SECONDS)[0]
                _FOUND[self._wanted] = msgspec.json.decode(told, type=Price | None)
            except (subprocess.TimeoutExpired, msgspec.DecodeError):
                process.kill()
                process.communicate()
                log.warning("the price table gave no answer", model=self._wanted[1])
        # A table that could not be asked now is not asked before every call.
        return _FOUND.setdefault(self._wanted, None)


async def look_up(provider: str, model: str) -> Price | None:
    """The table's price of one model: a second for the first caller, at once for the others."""
    if (provider, model) not in _FOUND:
        table = LookUp(provider, model)
        await asyncio.to_thread(table.begin)
        return await asyncio.to_thread(table.end)
    return _FOUND[provider, model]
