"""A gatekeeper on a free port of this machine that answers what it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web


class Gatekeepers:
    """Its address, and the documents it was asked with."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Any] = []
        self.paths: list[str] = []


@contextlib.asynccontextmanager
async def gatekeeper(
    *answers: tuple[int, str], hold: asyncio.Event | None = None
) -> AsyncIterator[Gatekeepers]:
    """Answers in turn, the last one again and again; with ``hold`` only once that is set."""
    service = Gatekeepers()

    async def decide(request: web.Request) -> web.Response:
        service.asked.append(await request.json())
        service.paths.append(request.path)
        if hold is not None:
            await hold.wait()
        status, text = answers[min(len(service.asked), len(answers)) - 1]
        headers = {"Location": "http://127.0.0.1:1/"} if 300 <= status < 400 else None
        return web.Response(status=status, text=text, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_post("/{path:.*}", decide)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    service.url = f"http://{host}:{port}"
    try:
        yield service
    finally:
        await runner.cleanup()
