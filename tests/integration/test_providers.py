"""The official SDKs against a mock that is not ours: what we think a provider says, somebody else says too."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from agent2389.errors import ModelFailed
from agent2389.llm.endpoint import EndpointModel
from agent2389.llm.messages import Finished, Request, Role, Schema, TokenUsage, ToolSpec, Turn
from agent2389.llm.wrap import Retrying
from tests.support.model_forms import FORMS, Form, model_for
from tests.support.oracle import Missing, Oracle, oracle

# Its Gemini says FUNCTION_CALL as a finish reason, which the SDK warns about.
pytestmark = pytest.mark.filterwarnings("ignore:.* is not a valid :UserWarning")
TOOL = ToolSpec("depth", "Measures.", {"type": "object", "properties": {"of": {"type": "string"}}})
COLOUR = Schema(
    "colour",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
)


@pytest.fixture(scope="module")
def mock() -> Iterator[Oracle]:
    try:
        with oracle() as found:
            yield found
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Form:
    found: Form = request.param
    return found


@pytest_asyncio.fixture
async def model(form: Form, mock: Oracle) -> AsyncIterator[EndpointModel]:
    found = model_for(form, mock.url)
    yield found
    await found.close()


def ask(text: str) -> Request:
    return Request(turns=(Turn(role=Role.SYSTEM, text="Be brief."), Turn(role=Role.USER, text=text)))


async def test_plain(model: EndpointModel) -> None:
    reply = await model.answer(ask("plain"))
    assert (reply.text, reply.finished) == ("A plain answer.", Finished.STOP)
    assert reply.usage == TokenUsage(input=21, output=4)
    await model.verify()


async def test_streamed(model: EndpointModel) -> None:
    chunks = [chunk async for chunk in model.stream(ask("plain"))]
    assert "".join(chunk.text for chunk in chunks) == "A plain answer."
    assert chunks[-1].reply is not None
    assert chunks[-1].reply.text == "A plain answer."
    assert chunks[-1].reply.usage.output > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_loop_of_parallel_tool_calls(model: EndpointModel, stream: bool) -> None:
    turns = ask("tools").turns
    request = Request(turns=turns, tools=(TOOL,))
    if stream:
        reply = [chunk async for chunk in model.stream(request)][-1].reply
        assert reply is not None
    else:
        reply = await model.answer(request)
    assert reply.finished is Finished.TOOL_CALLS
    assert [call.name for call in reply.tool_calls] == ["depth", "depth"]
    assert ["lake" in call.arguments for call in reply.tool_calls] == [True, False]
    assert len({call.id for call in reply.tool_calls}) == 2
    turns += (Turn(role=Role.ASSISTANT, text=reply.text, tool_calls=reply.tool_calls),)
    turns += tuple(Turn(role=Role.TOOL, text="12 m", tool_call_id=call.id) for call in reply.tool_calls)
    assert (await model.answer(Request(turns=turns, tools=(TOOL,)))).text == "The sea is deeper."


async def test_structured(model: EndpointModel) -> None:
    request = Request(turns=ask("colour").turns, schema=COLOUR)
    assert (await model.answer(request)).structured == {"name": "blue"}


@pytest.mark.parametrize(("word", "status"), [("too many", 429), ("overloaded", 529), ("broken", 500)])
async def test_failures(model: EndpointModel, word: str, status: int) -> None:
    with pytest.raises(ModelFailed) as caught:
        await model.answer(ask(word))
    assert (caught.value.status, caught.value.retryable) == (status, True)
    assert caught.value.retry_after == (1.0 if status == 429 else None)


async def test_a_cut_stream(model: EndpointModel) -> None:
    with pytest.raises(ModelFailed) as caught:
        _ = [chunk async for chunk in model.stream(ask("cut"))]
    assert caught.value.retryable


@pytest.mark.parametrize("word", ["garbage", "gone"])
async def test_answers_that_are_none(model: EndpointModel, word: str) -> None:
    with pytest.raises(ModelFailed) as caught:
        await model.answer(ask(word))
    assert caught.value.retryable


async def test_a_request_to_wait_is_honoured_and_every_try_is_ours(
    mock: Oracle, model: EndpointModel
) -> None:
    before = len(mock.journal())
    with pytest.raises(ModelFailed):
        await Retrying(model, 1).answer(ask("too many"))
    assert len(mock.journal()) == before + 2
