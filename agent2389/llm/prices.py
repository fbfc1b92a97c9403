"""What calls will and did cost under an agent's own price table."""

import structlog

from agent2389.config.model import Endpoint, LlmSection, Price, PricesSection
from agent2389.llm.messages import Reply, Request, TokenUsage
from agent2389.llm.port import Model
from agent2389.llm.pricing import cost_usd, look_up

BYTES_PER_TOKEN = 3
"""Fewer than a token has in the usual text, so that a reservation is rather too large than too small."""
USUAL_ANSWER_TOKENS = 4096

log = structlog.get_logger(__name__)


class Prices:
    """Own prices first, then what the model's adapter or the shipped table knows."""

    def __init__(self, section: PricesSection, llm: LlmSection) -> None:
        self._unknown_counts_zero = section.unknown == "zero"
        self._models = dict(section.models)
        priced: tuple[LlmSection | Endpoint, ...] = (llm, *llm.endpoints.values())
        for endpoint in priced:
            read, written = endpoint.price_per_million_input_usd, endpoint.price_per_million_output_usd
            if read is not None and written is not None:
                self._models.setdefault(endpoint.model, Price(input=read, output=written))
        self._told: set[str] = set()

    async def estimate(
        self, model: Model, request: Request, *, free: bool = False
    ) -> tuple[float | None, TokenUsage]:
        """USD (``None``: nobody knows) and tokens that one call may use at most, roughly."""
        size = sum(
            len(turn.text) + sum(len(call.arguments) for call in turn.tool_calls) for turn in request.turns
        )
        size += sum(len(tool.description) + 200 for tool in request.tools)
        usage = TokenUsage(
            input=size // BYTES_PER_TOKEN + 1, output=request.max_tokens or USUAL_ANSWER_TOKENS
        )
        if free or model.provider == "rehearsal":
            return 0.0, usage
        cost = self._own(model.name, usage)
        if cost is None:
            cost = cost_usd(usage, await look_up(model.provider, model.name))
        if cost is None and self._unknown_counts_zero:
            self._note(model.name)
            return 0.0, usage
        return cost, usage

    def settled(self, model: Model, reply: Reply, *, free: bool = False) -> float | None:
        """USD of a call that was made, by whichever model of a chain answered; ``None`` when nobody knows."""
        if free:
            return 0.0
        own = self._own(reply.asked or model.name, reply.usage)
        return reply.cost_usd if own is None else own

    def _own(self, model: str, usage: TokenUsage) -> float | None:
        price = self._models.get(model)
        if price is None:
            return None
        cached = price.input if price.cached is None else price.cached
        fresh = usage.input - usage.cached
        return (fresh * price.input + usage.cached * cached + usage.output * price.output) / 1_000_000

    def _note(self, model: str) -> None:
        if model not in self._told:
            self._told.add(model)
            log.warning("the model's price is unknown and counts as zero", model=model)
