"""Google's Gemini API on the official SDK."""

import base64
import binascii
import re
import warnings
from collections.abc import AsyncGenerator
from typing import Any

import httpx2

from agent2389.errors import MissingExtra, ModelFailed
from agent2389.llm.failures import failure_of_status
from agent2389.llm.messages import Finished, Request, Role, TokenUsage, ToolCall, ToolSpec, Turn
from agent2389.llm.profile import wants_signatures
from agent2389.llm.replies import (
    MOST_CALLS,
    Raw,
    arguments_object,
    count,
    items,
    label,
    peek,
    text_of,
    tool_call,
    unusable,
)
from agent2389.llm.structured import Asked

API_VERSION = "v1beta"
"""Schemas as JSON Schema and function call ids are part of this version."""
NOT_SIGNED = "skip_thought_signature_validator"
"""Google's own word for calls that another model made: goes over the wire as it is, not in base64."""
_FINISHED = {
    "STOP": Finished.STOP,
    "FUNCTION_CALL": Finished.TOOL_CALLS,
    "MAX_TOKENS": Finished.LENGTH,
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"),
        Finished.REFUSED,
    ),
}
_NONSENSE = frozenset({"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL"})


class GoogleDialect:
    """``generateContent``. Calls without ids get ours; signatures of thoughts travel with their calls."""

    provider = "google"
    address = "https://generativelanguage.googleapis.com"

    def client(self, api_key: str, base_url: str, http: httpx2.AsyncClient) -> Any:
        """As ``Dialect.client``."""
        try:
            from google import genai  # noqa: PLC0415 - costs seconds; only agents that use it pay
            from google.genai import types  # noqa: PLC0415
        except ImportError:
            raise MissingExtra("the provider google", "llm") from None
        # The SDK warns of every word of the API that it does not know yet; we read them as text.
        warnings.filterwarnings("ignore", message=r".* is not a valid ", category=UserWarning)
        return genai.Client(
            api_key=api_key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=_root(base_url),
                api_version=API_VERSION,
                # Without a client of ours the SDK would take aiohttp, with other limits and errors.
                httpx_async_client=http,
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    async def complete(self, client: Any, model: str, asked: Asked) -> Raw:
        """As ``Dialect.complete``."""
        gathered = _Gathered()
        gathered.add(await client.aio.models.generate_content(**_arguments(model, asked)))
        if not gathered.answered:
            raise unusable("it holds no candidate")
        return gathered.raw()

    async def stream(self, client: Any, model: str, asked: Asked) -> AsyncGenerator[str | Raw]:
        """As ``Dialect.stream``."""
        gathered = _Gathered()
        async for chunk in await client.aio.models.generate_content_stream(**_arguments(model, asked)):
            yield gathered.add(chunk)
        if gathered.reason:
            yield gathered.raw()

    def failure(self, error: Exception) -> ModelFailed | None:
        """As ``Dialect.failure``."""
        from google.genai import errors  # noqa: PLC0415 - already imported by the call that failed

        if isinstance(error, errors.APIError):
            status, response = getattr(error, "code", None), getattr(error, "response", None)
            code = status if isinstance(status, int) else 500
            return failure_of_status(code, getattr(response, "headers", None), error.details)
        return None

    def probe(self, api_key: str, base_url: str) -> tuple[str, dict[str, str]]:
        """As ``Dialect.probe``."""
        return f"{_root(base_url)}/{API_VERSION}/models", {"x-goog-api-key": api_key}


def _root(base_url: str) -> str:
    """People write the address with and without the version; the SDK adds it."""
    return re.sub(r"/v1(?:beta)?$", "", base_url.rstrip("/"))


def _arguments(model: str, asked: Asked) -> dict[str, Any]:
    """The conversation goes through the SDK's types, because signatures are bytes there. The rest goes as the
    API spells it: converting eight tools cost the SDK more than the rest of a call, and a schema that
    it knows of makes it parse the answer, too, and break on what only needs a repair.
    """
    body = _settings(asked)
    return {
        "model": model,
        "contents": _contents(asked.request.turns, signed=wants_signatures(model)),
        "config": {
            "automatic_function_calling": {"disable": True},
            "http_options": {"extra_body": body} if body else None,
        },
    }


def _settings(asked: Asked) -> dict[str, Any]:
    request = asked.request
    system = "\n\n".join(turn.text for turn in request.turns if turn.role is Role.SYSTEM)
    body: dict[str, Any] = {}
    if system:
        body["systemInstruction"] = {"role": "user", "parts": [{"text": system}]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(spec) for spec in request.tools]}]
    if asked.forced is not None:
        forced = {"mode": "ANY", "allowedFunctionNames": [asked.forced]}
        body["toolConfig"] = {"functionCallingConfig": forced}
    if generation := _generation(request):
        body["generationConfig"] = generation
    return body


