"""What a call costs: configured prices first, then the offline price table, else unknown."""

from importlib.util import find_spec

import msgspec

from agent2389.llm.messages import TokenUsage


class Price(msgspec.Struct, frozen=True):
    """USD for a million tokens."""

    input: float
    output: float


def cost_usd(model: str, provider: str, usage: TokenUsage, configured: Price | None) -> float | None:
    """The price of one call, ``None`` when nobody knows it."""
    if configured is not None:
        return (usage.input * configured.input + usage.output * configured.output) / 1_000_000
    if find_spec("genai_prices") is None:
        return None
    import genai_prices  # noqa: PLC0415 - importing the table takes a second

    used = genai_prices.Usage(
        input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached
    )
    try:
        found = genai_prices.calc_price(used, model_ref=model, provider_id=provider)
    except LookupError:
        return None
    return float(found.total_price)
