"""Retries, fallback, circuit breaker, and which model a job may have."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from pydantic import SecretStr

from agent2389.config.model import Endpoint, LlmSection, RoutingModel
from agent2389.errors import ConfigurationError, ModelFailed
from agent2389.llm.breaker import Breaker, Breaking
from agent2389.llm.fallback import FallingBack
from agent2389.llm.messages import Chunk, Reply, Request, Role, Schema, Turn
from agent2389.llm.open import Models, open_model
from agent2389.llm.streamed import Streamed
from agent2389.llm.wrap import Retrying
from tests.support.model_forms import FORMS, streamed, whole
from tests.support.model_server import model_server

ASK = Request(turns=(Turn(role=Role.USER, text="x"),), timeout=30.0)
Step = ModelFailed | str


class Scripted:
    """Fails or answers as told; the last step is repeated."""

    provider = "openai"

    def __init__(self, *steps: Step, name: str = "scripted", seconds: float = 0.0) -> None:
        self.name = name
        self.steps: list[Step] = list(steps)
        self.seen: list[Request] = []
        self.closed = 0
        self._seconds = seconds

    async def answer(self, request: Request) -> Reply:
        self.seen.append(request)
        if self._seconds > request.timeout:
            await asyncio.sleep(request.timeout)
            raise ModelFailed("the model did not answer in time")
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, ModelFailed):
            raise step
        return Reply(text=step, model=self.name)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        reply = await self.answer(request)
        if reply.text.startswith("broken "):
            yield Chunk(text=reply.text)
            raise ModelFailed("the stream was cut before its end")
        yield Chunk(reply=reply)

    async def verify(self) -> None:
        await self.answer(ASK)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not slept."""
    found: list[float] = []
    really = asyncio.sleep

    async def sleep(seconds: float) -> None:
        found.append(seconds)
        await really(0)

    monkeypatch.setattr("agent2389.llm.wrap.asyncio.sleep", sleep)
    return found


def failed(**fields: object) -> ModelFailed:
    return ModelFailed("it failed", **fields)  # type: ignore[arg-type]


async def test_retries_until_it_answers(pauses: list[float]) -> None:
    model = Scripted(failed(), failed(), "yes")
    assert (await Retrying(model, 3).answer(ASK)).text == "yes"
    assert len(pauses) == 2
    assert all(0 <= pause <= 2 for pause in pauses)


async def test_a_wish_to_wait_is_a_minimum(pauses: list[float]) -> None:
    await Retrying(Scripted(failed(retry_after=7.0), "yes"), 3).answer(ASK)
    assert pauses == [7.0]


@pytest.mark.parametrize(
    ("failure", "calls"),
    [(failed(), 3), (failed(retryable=False), 1), (failed(retry_after=31.0), 1)],
    ids=["used up", "final", "longer than the time left"],
)
async def test_it_gives_up(failure: ModelFailed, calls: int, pauses: list[float]) -> None:
    model = Scripted(failure)
    with pytest.raises(ModelFailed):
        await Retrying(model, 2).answer(ASK)
    assert len(model.seen) == calls


async def test_all_tries_share_the_time_of_the_request() -> None:
    model = Scripted("never", seconds=9)
    started = asyncio.get_running_loop().time()
    with pytest.raises(ModelFailed):
        await Retrying(model, 5).answer(Request(turns=ASK.turns, timeout=0.2))
    assert asyncio.get_running_loop().time() - started < 1.0


async def test_a_stream_is_repeated_until_its_first_piece_only(pauses: list[float]) -> None:
    chunks = [chunk async for chunk in Retrying(Scripted(failed(), "yes"), 2).stream(ASK)]
    assert chunks[0].reply is not None
    model = Scripted("broken off", "yes")
    with pytest.raises(ModelFailed, match="cut"):
        _ = [chunk async for chunk in Retrying(model, 2).stream(ASK)]
    assert len(model.seen) == 1


