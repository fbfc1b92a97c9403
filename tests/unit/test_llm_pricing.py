"""What a call costs: our arithmetic is the price table's own, and unknown stays unknown."""

import sys

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot

from agent2389.config.model import Endpoint, LlmSection, PricesSection
from agent2389.config.model import Price as ConfiguredPrice
from agent2389.llm import pricing
from agent2389.llm.messages import Request, Role, TokenUsage, Turn
from agent2389.llm.open import Models, open_model
from agent2389.llm.price_table import price_of
from agent2389.llm.prices import Prices
from agent2389.llm.pricing import LookUp, Rate, Tier, cost_usd, flat, look_up
from tests.support.model_forms import FORMS, Form, model_for, whole
from tests.support.model_server import as_json, model_server

USAGES = (
    TokenUsage(0, 0, 0),
    TokenUsage(100, 50, 0),
    TokenUsage(100, 50, 40),
    TokenUsage(200_000, 1, 200_000),
    TokenUsage(300_000, 5000, 100_000),
)
ASK = Request(turns=(Turn(role=Role.USER, text="How deep is it?"),))


@pytest.fixture(autouse=True)
def nothing_found_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "_FOUND", {})


def theirs(provider: str, model: str, usage: TokenUsage) -> float:
    used = Usage(input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached)
    return float(calc_price(used, model_ref=model, provider_id=provider).total_price)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
def test_every_model_of_the_table_costs_what_the_table_says(provider: str) -> None:
    (known,) = (found for found in get_snapshot().providers if found.id == provider)
    priced = 0
    for model in known.models:
        price = price_of(provider, model.id)
        if price is None:
            continue
        priced += 1
        for usage in USAGES:
            assert cost_usd(usage, price) == pytest.approx(theirs(provider, model.id, usage), abs=1e-12), (
                model.id,
                usage,
            )
    assert priced >= 10


def test_the_price_of_a_long_call_is_that_of_its_tier() -> None:
    rate = Rate(1.0, (Tier(100, 2.0), Tier(200, 3.0)))
    assert [rate.at(read) for read in (0, 100, 101, 200, 201)] == [1.0, 1.0, 2.0, 2.0, 3.0]


def test_a_configured_price_of_cached_tokens() -> None:
    used = TokenUsage(1_000_000, 1_000_000, 500_000)
    assert cost_usd(used, flat(2.0, 8.0)) == pytest.approx(10.0)
    assert cost_usd(used, flat(2.0, 8.0, 0.5)) == pytest.approx(9.25)
    assert cost_usd(used, flat(0.0, 0.0)) == 0.0
    assert cost_usd(used, None) is None


@pytest.mark.parametrize("model", ["nobody-knows-it", "", "-c", "nul\0byte", "x" * 3_000_000])
async def test_an_unknown_model_has_no_price(model: str) -> None:
    assert await look_up("openai", model) is None


async def test_the_table_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = await look_up("openai", "gpt-4o-mini")
    assert first == price_of("openai", "gpt-4o-mini")
    assert first is not None
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert await look_up("openai", "gpt-4o-mini") == first
    assert await look_up("openai", "gpt-4o") is None


async def test_a_table_that_says_nonsense_is_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    table = LookUp("openai", "gpt-4o")
    table.begin()
    assert table.end() is None
    assert await look_up("openai", "gpt-4o-mini") is None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
async def test_a_reply_carries_its_cost(form: Form) -> None:
    used = TokenUsage(11, 3, 4)
    async with model_server() as server:
        server.will(whole(form, "Twelve metres."))
        unknown, known = model_for(form, server.url), model_for(form, server.url, price=flat(3.0, 15.0, 0.3))
        assert (await unknown.answer(ASK)).cost_usd is None
        assert (await known.answer(ASK)).cost_usd == pytest.approx(cost_usd(used, flat(3.0, 15.0, 0.3)))
        await unknown.close()
        await known.close()


async def test_prices_of_the_configuration_come_first() -> None:
    form = FORMS[0]
    async with model_server() as server:
        server.will(whole(form, "Twelve metres."))
        section = LlmSection(
            model="gpt-4o-mini",
            base_url=form.base_url(server.url),
            price_per_million_input_usd=1.0,
            price_per_million_output_usd=1.0,
        )
        model = open_model(section)
        assert (await model.answer(ASK)).cost_usd == pytest.approx(14e-6)
        await model.close()
        model = open_model(LlmSection(model="gpt-4o-mini", base_url=form.base_url(server.url)))
        assert (await model.answer(ASK)).cost_usd == pytest.approx(
            theirs("openai", "gpt-4o-mini", TokenUsage(11, 3, 4))
        )
        await model.close()


async def test_a_chain_costs_what_the_model_costs_that_answered() -> None:
    form = FORMS[0]
    async with model_server() as server:
        section = LlmSection(
            model="first",
            base_url=form.base_url(server.url),
            max_retries=0,
            fallback=("second",),
            endpoints={
                "second": Endpoint(
                    provider="openai",
                    model="its-model",
                    base_url=form.base_url(server.url),
                    price_per_million_input_usd=4.0,
                    price_per_million_output_usd=4.0,
                )
            },
        )
        own = PricesSection(models={"first": ConfiguredPrice(input=1.0, output=1.0)})
        prices = Prices(own, section)
        models = Models(section)
        model = models.main()
        server.will(as_json({"error": {}}, status=500), whole(form, "Twelve metres."))
        reply = await model.answer(ASK)
        assert (reply.asked, reply.model) == ("its-model", "told-by-endpoint")
        assert prices.settled(model, reply) == pytest.approx(14 * 4e-6)
        server.will(whole(form, "Twelve metres."))
        assert prices.settled(model, await model.answer(ASK)) == pytest.approx(14e-6)
        cost, tokens = await prices.estimate(models.endpoint("second"), ASK)
        assert cost == pytest.approx((tokens.input + tokens.output) * 4e-6)
        await models.close()
