"""OpenAI's wire format on the official SDK, for OpenAI and every compatible endpoint."""

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import httpx2

from agent2389.errors import MissingExtra, ModelFailed
from agent2389.llm.endpoint import unreachable
from agent2389.llm.failures import failure_of_status
from agent2389.llm.messages import Finished, Request, TokenUsage, ToolCall, ToolSpec, Turn
from agent2389.llm.profile import counts_completion_tokens, takes_temperature
from agent2389.llm.replies import (
    MOST_CALLS,
    Raw,
    arguments_text,
    count,
    items,
    label,
    peek,
    text_of,
    tool_call,
    unusable,
)
from agent2389.llm.structured import Asked

_FINISHED = {
    "stop": Finished.STOP,
    "tool_calls": Finished.TOOL_CALLS,
    "function_call": Finished.TOOL_CALLS,
    "length": Finished.LENGTH,
    "content_filter": Finished.REFUSED,
}


class OpenAIDialect:
    """Chat completions. Deviations of compatible servers are tolerated: calls without ids or indexes,
    arguments already parsed, content in parts, no usage, an error inside HTTP 200.
    """

    provider = "openai"
    address = "https://api.openai.com/v1"

    def client(self, api_key: str, base_url: str, http: httpx2.AsyncClient) -> Any:
        """As ``Dialect.client``."""
        try:
            import openai  # noqa: PLC0415 - costs a second; only agents that use it pay
        except ModuleNotFoundError:
            raise MissingExtra("the provider openai", "llm") from None
        return openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, max_retries=0, timeout=None, http_client=http
        )

    async def complete(self, client: Any, model: str, asked: Asked) -> Raw:
        """As ``Dialect.complete``."""
        completion = await client.chat.completions.create(**_arguments(model, asked))
        _raise_inner(completion)
        choices = list(items(peek(completion, "choices")))
        if not choices:
            raise unusable("it holds no choice")
        message = peek(choices[0], "message")
        if message is None:
            raise unusable("its choice holds no message")
        found = [*items(peek(message, "tool_calls"))][:MOST_CALLS]
        calls = [_call(item) for item in found if peek(item, "function") is not None]
        if not calls and (single := peek(message, "function_call")) is not None:
            calls = [tool_call(None, peek(single, "name"), peek(single, "arguments"))]
        text, refusal = text_of(peek(message, "content")), text_of(peek(message, "refusal"))
        return Raw(
            text=text or refusal,
            calls=tuple(calls),
            usage=_usage(peek(completion, "usage")),
            model=label(peek(completion, "model")),
            **_reason(label(peek(choices[0], "finish_reason")), refused=bool(refusal) and not text),
        )

    async def stream(self, client: Any, model: str, asked: Asked) -> AsyncGenerator[str | Raw]:
        """As ``Dialect.stream``."""
        texts: list[str] = []
        calls = _Gathered()
        reason, refused, usage, named = "", False, None, ""
        async with await client.chat.completions.create(
            **_arguments(model, asked), stream=True, stream_options={"include_usage": True}
        ) as events:
            async for event in events:
                _raise_inner(event)
                named = label(peek(event, "model")) or named
                usage = _usage(peek(event, "usage")) or usage
                for choice in [*items(peek(event, "choices"))][:1]:
                    reason = label(peek(choice, "finish_reason")) or reason
                    delta = peek(choice, "delta")
                    calls.add(items(peek(delta, "tool_calls")))
                    refusal = text_of(peek(delta, "refusal"))
                    refused = refused or bool(refusal)
                    texts.append(text_of(peek(delta, "content")) + refusal)
                    yield texts[-1]
        if reason:
            yield Raw(
                text="".join(texts),
                calls=calls.all(),
                usage=usage,
                model=named,
                **_reason(reason, refused=refused),
            )

    def failure(self, error: Exception) -> ModelFailed | None:
        """As ``Dialect.failure``."""
        import openai  # noqa: PLC0415 - already imported by the call that failed

        match error:
            case openai.APITimeoutError():
                return ModelFailed("the model did not answer in time", retryable=True)
            case openai.APIStatusError():
                return failure_of_status(error.status_code, error.response.headers, {"error": error.body})
            case openai.APIConnectionError():
                return unreachable()
            case openai.APIError():
                return failure_of_status(200, None, {"error": error.body})
            case _:
                return None

    def probe(self, api_key: str, base_url: str) -> tuple[str, dict[str, str]]:
        """As ``Dialect.probe``."""
        return f"{base_url}/models", {"Authorization": f"Bearer {api_key}"}


