"""Anthropic's messages on the official SDK."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2

from agent2389.errors import MissingExtra, ModelFailed
from agent2389.llm.endpoint import unreachable
from agent2389.llm.failures import failure_of_status
from agent2389.llm.messages import Finished, Role, TokenUsage, ToolCall, Turn
from agent2389.llm.profile import ANTHROPIC_MAX_TOKENS, takes_temperature
from agent2389.llm.replies import (
    MOST_CALLS,
    Raw,
    arguments_object,
    arguments_text,
    count,
    label,
    peek,
    text_of,
    tool_call,
    unusable,
)
from agent2389.llm.structured import Asked

_FINISHED = {
    "end_turn": Finished.STOP,
    "stop_sequence": Finished.STOP,
    "tool_use": Finished.TOOL_CALLS,
    "max_tokens": Finished.LENGTH,
    "model_context_window_exceeded": Finished.LENGTH,
    "refusal": Finished.REFUSED,
}
_VERSION = "2023-06-01"


class AnthropicDialect:
    """The messages API. Cached tokens are counted into the input, as everywhere else in this house."""

    provider = "anthropic"
    address = "https://api.anthropic.com"

    def client(self, api_key: str, base_url: str, http: httpx2.AsyncClient) -> Any:
        """As ``Dialect.client``."""
        try:
            import anthropic  # noqa: PLC0415 - costs seconds; only agents that use it pay
        except ModuleNotFoundError:
            raise MissingExtra("the provider anthropic", "llm") from None
        return anthropic.AsyncAnthropic(
            api_key=api_key, base_url=_root(base_url), max_retries=0, timeout=None, http_client=http
        )

    async def complete(self, client: Any, model: str, asked: Asked) -> Raw:
        """As ``Dialect.complete``."""
        message = await client.messages.create(**_arguments(model, asked))
        blocks = peek(message, "content")
        if not isinstance(blocks, list):
            raise unusable("it holds no content")
        reason = label(peek(message, "stop_reason"))
        return Raw(
            text="".join(text_of(peek(block, "text")) for block in blocks if peek(block, "type") == "text"),
            calls=tuple(
                _call(block, peek(block, "input"))
                for block in blocks[: 4 * MOST_CALLS]
                if peek(block, "type") == "tool_use"
            ),
            finished=_FINISHED.get(reason, Finished.OTHER),
            raw_reason=reason,
            usage=_usage(peek(message, "usage"), TokenUsage()),
            model=label(peek(message, "model")),
        )

    async def stream(self, client: Any, model: str, asked: Asked) -> AsyncGenerator[str | Raw]:
        """As ``Dialect.stream``."""
        gathered = _Gathered()
        async with await client.messages.create(**_arguments(model, asked), stream=True) as events:
            async for event in events:
                yield gathered.add(event)
        if gathered.ended:
            yield gathered.raw()

    def failure(self, error: Exception) -> ModelFailed | None:
        """As ``Dialect.failure``."""
        import anthropic  # noqa: PLC0415 - already imported by the call that failed

        match error:
            case anthropic.APITimeoutError():
                return ModelFailed("the model did not answer in time", retryable=True)
            case anthropic.APIStatusError():
                return failure_of_status(error.response.status_code, error.response.headers, error.body)
            case anthropic.APIConnectionError():
                return unreachable()
            case _:
                return None

    def probe(self, api_key: str, base_url: str) -> tuple[str, dict[str, str]]:
        """As ``Dialect.probe``."""
        return f"{_root(base_url)}/v1/models", {"x-api-key": api_key, "anthropic-version": _VERSION}


def _root(base_url: str) -> str:
    """People write the address with and without the version; the SDK adds it."""
    return base_url.rstrip("/").removesuffix("/v1")


def _arguments(model: str, asked: Asked) -> dict[str, Any]:
    request = asked.request
    system = "\n\n".join(turn.text for turn in request.turns if turn.role is Role.SYSTEM)
    arguments: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens or ANTHROPIC_MAX_TOKENS,
        "messages": _messages(request.turns),
        # The SDK refuses long answers without a stream unless it is given a limit; ours is outside.
        "timeout": httpx2.Timeout(None, connect=10.0),
    }
    if system:
        arguments["system"] = system
    if request.tools:
        arguments["tools"] = [
            {"name": spec.name, "description": spec.description, "input_schema": spec.parameters}
            for spec in request.tools
        ]
    if asked.forced is not None:
        arguments["tool_choice"] = {"type": "tool", "name": asked.forced}
    if request.schema is not None:
        shape = {"type": "json_schema", "schema": request.schema.schema}
        arguments["output_config"] = {"format": shape}
    if request.temperature is not None and takes_temperature("anthropic", model):
        arguments["extra_body"] = {"temperature": min(request.temperature, 1.0)}
    return arguments


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    """User and assistant in turn; all results of one assistant turn stand in one user message."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if turn.role is Role.SYSTEM:
            continue
        role = "assistant" if turn.role is Role.ASSISTANT else "user"
        blocks = _blocks(turn)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].extend(blocks)
        elif blocks:
            messages.append({"role": role, "content": blocks})
    return messages


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    if turn.role is Role.TOOL:
        return [{"type": "tool_result", "tool_use_id": turn.tool_call_id, "content": turn.text}]
    # The API refuses a block of white space only.
    blocks: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text.strip() else []
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(call.arguments)}
        for call in turn.tool_calls
    ]


