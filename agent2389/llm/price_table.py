"""Prints the price of one model as JSON, out of the table of genai-prices: a process that ends at once."""

import sys
from typing import Any

import msgspec

from agent2389.llm.pricing import Price, Rate, Tier


def price_of(provider: str, model: str) -> Price | None:
    """The table's price, ``None`` without the table, the model, or a price for both directions."""
    try:
        from genai_prices import Usage, calc_price  # noqa: PLC0415 - an extra, and 30 MB
    except ModuleNotFoundError:
        return None
    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    table = found.model_price
    read, written = _rate(table.input_mtok), _rate(table.output_mtok)
    if read is None or written is None:
        return None
    return Price(read, written, _rate(table.cache_read_mtok))


def _rate(price: Any) -> Rate | None:
    """A number, or a number with tiers."""
    if price is None:
        return None
    tiers = getattr(price, "tiers", ())
    base = price.base if tiers else price
    return Rate(float(base), tuple(Tier(tier.start, float(tier.price)) for tier in tiers))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(price_of(*sys.argv[1:3])))
