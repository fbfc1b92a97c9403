"""Every adapter on its official SDK against a scripted endpoint: one suite, three wire formats."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from agent2389.errors import ModelFailed
from agent2389.llm.endpoint import EndpointModel
from agent2389.llm.messages import (
    Chunk,
    Finished,
    Request,
    Role,
    Schema,
    TokenUsage,
    ToolCall,
    ToolSpec,
    Turn,
)
from tests.support.model_forms import FORMS, Form, model_for, sse, streamed, whole
from tests.support.model_server import Answer, ModelServer, as_json, model_server
from tests.support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:.* is not a valid :UserWarning")
ASK = Request(turns=(Turn(role=Role.SYSTEM, text="Be brief."), Turn(role=Role.USER, text="How deep is it?")))
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
TWO_CALLS = (("call_1", "depth", {"of": "lake"}), ("call_2", "depth", {"of": "sea", "näm€": [1, None]}))


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Form:
    found: Form = request.param
    return found


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as found:
        yield found


@pytest_asyncio.fixture
async def model(form: Form, server: ModelServer) -> AsyncIterator[EndpointModel]:
    found = model_for(form, server.url)
    yield found
    await found.close()


def with_(request: Request = ASK, **fields: Any) -> Request:
    return Request(**{**{name: getattr(request, name) for name in request.__struct_fields__}, **fields})


async def pieces_of(model: EndpointModel, request: Request = ASK) -> list[Chunk]:
    return [chunk async for chunk in model.stream(request)]


async def failure_of(model: EndpointModel, request: Request = ASK) -> ModelFailed:
    with pytest.raises(ModelFailed) as caught:
        await model.answer(request)
    return caught.value


async def test_plain_answer(form: Form, server: ModelServer, model: EndpointModel) -> None:
    server.will(whole(form, "Twelve metres."))
    reply = await model.answer(with_(temperature=0.3, max_tokens=77))
    assert (reply.text, reply.finished, reply.model) == ("Twelve metres.", Finished.STOP, "told-by-endpoint")
    assert reply.usage == TokenUsage(input=11, output=3, cached=4)
    (asked,) = server.asked
    assert "Be brief." in str(asked.body)
    assert "77" in str(asked.body)
    assert asked.headers["Accept-Encoding"] == "identity"


async def test_streamed_answer(form: Form, server: ModelServer, model: EndpointModel) -> None:
    server.will(streamed(form, ["Twelve ", "metres."]))
    *pieces, last = await pieces_of(model)
    assert [piece.text for piece in pieces] == ["Twelve ", "metres."]
    assert last.reply is not None
    assert (last.reply.text, last.reply.finished) == ("Twelve metres.", Finished.STOP)
    assert last.reply.usage == TokenUsage(input=11, output=3, cached=4)


@pytest.mark.parametrize("stream", [False, True])
async def test_parallel_tool_calls(
    form: Form, server: ModelServer, model: EndpointModel, stream: bool
) -> None:
    request = with_(tools=(TOOL,))
    if stream:
        server.will(streamed(form, ["I measure. "], TWO_CALLS))
        reply = (await pieces_of(model, request))[-1].reply
        assert reply is not None
    else:
        server.will(whole(form, "I measure. ", TWO_CALLS))
        reply = await model.answer(request)
    assert reply.finished is Finished.TOOL_CALLS
    assert [(call.id, call.name) for call in reply.tool_calls] == [("call_1", "depth"), ("call_2", "depth")]
    assert '"lake"' in reply.tool_calls[0].arguments
    assert "sea" in reply.tool_calls[1].arguments
    assert form.sent_tools(server.asked[0].body) == ["depth"]


async def test_results_of_parallel_calls_go_back_together(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(whole(form, "Deep."))
    calls = tuple(ToolCall(i, n, '{"of": "lake"}') for i, n, _ in TWO_CALLS)
    turns = (
        *ASK.turns,
        Turn(role=Role.ASSISTANT, tool_calls=calls),
        Turn(role=Role.TOOL, text="12 m", tool_call_id="call_1"),
        Turn(role=Role.TOOL, text="not {JSON", tool_call_id="call_2"),
    )
    assert (await model.answer(with_(turns=turns, tools=(TOOL,)))).text == "Deep."
    body = server.asked[0].body
    match form.name:
        case "openai":
            assert [message["role"] for message in body["messages"]][2:] == ["assistant", "tool", "tool"]
        case "anthropic":
            assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
            assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == ["call_1", "call_2"]
        case _:
            assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
            parts = [part["functionResponse"] for part in body["contents"][2]["parts"]]
            assert [(part["id"], part["name"]) for part in parts] == [
                ("call_1", "depth"),
                ("call_2", "depth"),
            ]


async def test_unreadable_arguments_of_the_past_are_still_accepted(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(whole(form, "Again."))
    turns = (
        *ASK.turns,
        Turn(role=Role.ASSISTANT, tool_calls=(ToolCall("call_1", "depth", '{"of": '),)),
        Turn(role=Role.TOOL, text="the arguments are refused", tool_call_id="call_1"),
    )
    assert (await model.answer(with_(turns=turns))).text == "Again."
    assert '{"of": ' in str(server.asked[0].body).replace('\\"', '"')


async def test_structured_natively(form: Form, server: ModelServer, model: EndpointModel) -> None:
    server.will(whole(form, '{"name": "blue"}'))
    assert (await model.answer(with_(schema=COLOUR))).structured == {"name": "blue"}
    assert form.sent_schema(server.asked[0].body) == COLOUR.schema


async def test_structured_by_a_tool_when_the_endpoint_refuses_schemas(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(
        as_json(form.error(400, "unknown parameter"), status=400),
        whole(form, "", (("call_1", "colour", {"name": "red"}),)),
    )
    reply = await model.answer(with_(schema=COLOUR))
    assert (reply.structured, reply.tool_calls, reply.finished) == ({"name": "red"}, (), Finished.STOP)
    assert form.sent_tools(server.asked[1].body) == ["colour"]
    await model.answer(with_(schema=COLOUR))
    assert form.sent_schema(server.asked[2].body) is None  # what works is remembered


async def test_structured_by_words_when_the_endpoint_knows_no_tools(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    refusal = as_json(form.error(400, "no"), status=400)
    server.will(refusal, refusal, whole(form, 'Here: {"name": "red"}.'))
    assert (await model.answer(with_(schema=COLOUR))).structured == {"name": "red"}
    assert "additionalProperties" in str(server.asked[2].body)


async def test_a_structure_that_does_not_fit_is_repaired_once(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(whole(form, '{"title": "blue"}'), whole(form, '{"name": "blue"}'))
    reply = await model.answer(with_(schema=COLOUR))
    assert reply.structured == {"name": "blue"}
    assert reply.usage.input == 22
    assert "one JSON object" in str(server.asked[1].body)
    server.will(whole(form, "no"), whole(form, "still not"))
    assert (await model.answer(with_(schema=COLOUR))).structured is None
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "headers", "retryable", "pause"),
    [
        (429, {"Retry-After": "7"}, True, 7.0),
        (429, {"retry-after-ms": "1500"}, True, 1.5),
        (429, {"Retry-After": "nan"}, True, None),
        (429, {"Retry-After": "1e300"}, True, 3600.0),
        (500, {}, True, None),
        (503, {"Retry-After": "2"}, True, 2.0),
        (529, {}, True, None),
        (400, {}, False, None),
        (401, {}, False, None),
        (403, {}, False, None),
        (404, {}, False, None),
        (307, {"Location": "http://127.0.0.1:9/other"}, False, None),
    ],
)
async def test_failures_are_typed(
    form: Form,
    server: ModelServer,
    model: EndpointModel,
    status: int,
    headers: dict[str, str],
    retryable: bool,
    pause: float | None,
) -> None:
    server.will(as_json(form.error(status, "sk-a-key-of-the-tests"), status=status, headers=headers))
    failure = await failure_of(model)
    assert (failure.status, failure.retryable, failure.retry_after) == (status, retryable, pause)
    assert len(server.asked) == 1  # the SDK's own retries are off
    with pytest.raises(ModelFailed) as caught:
        await pieces_of(model)
    assert (caught.value.status, caught.value.retry_after) == (status, pause)


async def test_a_late_answer_is_a_retryable_failure(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(whole(form, "too late", wait=30))
    failure = await failure_of(model, with_(timeout=0.3))
    assert "in time" in str(failure)
    assert failure.retryable


async def test_a_stream_that_does_not_begin_is_a_failure(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(streamed(form, ["late"], wait=30))
    with pytest.raises(ModelFailed, match="in time"):
        await pieces_of(model, with_(first_token_timeout=0.3))


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_a_cut_stream_is_a_retryable_failure(
    form: Form, server: ModelServer, model: EndpointModel, keep: int
) -> None:
    server.will(streamed(form, ["one", "two", "three"], keep=keep))
    with pytest.raises(ModelFailed) as caught:
        await pieces_of(model)
    assert caught.value.retryable


async def test_a_stream_left_early_gives_its_connection_back(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(streamed(form, ["one ", "two"]), whole(form, "next"))
    stream = model.stream(ASK)
    first = await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert (first.text, (await model.answer(ASK)).text) == ("one ", "next")


async def test_a_cut_answer_is_a_retryable_failure(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(Answer(body=b'{"choices": [', cut=True))
    assert (await failure_of(model)).retryable


async def test_an_error_inside_a_stream_is_typed(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    events: list[Any]
    if form.name == "google":
        events = [{"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}]
    else:
        events = [{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}]
    server.will(Answer(body=sse(events), content_type="text/event-stream"))
    with pytest.raises(ModelFailed) as caught:
        await pieces_of(model)
    assert caught.value.status in (503, 529)
    assert caught.value.retryable


async def test_refusal_and_length_are_told(form: Form, server: ModelServer, model: EndpointModel) -> None:
    server.will(whole(form, "no", kind="refused"), whole(form, "half a sen", kind="length"))
    assert (await model.answer(ASK)).finished is Finished.REFUSED
    assert (await model.answer(ASK)).finished is Finished.LENGTH


async def test_nobody_there(form: Form) -> None:
    model = model_for(form, "http://127.0.0.1:9")
    failure = await failure_of(model)
    assert failure.retryable
    assert failure.hint
    with pytest.raises(ModelFailed, match="does not answer"):
        await model.verify()
    await model.close()


@pytest.mark.parametrize(
    ("status", "passes"), [(200, True), (404, True), (500, True), (401, False), (403, False)]
)
async def test_verify(
    form: Form, server: ModelServer, model: EndpointModel, status: int, passes: bool
) -> None:
    server.models = Answer(status=status)
    if passes:
        await model.verify()
    else:
        with pytest.raises(ModelFailed, match="refuses the key") as caught:
            await model.verify()
        assert not caught.value.retryable
    assert "sk-a-key-of-the-tests" in str(server.asked[0].headers)


async def test_concurrent_calls_share_one_client(
    form: Form, server: ModelServer, model: EndpointModel
) -> None:
    server.will(whole(form, "yes"))
    replies = await asyncio.gather(*(model.answer(ASK) for _ in range(20)))
    assert [reply.text for reply in replies] == ["yes"] * 20


async def test_no_key_is_needed_with_an_address_of_ones_own(form: Form, server: ModelServer) -> None:
    model = model_for(form, server.url, key=None)
    server.will(whole(form, "free"))
    assert (await model.answer(ASK)).text == "free"
    await model.close()


async def test_cancelling_a_call_ends_it(form: Form, server: ModelServer, model: EndpointModel) -> None:
    server.will(whole(form, "never", wait=30))
    call = asyncio.create_task(model.answer(ASK))
    await until(lambda: server.asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
