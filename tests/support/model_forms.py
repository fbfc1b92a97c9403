"""The same answers in the words of each provider, whole and streamed."""

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from agent2389.llm.anthropic import AnthropicDialect
from agent2389.llm.dialect import Dialect
from agent2389.llm.endpoint import EndpointModel
from agent2389.llm.google import GoogleDialect
from agent2389.llm.openai import OpenAIDialect
from tests.support.model_server import Answer, as_json

Call = tuple[str, str, dict[str, Any]]
"""Id, name, arguments."""


class Form(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def dialect(self) -> Callable[[], Dialect]: ...

    @property
    def reasons(self) -> dict[str, str]: ...

    def base_url(self, server: str) -> str: ...

    def whole(self, text: str, calls: Sequence[Call], reason: str) -> dict[str, Any]:
        """11 tokens read of which 4 cached, 3 written."""

    def events(self, texts: Sequence[str], calls: Sequence[Call], reason: str) -> list[Any]: ...

    def error(self, status: int, message: str, code: str = "") -> Any: ...

    def sent_tools(self, body: Any) -> list[str]: ...

    def sent_schema(self, body: Any) -> Any: ...


class OpenAIForm:
    name = "openai"
    dialect = OpenAIDialect
    reasons: ClassVar = {
        "stop": "stop",
        "calls": "tool_calls",
        "length": "length",
        "refused": "content_filter",
    }
    usage: ClassVar = {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
    }

    def base_url(self, server: str) -> str:
        return f"{server}/v1"

    def whole(self, text: str, calls: Sequence[Call] = (), reason: str = "stop") -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, n, a in calls
            ]
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "told-by-endpoint",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": self.usage,
        }

    def events(self, texts: Sequence[str], calls: Sequence[Call] = (), reason: str = "stop") -> list[Any]:
        def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}

        found = [event({"role": "assistant", "content": text}) for text in texts]
        for index, (call_id, name, arguments) in enumerate(calls):
            head = {"index": index, "id": call_id, "function": {"name": name, "arguments": ""}}
            found.append(event({"tool_calls": [head]}))
            written = json.dumps(arguments)
            for piece in (written[:3], written[3:]):
                found.append(event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        found.append(event({}, reason))
        found.append({"id": "x", "model": "m", "choices": [], "usage": self.usage})
        return [*found, "[DONE]"]

    def error(self, status: int, message: str, code: str = "") -> Any:
        return {"error": {"message": message, "type": "x", "code": code}}

    def sent_tools(self, body: Any) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools", ())]

    def sent_schema(self, body: Any) -> Any:
        return body.get("response_format", {}).get("json_schema", {}).get("schema")


class AnthropicForm:
    name = "anthropic"
    dialect = AnthropicDialect
    reasons: ClassVar = {
        "stop": "end_turn",
        "calls": "tool_use",
        "length": "max_tokens",
        "refused": "refusal",
    }
    usage: ClassVar = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 3}

    def base_url(self, server: str) -> str:
        return server

    def whole(self, text: str, calls: Sequence[Call] = (), reason: str = "end_turn") -> dict[str, Any]:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        blocks += [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in calls]
        return {
            "id": "x",
            "type": "message",
            "role": "assistant",
            "model": "told-by-endpoint",
            "content": blocks,
            "stop_reason": reason,
            "usage": self.usage,
        }

    def events(self, texts: Sequence[str], calls: Sequence[Call] = (), reason: str = "end_turn") -> list[Any]:
        start = {
            **self.whole("", (), reason),
            "stop_reason": None,
            "usage": {**self.usage, "output_tokens": 1},
        }
        found: list[Any] = [{"type": "message_start", "message": start}]
        found.append(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        )
        for text in texts:
            delta = {"type": "text_delta", "text": text}
            found.append({"type": "content_block_delta", "index": 0, "delta": delta})
        found.append({"type": "content_block_stop", "index": 0})
        for index, (call_id, name, arguments) in enumerate(calls, 1):
            block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            found.append({"type": "content_block_start", "index": index, "content_block": block})
            written = json.dumps(arguments)
            for piece in (written[:3], written[3:]):
                delta = {"type": "input_json_delta", "partial_json": piece}
                found.append({"type": "content_block_delta", "index": index, "delta": delta})
            found.append({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": reason}
        found.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}})
        return [*found, {"type": "message_stop"}]

    def error(self, status: int, message: str, code: str = "") -> Any:
        return {"type": "error", "error": {"type": code or "api_error", "message": message}}

    def sent_tools(self, body: Any) -> list[str]:
        return [tool["name"] for tool in body.get("tools", ())]

    def sent_schema(self, body: Any) -> Any:
        return body.get("output_config", {}).get("format", {}).get("schema")


class GoogleForm:
    name = "google"
    dialect = GoogleDialect
    reasons: ClassVar = {"stop": "STOP", "calls": "STOP", "length": "MAX_TOKENS", "refused": "SAFETY"}
    usage: ClassVar = {
        "promptTokenCount": 11,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 1,
        "cachedContentTokenCount": 4,
        "totalTokenCount": 14,
    }

    def base_url(self, server: str) -> str:
        return server

    def whole(self, text: str, calls: Sequence[Call] = (), reason: str = "STOP") -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"text": text}] if text else []
        parts += [{"functionCall": {"id": i, "name": n, "args": a}} for i, n, a in calls]
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
        return {"candidates": [candidate], "usageMetadata": self.usage, "modelVersion": "told-by-endpoint"}

    def events(self, texts: Sequence[str], calls: Sequence[Call] = (), reason: str = "STOP") -> list[Any]:
        found: list[dict[str, Any]] = []
        for text in texts:
            found.append({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]})
        return [*found, self.whole("", calls, reason)]

    def error(self, status: int, message: str, code: str = "") -> Any:
        return {"error": {"code": status, "message": message, "status": code or "INTERNAL"}}

    def sent_tools(self, body: Any) -> list[str]:
        return [
            declaration["name"]
            for tool in body.get("tools", ())
            for declaration in tool["functionDeclarations"]
        ]

    def sent_schema(self, body: Any) -> Any:
        return body.get("generationConfig", {}).get("responseJsonSchema")


FORMS: tuple[Form, ...] = (OpenAIForm(), AnthropicForm(), GoogleForm())


def whole(form: Form, text: str = "", calls: Sequence[Call] = (), kind: str = "", **more: Any) -> Answer:
    reason = form.reasons[kind or ("calls" if calls else "stop")]
    return as_json(form.whole(text, calls, reason), **more)


def streamed(
    form: Form, texts: Sequence[str], calls: Sequence[Call] = (), *, keep: int | None = None, **more: Any
) -> Answer:
    """All events, or the first ``keep`` and then a cut."""
    events = form.events(texts, calls, form.reasons["calls" if calls else "stop"])
    return Answer(body=sse(events[:keep]), content_type="text/event-stream", cut=keep is not None, **more)


def sse(events: Sequence[Any]) -> bytes:
    lines = []
    for event in events:
        if isinstance(event, dict) and "type" in event:
            lines.append(f"event: {event['type']}\n")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n")
    return "".join(lines).encode()


def model_for(
    form: Form, server: str, key: str | None = "sk-a-key-of-the-tests", **more: Any
) -> EndpointModel:
    return EndpointModel(form.dialect(), "a-model", api_key=key, base_url=form.base_url(server), **more)
