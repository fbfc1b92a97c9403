"""What an agent's endpoints do to a whole task: the job's own choice, the chain, a choice that is not listed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent2389.config.model import Endpoint, LlmSection, PricesSection
from agent2389.config.model import Price as ConfiguredPrice
from agent2389.ledger.states import JobState
from agent2389.llm.messages import Request, Role, Turn
from agent2389.llm.open import Models
from tests.support.agent_house import House, house
from tests.support.model_forms import FORMS, Form, whole
from tests.support.model_server import Answer, Asked, ModelServer, as_json, model_server

OPENAI, CLAUDE, GEMINI = FORMS


def endpoint(form: Form, server: ModelServer, model: str, **fields: Any) -> dict[str, Any]:
    return {"provider": form.name, "model": model, "base_url": form.base_url(server.url), **fields}


async def work(
    tmp_path: Path,
    server: ModelServer,
    llm: dict[str, Any] | None,
    *answers: Callable[[Asked], Answer],
    **sections: Any,
) -> tuple[str, House]:
    """The outcome of one job with ``llm`` on an agent with one endpoint of each provider."""
    section = LlmSection(
        **endpoint(OPENAI, server, "first", models=("first-large",)),
        max_retries=0,
        fallback=("claude",),
        endpoints={
            "claude": Endpoint(**endpoint(CLAUDE, server, "claude-x")),
            "gemini": Endpoint(**endpoint(GEMINI, server, "gemini-x")),
        },
    )
    models = Models(section)
    # A first call imports an SDK, which on a busy machine takes as long as a claim holds.
    server.will(by_path)
    for name in ("default", "claude", "gemini"):
        await models.endpoint(name).answer(Request(turns=(Turn(role=Role.USER, text="Are you there?"),)))
    server.will(*answers)
    job = {"instruction": "do it", "submission": {"instruction": "do it", **({"llm": llm} if llm else {})}}
    async with house(tmp_path, models.main(), job=job, llm=section, **sections) as agent:
        parts = msgspec.structs.replace(agent.parts, model_for_job=models.for_job)
        own = House(agent.ledger, parts, tmp_path, agent.incarnation)
        outcome = await own.work()
    await models.close()
    return outcome, own


def by_path(asked: Asked) -> Answer:
    """Each provider's own answer, as its path asks for it."""
    for form, part in ((OPENAI, "chat/completions"), (CLAUDE, "/messages"), (GEMINI, ":generateContent")):
        if part in asked.path:
            return whole(form, f"by {form.name}")
    return as_json({}, status=404)


@pytest.mark.parametrize(
    ("llm", "answer", "model"),
    [
        (None, "by openai", "first"),
        ({"endpoint": "claude"}, "by anthropic", "claude-x"),
        ({"provider": "google"}, "by google", "gemini-x"),
        ({"model": "first-large"}, "by openai", "first-large"),
    ],
)
async def test_a_job_is_done_by_the_model_that_it_names(
    tmp_path: Path, llm: dict[str, Any] | None, answer: str, model: str
) -> None:
    async with model_server() as server:
        outcome, agent = await work(tmp_path, server, llm, by_path)
        assert (outcome, await agent.text_of()) == ("completed", answer)
        (asked,) = server.asked
        assert model in (asked.body.get("model") or asked.path)


@pytest.mark.parametrize("llm", [{"endpoint": "nowhere"}, {"model": "not-listed"}, {"provider": "rehearsal"}])
async def test_a_choice_that_is_not_listed_fails_the_job_and_calls_nobody(
    tmp_path: Path, llm: dict[str, Any]
) -> None:
    async with model_server() as server:
        _, agent = await work(tmp_path, server, llm, by_path)
        detail = await agent.ledger.job("job-1")
        assert detail.job.state is JobState.FAILED
        assert "invalid_input" in str(msgspec.to_builtins(detail))
        assert server.asked == []


async def test_the_next_of_the_chain_does_the_job_and_its_price_is_paid(tmp_path: Path) -> None:
    def broken_first(asked: Asked) -> Answer:
        return as_json({"error": {}}, status=529) if "chat" in asked.path else by_path(asked)

    prices = PricesSection(
        models={
            "first": ConfiguredPrice(input=1.0, output=1.0),
            "claude-x": ConfiguredPrice(input=1000.0, output=1000.0, cached=1000.0),
        }
    )
    async with model_server() as server:
        outcome, agent = await work(tmp_path, server, None, broken_first, prices=prices)
        assert (outcome, await agent.text_of()) == ("completed", "by anthropic")
        detail = await agent.ledger.job("job-1")
        assert detail.job.usage.cost_usd == pytest.approx(14 * 1000 / 1_000_000)
