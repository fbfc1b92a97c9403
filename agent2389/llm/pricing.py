"""What a call costs: configured prices first, then the offline price table, else unknown."""

from importlib.util import find_spec
from typing import Any, Final

import msgspec

from agent2389.llm.messages import TokenUsage

_TABLE: Final[dict[str, Any]] = {}


class Price(msgspec.Struct, frozen=True):
    """USD for a million tokens."""

    input: float
    output: float


def prepare(configured: Price | None) -> None:
    """Load the price table when it will be needed: that takes a second, so do it off the event loop."""
    if configured is None and "module" not in _TABLE:
        _TABLE["module"] = None
        if find_spec("genai_prices") is not None:
            import genai_prices  # noqa: PLC0415 - see above

            _TABLE["module"] = genai_prices


def cost_usd(model: str, provider: str, usage: TokenUsage, configured: Price | None) -> float | None:
    """The price of one call, ``None`` when nobody knows it."""
    if configured is not None:
        return (usage.input * configured.input + usage.output * configured.output) / 1_000_000
    prepare(configured)
    prices = _TABLE["module"]
    if prices is None:
        return None
    used = prices.Usage(input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached)
    try:
        found = prices.calc_price(used, model_ref=model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    return float(found.total_price)