def _generation(request: Request) -> dict[str, Any]:
    generation: dict[str, Any] = {}
    if request.schema is not None:
        generation["responseMimeType"] = "application/json"
        generation["responseJsonSchema"] = request.schema.schema
    if request.temperature is not None:
        generation["temperature"] = request.temperature
    if request.max_tokens is not None:
        generation["maxOutputTokens"] = request.max_tokens
    return generation


def _tool(spec: ToolSpec) -> dict[str, Any]:
    return {"name": spec.name, "description": spec.description, "parametersJsonSchema": spec.parameters}


def _contents(turns: tuple[Turn, ...], *, signed: bool) -> list[Any]:
    """User and model in turn; all results of one model turn stand in one user content."""
    from google.genai import types  # noqa: PLC0415 - the client was made before

    names = {call.id: call.name for turn in turns for call in turn.tool_calls}
    contents: list[tuple[str, list[Any]]] = []
    for turn in turns:
        if turn.role is Role.SYSTEM:
            continue
        role = "model" if turn.role is Role.ASSISTANT else "user"
        parts = _parts(types, turn, names, signed=signed)
        if contents and contents[-1][0] == role:
            contents[-1][1].extend(parts)
        elif parts:
            contents.append((role, parts))
    return [types.Content(role=role, parts=parts) for role, parts in contents]


def _parts(types: Any, turn: Turn, names: dict[str, str], *, signed: bool) -> list[Any]:
    if turn.role is Role.TOOL:
        call_id = turn.tool_call_id or ""
        response = {"id": call_id, "name": names.get(call_id, "unknown"), "response": {"result": turn.text}}
        return [types.Part(function_response=response)]
    parts = [types.Part(text=turn.text)] if turn.text else []
    unsigned = signed and not any(call.signature for call in turn.tool_calls)
    for number, call in enumerate(turn.tool_calls):
        function = {"id": call.id, "name": call.name, "args": arguments_object(call.arguments)}
        part = types.Part(function_call=function, thought_signature=_signature(call.signature))
        if unsigned and number == 0:
            part.thought_signature = NOT_SIGNED
        parts.append(part)
    return parts


def _signature(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) or None
    except binascii.Error:
        return None


class _Gathered:
    """An answer out of its chunks; a whole answer is one chunk."""

    def __init__(self) -> None:
        self.answered = False
        self.reason = ""
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._usage: TokenUsage | None = None
        self._model = ""

    def add(self, chunk: Any) -> str:
        """Take one chunk in. Returns the text it brings."""
        self._model = label(peek(chunk, "model_version")) or self._model
        self._usage = _usage(peek(chunk, "usage_metadata")) or self._usage
        blocked = peek(peek(chunk, "prompt_feedback"), "block_reason")
        if blocked is not None:
            self.answered, self.reason = True, "SAFETY"
        text = ""
        for candidate in [*items(peek(chunk, "candidates"))][:1]:
            reason, content = peek(candidate, "finish_reason"), peek(candidate, "content")
            # The SDK makes empty candidates of anything that can be walked through, even of a text.
            self.answered = self.answered or reason is not None or content is not None
            self.reason = label(peek(reason, "value") or reason) or self.reason
            for part in items(peek(content, "parts")):
                text += self._part(part)
        if self.reason in _NONSENSE:
            raise unusable(f"it says {self.reason}")
        self._texts.append(text)
        return text

    def raw(self) -> Raw:
        return Raw(
            text="".join(self._texts),
            calls=tuple(self._calls),
            finished=_FINISHED.get(self.reason, Finished.OTHER),
            raw_reason=self.reason,
            usage=self._usage,
            model=self._model,
        )

    def _part(self, part: Any) -> str:
        function = peek(part, "function_call")
        if function is not None and len(self._calls) < MOST_CALLS:
            signature = peek(part, "thought_signature")
            signed = base64.b64encode(signature).decode() if isinstance(signature, bytes) else ""
            self._calls.append(
                tool_call(peek(function, "id"), peek(function, "name"), peek(function, "args"), signed)
            )
        return "" if peek(part, "thought") else text_of(peek(part, "text"))


def _usage(usage: Any) -> TokenUsage | None:
    """Thoughts are paid as output; tokens of tool results are part of the prompt already."""
    if usage is None or peek(usage, "prompt_token_count") is None:
        return None
    read = count(peek(usage, "prompt_token_count"))
    output = count(peek(usage, "candidates_token_count")) + count(peek(usage, "thoughts_token_count"))
    return TokenUsage(read, output, min(count(peek(usage, "cached_content_token_count")), read))
