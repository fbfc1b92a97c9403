"""What health says of the model: a free look now and then, and endpoints that rest."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent2389.config.model import LlmSection
from agent2389.errors import MissingExtra, ModelFailed
from agent2389.insight import health as insight_health
from agent2389.insight.health import Check, Health
from agent2389.llm.messages import Request, Role, Turn
from agent2389.llm.open import Models
from agent2389.telemetry.metrics import Metrics
from agent2389.wiring import model as wiring
from agent2389.wiring.model import usable_model
from tests.support.model_server import Answer, ModelServer, model_server
from tests.support.waiting import until

OFTEN_SECONDS = 0.05
ASK = Request(turns=(Turn(role=Role.USER, text="hello"),))


@pytest.fixture(autouse=True)
def fresh_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight_health, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(wiring, "VERIFY_PAUSE", OFTEN_SECONDS)


class Place:
    def __init__(self, server: ModelServer, told: list[str]) -> None:
        section = LlmSection(
            provider="openai", model="m", base_url=f"{server.url}/v1", max_retries=0, breaker_failures=2
        )
        self.models = Models(section)
        self.health = Health()
        self.metrics = Metrics("test")
        self.told = told

    async def check(self) -> Check:
        return (await self.health.checks())["model"]


@asynccontextmanager
async def place(server: ModelServer) -> AsyncIterator[Place]:
    told: list[str] = []
    here = Place(server, told)
    async with usable_model(here.models, here.health, here.metrics, told.append, OFTEN_SECONDS):
        yield here
    await here.models.close()


async def test_it_is_entered_once_the_endpoint_takes_the_key() -> None:
    async with model_server() as server:
        server.models = Answer(status=401)

        def mended(reason: str) -> None:
            assert "m: " in reason
            server.models = Answer()

        here = Place(server, [])
        async with usable_model(here.models, here.health, here.metrics, mended, OFTEN_SECONDS):
            assert (await here.check()).status == "healthy"
        await here.models.close()


@pytest.mark.parametrize(("status", "verdict"), [(401, "unhealthy"), (200, "healthy"), (503, "healthy")])
async def test_a_refused_key_makes_it_unready_and_any_other_answer_does_not(
    status: int, verdict: str
) -> None:
    async with model_server() as server, place(server) as here:
        server.models = Answer(status=status)
        looks = len(server.asked)
        await until(lambda: len(server.asked) >= looks + 2)
        assert (await here.check()).status == verdict
        server.models = Answer()
        looks = len(server.asked)
        await until(lambda: len(server.asked) >= looks + 2)
        assert (await here.check()).status == "healthy"


async def test_an_endpoint_that_rests_degrades_and_is_counted() -> None:
    async with model_server() as server, place(server) as here:
        server.will(Answer(status=500))
        for _ in range(2):
            with pytest.raises(ModelFailed):
                await here.models.main().answer(ASK)
        check = await here.check()
        assert (check.status, check.message) == (
            "degraded",
            "endpoint default failed several times in a row and rests",
        )
        assert b'agent2389_llm_endpoint_resting{endpoint="default"} 1.0' in here.metrics.render()


def test_a_provider_without_its_sdk_is_refused_before_any_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    models = Models(LlmSection(provider="openai", model="m", base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(MissingExtra, match="the provider openai needs") as refused:
        models.main()
    assert refused.value.hint == "install them: pip install 'agent2389[llm]'"


async def test_an_endpoint_that_went_away_degrades() -> None:
    async with model_server() as server:
        here = Place(server, [])
        async with usable_model(here.models, here.health, here.metrics, here.told.append, OFTEN_SECONDS):
            server.models = Answer(cut=True, wait=0.0)
            looks = len(server.asked)
            await until(lambda: len(server.asked) >= looks + 2)
            check = await here.check()
            assert check.status == "degraded"
            assert "does not answer" in check.message
        await here.models.close()
