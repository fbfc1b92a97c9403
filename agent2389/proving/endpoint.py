"""A model endpoint that is slow, throttles, fails, keeps silent and breaks off; else it plays its part."""

import asyncio
import contextlib
import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from aiohttp import web

from agent2389.llm.messages import Reply, Request, Role, ToolCall, Turn
from agent2389.llm.rehearsal import RehearsalModel

SHARE_FAILING = 0.3
FATES = ("throttled", "failed", "silent", "cut")
SILENCE_SECONDS = 5.0
MODEL = "rehearsal-over-http"
INPUT_USD, OUTPUT_USD = 1.0, 4.0
"""For a million tokens."""


class EndpointFigures(msgspec.Struct, frozen=True):
    """What an endpoint saw: calls in all, by fate, and how often the same question came at most.

    ``billed_usd`` is the price of the answers that were sent whole.
    """

    calls: int
    fates: dict[str, int]
    most_of_one_question: int
    billed_usd: float


class BadEndpoint:
    """Chat completions in OpenAI's form, streamed, on loopback. Chance comes from ``chance`` alone."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._model = RehearsalModel()
        self._runner: web.AppRunner | None = None
        self._fates: Counter[str] = Counter()
        self._questions: Counter[str] = Counter()
        self._billed = 0.0
        self.pause = 0.0
        """Seconds between the first sign of life and the answer."""
        self.url = ""

    async def start(self, port: int) -> None:
        """Listen on ``port`` of loopback."""
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}/v1"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def figures(self) -> EndpointFigures:
        """What happened until now."""
        most = max(self._questions.values(), default=0)
        fates = dict(sorted(self._fates.items()))
        return EndpointFigures(self._fates.total(), fates, most, round(self._billed, 6))

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._questions[hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()] += 1
        fate = self._chance.choice(FATES) if self._chance.random() < SHARE_FAILING else "answered"
        self._fates[fate] += 1
        match fate:
            case "throttled":
                return web.json_response(
                    {"error": {"message": "too many requests"}}, status=429, headers={"Retry-After": "1"}
                )
            case "failed":
                return web.json_response({"error": {"message": "a bad moment"}}, status=500)
            case "silent":
                await asyncio.sleep(SILENCE_SECONDS)
                return web.json_response({"error": {"message": "too late"}}, status=503)
        reply = await self._model.answer(Request(turns=tuple(map(_turn, body["messages"]))))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the caller may be killed meanwhile
            async for event in self._events(reply, is_cut=fate == "cut"):
                await response.write(f"data: {event}\n\n".encode())
            if fate == "cut" and request.transport is not None:
                request.transport.close()
                return response
            await response.write_eof()
            self._billed += (reply.usage.input * INPUT_USD + reply.usage.output * OUTPUT_USD) / 1e6
        return response

    async def _events(self, reply: Reply, *, is_cut: bool) -> AsyncIterator[str]:
        yield _event(delta={"role": "assistant", "content": ""})
        await asyncio.sleep(self.pause)
        for delta in _deltas(reply):
            yield _event(delta=delta)
            if is_cut:
                return
        yield _event(delta={}, finish=reply.finished.value)
        usage = {"prompt_tokens": reply.usage.input, "completion_tokens": reply.usage.output}
        yield json.dumps({"model": MODEL, "choices": [], "usage": usage})
        yield "[DONE]"


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    """The answer in pieces: the text by halves, then call by call."""
    half = len(reply.text) // 2
    for piece in filter(None, (reply.text[:half], reply.text[half:])):
        yield {"content": piece}
    for index, call in enumerate(reply.tool_calls):
        function = {"name": call.name, "arguments": call.arguments}
        yield {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]}


def _event(delta: dict[str, Any], finish: str | None = None) -> str:
    return json.dumps({"model": MODEL, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _turn(message: dict[str, Any]) -> Turn:
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    )
    return Turn(
        role=Role(message["role"]),
        text=message.get("content") or "",
        tool_calls=calls,
        tool_call_id=message.get("tool_call_id"),
    )
