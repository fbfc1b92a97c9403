"""A model endpoint that does what a check needs: answers, calls tools well or badly, or refuses."""

import contextlib
import json
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

WISH = re.compile(r"\[kit:(answer|tool|bad-tool|no-tool|refuse):([0-9a-f]{8})\]")
UNKNOWN_TOOL = "conformance_no_such_tool"
REFUSAL = (
    "Traceback (most recent call last):\n"
    '  File "/opt/model/server.py", line 23, in complete\n'
    "ValueError: conformance-internal-detail"
)
"""What the endpoint says when it refuses; none of it may reach a conversation."""


class KitModel:
    """OpenAI-compatible chat completions. A task says in its instruction what the model shall do:
    ``[kit:answer:TOKEN]``, ``tool`` (a valid call of the first tool), ``bad-tool`` (an invalid one),
    ``no-tool`` (a tool that was not offered), ``refuse`` (HTTP 400).
    """

    def __init__(self) -> None:
        self.port = 0
        self.first_request = math.inf
        self._asked: dict[str, list[dict[str, Any]]] = {}

    @property
    def url(self) -> str:
        """The base URL for an OpenAI client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, token: str) -> list[dict[str, Any]]:
        """The requests of one task, in order."""
        return self._asked.get(token, [])

    @property
    def is_used(self) -> bool:
        """Whether any task was brought here."""
        return bool(self._asked)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve for the time of the block."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/{path:.*}", self._complete)
        app.router.add_get("/{path:.*}", self._list)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        self.first_request = min(self.first_request, time.monotonic())
        return web.json_response({"object": "list", "data": [{"id": "conformance", "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.first_request = min(self.first_request, time.monotonic())
        body = await request.json()
        wish, token = _wish(body)
        if token:
            self._asked.setdefault(token, []).append(body)
        if wish == "refuse":
            return web.json_response(
                {"error": {"message": REFUSAL, "type": "invalid_request_error"}}, status=400
            )
        message, reason = _message(wish, token, body)
        if body.get("stream"):
            return await _streamed(request, message, reason)
        return web.json_response(
            {
                "id": f"kit-{token}",
                "object": "chat.completion",
                "created": 0,
                "model": "conformance",
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }
        )


def answer_to(token: str) -> str:
    """What the model says at the end of the task with this token."""
    return f"The answer {token} is ready."


def valid_arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each required property of a JSON Schema, as plain as its type allows."""
    properties = schema.get("properties") or {}
    return {name: _plain(properties.get(name) or {}) for name in schema.get("required") or ()}


def _plain(schema: Mapping[str, Any]) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    match kind:
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return []
        case "object":
            return valid_arguments(schema)
        case _:
            return "conformance"


def _wish(body: Mapping[str, Any]) -> tuple[str, str]:
    """The last wish in the conversation: earlier steps of a chain may quote older ones."""
    found = WISH.findall(json.dumps(body.get("messages"), ensure_ascii=False))
    return found[-1] if found else ("answer", "")


def _message(wish: str, token: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    has_called = any(turn.get("role") == "tool" for turn in body.get("messages") or ())
    tools = [tool["function"] for tool in body.get("tools") or () if isinstance(tool.get("function"), dict)]
    call: tuple[str, dict[str, Any]] | None = None
    if wish == "no-tool" and not has_called:
        call = (UNKNOWN_TOOL, {"text": "x"})
    elif tools and not has_called and wish in ("tool", "bad-tool"):
        schema = tools[0].get("parameters") or {}
        arguments = valid_arguments(schema) if wish == "tool" else {"conformance": [None]}
        call = (str(tools[0].get("name")), arguments)
    if call is None:
        return {"role": "assistant", "content": answer_to(token)}, "stop"
    function = {"name": call[0], "arguments": json.dumps(call[1])}
    calls = [{"id": f"call_{token}", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"


async def _streamed(request: web.Request, message: dict[str, Any], reason: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    calls = [{"index": 0, **call} for call in message.get("tool_calls", ())]
    delta = {**message, **({"tool_calls": calls} if calls else {})}
    for choice in ({"delta": delta, "finish_reason": None}, {"delta": {}, "finish_reason": reason}):
        chunk = {"id": "kit", "object": "chat.completion.chunk", "created": 0, "model": "conformance"}
        line = json.dumps({**chunk, "choices": [{"index": 0, **choice}]})
        await response.write(f"data: {line}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response