def _call(block: Any, arguments: Any) -> ToolCall:
    return tool_call(peek(block, "id"), peek(block, "name"), arguments)


def _usage(usage: Any, before: TokenUsage) -> TokenUsage | None:
    """Figures of a whole answer or of one event; what an event leaves out keeps its value."""
    if usage is None or (peek(usage, "input_tokens") is None and peek(usage, "output_tokens") is None):
        return None
    output = count(peek(usage, "output_tokens"))
    if peek(usage, "input_tokens") is None:
        return TokenUsage(before.input, output, before.cached)
    cached = count(peek(usage, "cache_read_input_tokens"))
    written = count(peek(usage, "cache_creation_input_tokens"))
    return TokenUsage(count(peek(usage, "input_tokens")) + cached + written, output, cached)


class _Gathered:
    """A message out of its events."""

    def __init__(self) -> None:
        self.ended = False
        self._texts: list[str] = []
        self._calls: dict[Any, tuple[Any, list[str]]] = {}
        self._reason = ""
        self._usage: TokenUsage | None = None
        self._model = ""

    def add(self, event: Any) -> str:
        """Take one event in. Returns the text it brings."""
        match peek(event, "type"):
            case "message_start":
                message = peek(event, "message")
                self._model = label(peek(message, "model"))
                self._usage = _usage(peek(message, "usage"), TokenUsage())
            case "content_block_start":
                return self._begin(peek(event, "index"), peek(event, "content_block"))
            case "content_block_delta":
                return self._continue(peek(event, "index"), peek(event, "delta"))
            case "message_delta":
                self._reason = label(peek(peek(event, "delta"), "stop_reason")) or self._reason
                self._usage = _usage(peek(event, "usage"), self._usage or TokenUsage()) or self._usage
            case "message_stop":
                self.ended = True
            case _:
                pass
        return ""

    def raw(self) -> Raw:
        calls = tuple(_call(block, "".join(pieces)) for block, pieces in self._calls.values())
        return Raw(
            text="".join(self._texts),
            calls=calls,
            finished=_FINISHED.get(self._reason, Finished.OTHER),
            raw_reason=self._reason,
            usage=self._usage,
            model=self._model,
        )

    def _begin(self, index: Any, block: Any) -> str:
        if peek(block, "type") == "tool_use" and len(self._calls) < MOST_CALLS:
            whole = peek(block, "input")
            self._calls[str(index)] = (block, [arguments_text(whole)] if whole else [])
        return self._say(peek(block, "text")) if peek(block, "type") == "text" else ""

    def _continue(self, index: Any, delta: Any) -> str:
        if peek(delta, "type") == "input_json_delta" and str(index) in self._calls:
            self._calls[str(index)][1].append(text_of(peek(delta, "partial_json")))
        return self._say(peek(delta, "text")) if peek(delta, "type") == "text_delta" else ""

    def _say(self, value: Any) -> str:
        self._texts.append(text_of(value))
        return self._texts[-1]
