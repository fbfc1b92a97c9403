"""A local endpoint that answers what a test tells it, and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer. ``cut`` breaks the connection after the body, ``wait`` is seconds before it."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    wait: float = 0.0
    cut: bool = False


class Asked(msgspec.Struct, frozen=True):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


def as_json(value: Any, **more: Any) -> Answer:
    return Answer(body=json.dumps(value).encode(), **more)


class ModelServer:
    """Answers in the order given; the last answer is repeated."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.models = Answer()
        self._answers: list[Answer | Callable[[Asked], Answer]] = [Answer(status=500)]
        self.url = ""

    def will(self, *answers: Answer | Callable[[Asked], Answer]) -> None:
        self._answers = list(answers)
        self.asked.clear()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.path, dict(request.headers), json.loads(await request.read()))
        self.asked.append(asked)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return await self._send(request, answer(asked) if callable(answer) else answer)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(Asked(request.path, dict(request.headers), None))
        return await self._send(request, self.models)

    async def _send(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        await asyncio.sleep(answer.wait)
        headers = {"Content-Type": answer.content_type, **answer.headers}
        response = web.StreamResponse(status=answer.status, headers=headers)
        if not answer.cut:
            response.content_length = len(answer.body)
        await response.prepare(request)
        try:
            await response.write(answer.body)
            if answer.cut and request.transport is not None:
                request.transport.close()
                return response
            await response.write_eof()
        except ConnectionError:
            pass  # the caller went away first, which some tests are about
        return response


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/{path:.*}", server._post)
    app.router.add_get("/{path:.*}", server._get)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
