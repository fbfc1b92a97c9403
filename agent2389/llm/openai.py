"""OpenAI's wire format on the official SDK, for OpenAI and every compatible endpoint."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec

from agent2389.errors import MissingExtra, ModelFailed
from agent2389.llm.messages import (
    Chunk,
    Finished,
    Reply,
    Request,
    Role,
    TokenUsage,
    ToolCall,
    ToolSpec,
    Turn,
)
from agent2389.llm.pricing import Price, cost_usd

NO_KEY = "no-key"
"""What compatible endpoints without authentication get: the SDK insists on some key."""
_FINISHED = {
    "stop": Finished.STOP,
    "tool_calls": Finished.TOOL_CALLS,
    "length": Finished.LENGTH,
    "content_filter": Finished.REFUSED,
}
_FINAL_STATUS = frozenset({400, 401, 403, 404, 405, 413, 415, 422})


class OpenAIModel:
    """``llm.port.Model`` on chat completions. The SDK is imported at the first call."""

    provider = "openai"

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None,
        base_url: str | None = None,
        proxy: str | None = None,
        price: Price | None = None,
    ) -> None:
        self.name = model
        self._api_key = api_key or NO_KEY
        self._base_url = base_url
        self._proxy = proxy
        self._price = price
        self._client: Any = None

    async def answer(self, request: Request) -> Reply:
        """One complete answer; a structured one is repaired once when it is no JSON object."""
        reply = await self._complete(request)
        if request.schema is None or reply.structured is not None or reply.tool_calls:
            return reply
        repair = msgspec.structs.replace(
            request,
            turns=(
                *request.turns,
                Turn(role=Role.ASSISTANT, text=reply.text or "(nothing)"),
                Turn(role=Role.USER, text="Answer with one JSON object that fits the schema, nothing else."),
            ),
        )
        second = await self._complete(repair)
        return msgspec.structs.replace(second, usage=_sum(reply.usage, second.usage))

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The same answer in pieces; the last chunk carries the whole reply."""
        client = self._open()
        texts: list[str] = []
        calls: dict[int, dict[str, str]] = {}
        reason, usage, model = "", TokenUsage(), self.name
        try:
            async with asyncio.timeout(request.timeout):
                answer = await client.chat.completions.create(
                    **self._arguments(request), stream=True, stream_options={"include_usage": True}
                )
                async for event in answer:
                    model = event.model or model
                    usage = _usage(event.usage) if event.usage else usage
                    for choice in event.choices:
                        reason = choice.finish_reason or reason
                        _gather(calls, choice.delta.tool_calls or ())
                        if choice.delta.content:
                            texts.append(choice.delta.content)
                            yield Chunk(text=choice.delta.content)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises becomes our one error
            raise self._failure(error) from None
        if not reason:
            raise ModelFailed("the stream was cut before its end", retryable=True)
        found = tuple(
            ToolCall(call["id"], call["name"], call["arguments"]) for _, call in sorted(calls.items())
        )
        yield Chunk(reply=self._reply("".join(texts), found, reason, usage, model, request))

    async def verify(self) -> None:
        """GET models: any HTTP answer but 401 and 403 counts as reachable."""
        url = (self._base_url or "https://api.openai.com/v1").rstrip("/") + "/models"
        headers = {"Authorization": f"Bearer {self._api_key}"}
        try:
            async with httpx2.AsyncClient(proxy=self._proxy, timeout=5.0) as http:
                response = await http.get(url, headers=headers)
        except httpx2.HTTPError as error:
            raise ModelFailed(f"the model endpoint does not answer: {type(error).__name__}") from None
        if response.status_code in (401, 403):
            raise ModelFailed(
                f"the model endpoint refuses the key (HTTP {response.status_code})",
                retryable=False,
                hint="check the variable that llm.api_key_env names",
            )

    async def close(self) -> None:
        """Close the SDK's connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    # one call --------------------------------------------------------------------

    def _open(self) -> Any:
        if self._client is None:
            try:
                import openai  # noqa: PLC0415 - costs a second; only agents that use it pay
            except ModuleNotFoundError:
                raise MissingExtra("the provider openai", "llm") from None
            self._client = openai.AsyncOpenAI(
                api_key=self._api_key,
                base_url=self._base_url,
                max_retries=0,
                http_client=httpx2.AsyncClient(proxy=self._proxy, timeout=None) if self._proxy else None,
            )
        return self._client

    async def _complete(self, request: Request) -> Reply:
        client = self._open()
        try:
            async with asyncio.timeout(request.timeout):
                completion = await client.chat.completions.create(**self._arguments(request))
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises becomes our one error
            raise self._failure(error) from None
        if not getattr(completion, "choices", None):
            raise ModelFailed("the model endpoint answered without a choice", retryable=True)
        choice = completion.choices[0]
        calls = tuple(
            ToolCall(call.id, call.function.name, call.function.arguments or "{}")
            for call in choice.message.tool_calls or ()
            if getattr(call, "function", None) is not None
        )
        text = choice.message.content or getattr(choice.message, "refusal", None) or ""
        reason = choice.finish_reason or ""
        return self._reply(text, calls, reason, _usage(completion.usage), completion.model, request)

    def _arguments(self, request: Request) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self.name,
            "messages": [_message(turn) for turn in request.turns],
        }
        if request.tools:
            arguments["tools"] = [_tool(spec) for spec in request.tools]
        if request.schema is not None:
            arguments["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": request.schema.name,
                    "schema": request.schema.schema,
                    "strict": True,
                },
            }
        if request.temperature is not None:
            arguments["temperature"] = request.temperature
        if request.max_tokens is not None:
            arguments["max_tokens"] = request.max_tokens
        return arguments

    def _reply(
        self,
        text: str,
        calls: tuple[ToolCall, ...],
        reason: str,
        usage: TokenUsage,
        model: str | None,
        request: Request,
    ) -> Reply:
        return Reply(
            text=text,
            tool_calls=calls,
            structured=parsed(text) if request.schema is not None else None,
            usage=usage,
            cost_usd=cost_usd(self.name, self.provider, usage, self._price),
            finished=_FINISHED.get(reason, Finished.OTHER),
            raw_reason=reason,
            model=model or self.name,
        )

    def _failure(self, error: Exception) -> ModelFailed:
        import openai  # noqa: PLC0415 - already imported by the call that failed

        match error:
            case ModelFailed():
                return error
            case TimeoutError() | openai.APITimeoutError():
                return ModelFailed("the model did not answer in time", retryable=True)
            case openai.APIStatusError():
                status = error.status_code
                return ModelFailed(
                    f"the model endpoint answered HTTP {status}",
                    retryable=status not in _FINAL_STATUS,
                    retry_after=retry_after(error.response.headers.get("retry-after")),
                )
            case openai.APIConnectionError() | httpx2.HTTPError():
                return ModelFailed("the model endpoint does not answer", retryable=True)
            case _:
                return ModelFailed(f"the model endpoint's answer is unusable ({type(error).__name__})")


def parsed(text: str) -> dict[str, Any] | None:
    """The JSON object in a reply: the whole text, or the object between its first and last brace."""
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header; dates are ignored."""
    try:
        return max(float(header), 0.0) if header else None
    except ValueError:
        return None


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


def _usage(usage: Any) -> TokenUsage:
    if usage is None:
        return TokenUsage()
    details = getattr(usage, "prompt_tokens_details", None)
    return TokenUsage(
        usage.prompt_tokens or 0,
        usage.completion_tokens or 0,
        (getattr(details, "cached_tokens", None) or 0) if details else 0,
    )


def _sum(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    return TokenUsage(one.input + other.input, one.output + other.output, one.cached + other.cached)


def _gather(calls: dict[int, dict[str, str]], deltas: Any) -> None:
    for delta in deltas:
        call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
        call["id"] = delta.id or call["id"]
        if delta.function is not None:
            call["name"] += delta.function.name or ""
            call["arguments"] += delta.function.arguments or ""