async def test_answers_may_be_fetched_as_a_stream() -> None:
    inner = Scripted("yes")
    model = Streamed(inner, 7.0)
    assert (await model.answer(ASK)).text == "yes"
    assert inner.seen[0].first_token_timeout == 7.0
    assert [chunk.reply.text async for chunk in model.stream(ASK) if chunk.reply] == ["yes"]
    with pytest.raises(ModelFailed, match="cut"):
        await Streamed(Scripted("broken off"), 7.0).answer(ASK)
    structured = Request(turns=ASK.turns, schema=Schema("name", {"type": "object"}))
    assert (await model.answer(structured)).text == "yes"
    assert inner.seen[-1].first_token_timeout == structured.first_token_timeout  # whole: it can be repaired
    await model.verify()
    await model.close()
    assert (model.name, model.provider, inner.closed) == ("scripted", "openai", 1)


async def test_a_stream_that_was_cut_is_asked_for_again(pauses: list[float]) -> None:
    class CutOnce(Scripted):
        async def stream(self, request: Request) -> AsyncIterator[Chunk]:
            self.seen.append(request)
            yield Chunk(text="half")
            if len(self.seen) == 1:
                raise ModelFailed("the stream was cut before its end")
            yield Chunk(reply=Reply(text="whole", model=self.name))

    model = CutOnce("unused")
    assert (await Retrying(Streamed(model, 7.0), 2).answer(ASK)).text == "whole"
    assert (len(model.seen), len(pauses)) == (2, 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_file_decides_whether_answers_are_streamed(stream: bool) -> None:
    form = FORMS[0]
    async with model_server() as server:
        model = open_model(
            LlmSection(model="a-model", base_url=form.base_url(server.url), stream=stream, max_retries=0)
        )
        server.will(streamed(form, ["Twelve ", "metres."]) if stream else whole(form, "Twelve metres."))
        assert (await model.answer(ASK)).text == "Twelve metres."
        assert server.asked[0].body.get("stream", False) is stream
        await model.close()


async def test_fallback_names_who_answered() -> None:
    first, second = Scripted(failed(retryable=False), name="first"), Scripted("yes", name="second")
    chain = FallingBack([first, second])
    assert (await chain.answer(ASK)).model == "second"
    assert (chain.name, [chunk.reply.model async for chunk in chain.stream(ASK) if chunk.reply]) == (
        "first",
        ["second"],
    )
    await chain.verify()
    await chain.close()
    assert (first.closed, second.closed) == (1, 1)


async def test_a_model_that_hangs_leaves_time_for_the_next() -> None:
    chain = FallingBack([Scripted("never", seconds=60), Scripted("yes")])
    assert (await chain.answer(Request(turns=ASK.turns, timeout=0.4))).text == "yes"


async def test_a_chain_that_fails_names_every_reason() -> None:
    chain = FallingBack(
        [
            Scripted(failed(retry_after=9.0), name="one"),
            Scripted(failed(retryable=False, retry_after=4.0), name="two"),
        ]
    )
    with pytest.raises(ModelFailed, match=r"one: it failed; two: it failed") as caught:
        await chain.answer(ASK)
    assert (caught.value.retryable, caught.value.retry_after) == (True, 4.0)
    with pytest.raises(ModelFailed):
        await chain.verify()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def drive(model: Breaking, outcomes: Sequence[str]) -> list[str]:
    """What each call came to: its text, or the first words of its failure."""
    found = []
    for _ in outcomes:
        try:
            found.append((await model.answer(ASK)).text)
        except ModelFailed as error:
            found.append(" ".join(str(error).split()[:2]))
    return found


async def test_the_breaker_opens_rests_and_closes() -> None:
    clock = Clock()
    inner = Scripted(failed(), failed(), failed(), "yes")
    model = Breaking(inner, Breaker("main", 3, 30.0, clock))
    assert await drive(model, "1234") == ["it failed"] * 3 + ["endpoint main"]
    with pytest.raises(ModelFailed) as caught:
        await model.answer(ASK)
    assert (caught.value.retryable, caught.value.retry_after) == (True, 30.0)
    clock.now += 30
    assert await drive(model, "12") == ["yes", "yes"]
    assert len(inner.seen) == 5


async def test_one_failed_trial_opens_it_again() -> None:
    clock = Clock()
    inner = Scripted(failed())
    model = Breaking(inner, Breaker("main", 2, 30.0, clock))
    await drive(model, "12")
    clock.now += 31
    assert await drive(model, "12") == ["it failed", "endpoint main"]


async def test_only_one_call_tries_a_resting_endpoint() -> None:
    clock = Clock()
    breaker = Breaker("main", 1, 30.0, clock)
    await drive(Breaking(Scripted(failed()), breaker), "1")
    clock.now += 31
    with breaker.call(), pytest.raises(ModelFailed, match="rests"), breaker.call():
        raise AssertionError("a second trial was let in")
    assert not breaker.is_open


async def test_a_cancelled_trial_does_not_keep_it_open() -> None:
    clock = Clock()
    breaker = Breaker("main", 1, 30.0, clock)
    await drive(Breaking(Scripted(failed()), breaker), "1")
    clock.now += 31
    with pytest.raises(asyncio.CancelledError), breaker.call():
        raise asyncio.CancelledError
    assert not breaker.is_open


@pytest.mark.parametrize("failure", [failed(status=429), failed(status=400, retryable=False)])
async def test_refusals_do_not_open_it(failure: ModelFailed) -> None:
    model = Breaking(Scripted(failure), Breaker("main", 1, 30.0, Clock()))
    assert await drive(model, "123") == ["it failed"] * 3


def section(**fields: object) -> LlmSection:
    return LlmSection.model_validate(
        {
            "provider": "openai",
            "model": "gpt-4o-mini",
            "api_key": SecretStr("sk-main"),
            "models": ("gpt-5",),
            "endpoints": {
                "local": Endpoint(provider="openai", model="llama", base_url="http://127.0.0.1:9/v1"),
                "claude": Endpoint(
                    provider="anthropic", model="claude-sonnet-4-5", models=("claude-opus-5",)
                ),
                "gemini": Endpoint(provider="google", model="gemini-2.5-flash"),
                "offline": Endpoint(provider="rehearsal", model="rehearsal"),
            },
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("wanted", "provider", "name"),
    [
        ({}, "openai", "gpt-4o-mini"),
        ({"endpoint": "default"}, "openai", "gpt-4o-mini"),
        ({"endpoint": "local"}, "openai", "llama"),
        ({"endpoint": "claude", "model": "claude-opus-5"}, "anthropic", "claude-opus-5"),
        ({"model": "gpt-5"}, "openai", "gpt-5"),
        ({"model": "claude-opus-5"}, "anthropic", "claude-opus-5"),
        ({"provider": "google"}, "google", "gemini-2.5-flash"),
        ({"provider": "rehearsal", "model": "rehearsal"}, "rehearsal", "rehearsal"),
        ({"endpoint": None, "model": None, "provider": None}, "openai", "gpt-4o-mini"),
    ],
)
def test_what_a_job_may_have(wanted: dict[str, str], provider: str, name: str) -> None:
    model = Models(section()).for_job(wanted)
    assert (model.provider, model.name) == (provider, name)


@pytest.mark.parametrize(
    "wanted",
    [
        {"endpoint": "nowhere"},
        {"endpoint": "http://evil.example/v1"},
        {"endpoint": "local", "model": "gpt-5"},
        {"model": "gpt-6"},
        {"model": "x" * 100_000},
        {"provider": "google", "model": "gpt-5"},
        {"provider": "nobody"},
    ],
)
def test_what_a_job_may_not_have(wanted: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Models(section()).for_job(wanted)
    assert caught.value.hint
    assert len(str(caught.value)) < 300


async def test_endpoints_are_opened_once_and_share_a_breaker() -> None:
    models = Models(section(fallback=("local", "offline")))
    assert models.endpoint("local") is models.endpoint("local")
    assert isinstance(models.main(), FallingBack)
    assert models.main().name == "gpt-4o-mini"
    await models.close()


def test_the_routing_step_borrows_what_it_does_not_name() -> None:
    models = Models(section())
    assert models.routing(RoutingModel()).name == "gpt-4o-mini"
    assert models.routing(RoutingModel(model="gpt-5-nano")).name == "gpt-5-nano"
    assert models.routing(RoutingModel(provider="google", model="gemini-3-flash")).provider == "google"
    assert models.routing(RoutingModel(provider="rehearsal", model="rehearsal")).provider == "rehearsal"


@pytest.mark.parametrize("make", [open_model, lambda part: Models(part).main()])
def test_the_rehearsal_model_needs_no_wrapper(make: Callable[[LlmSection], object]) -> None:
    assert type(make(LlmSection(provider="rehearsal", model="rehearsal"))).__name__ == "RehearsalModel"