def _arguments(model: str, asked: Asked) -> dict[str, Any]:
    request = asked.request
    arguments: dict[str, Any] = {
        "model": model,
        "messages": [_message(turn) for turn in request.turns],
    }
    if request.tools:
        arguments["tools"] = [_tool(spec) for spec in request.tools]
    if asked.forced is not None:
        arguments["tool_choice"] = {"type": "function", "function": {"name": asked.forced}}
    if request.schema is not None:
        shape = {"name": request.schema.name, "schema": request.schema.schema, "strict": True}
        arguments["response_format"] = {"type": "json_schema", "json_schema": shape}
    return {**arguments, **_sampling(model, request)}


def _sampling(model: str, request: Request) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    if request.temperature is not None and takes_temperature("openai", model):
        sampling["temperature"] = request.temperature
    if request.max_tokens is not None:
        key = "max_completion_tokens" if counts_completion_tokens(model) else "max_tokens"
        sampling[key] = request.max_tokens
    return sampling


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role.value, "content": turn.text}
    if turn.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _call(item: Any) -> ToolCall:
    function = peek(item, "function")
    return tool_call(peek(item, "id"), peek(function, "name"), peek(function, "arguments"))


def _usage(usage: Any) -> TokenUsage | None:
    if usage is None or (peek(usage, "prompt_tokens") is None and peek(usage, "completion_tokens") is None):
        return None
    read = count(peek(usage, "prompt_tokens"))
    cached = count(peek(peek(usage, "prompt_tokens_details"), "cached_tokens"))
    return TokenUsage(read, count(peek(usage, "completion_tokens")), min(cached, read))


def _reason(reason: str, *, refused: bool) -> dict[str, Any]:
    finished = Finished.REFUSED if refused else _FINISHED.get(reason, Finished.OTHER)
    return {"finished": finished, "raw_reason": reason}


def _raise_inner(answer: Any) -> None:
    """Some gateways report a failure behind HTTP 200."""
    error = peek(answer, "error")
    if error is not None:
        code = peek(error, "code")
        status = code if isinstance(code, int) and 300 <= code < 600 else 200
        raise failure_of_status(status, None, {"error": error})


class _Gathered:
    """Tool calls out of deltas. A new id begins a new call, because some servers give all index 0."""

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []
        self._by_index: dict[int, dict[str, str]] = {}

    def add(self, deltas: Iterable[Any]) -> None:
        for delta in deltas:
            function = peek(delta, "function")
            name, call_id = text_of(peek(function, "name")), label(peek(delta, "id"))
            call = self._slot(peek(delta, "index"), call_id, name)
            if call is None:
                continue
            call["id"] = call["id"] or call_id
            if name != call["name"]:
                call["name"] += name
            arguments = peek(function, "arguments")
            if arguments is not None:
                call["arguments"] += arguments if isinstance(arguments, str) else arguments_text(arguments)

    def _slot(self, index: Any, call_id: str, name: str) -> dict[str, str] | None:
        if isinstance(index, int):
            call = self._by_index.get(index)
        else:
            call = None if name or not self._calls else self._calls[-1]
        if call is None or (call_id and call["id"] and call_id != call["id"]):
            if len(self._calls) == MOST_CALLS:
                return None
            call = {"id": "", "name": "", "arguments": ""}
            self._calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        return call

    def all(self) -> tuple[ToolCall, ...]:
        return tuple(tool_call(call["id"], call["name"], call["arguments"]) for call in self._calls)
