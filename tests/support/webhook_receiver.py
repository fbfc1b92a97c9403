"""A receiver of notifications on loopback, that answers as it is told and can be restarted."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes or so.").decode()


class Received:
    """One request as it came."""

    def __init__(self, headers: dict[str, str], body: bytes) -> None:
        self.headers = headers
        self.body = body

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


class WebhookReceiver:
    """Keeps what it is sent. ``answer`` makes the response to a request, 204 by default."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.elsewhere: list[str] = []
        self.answer: Callable[[Received], web.StreamResponse] = lambda _: web.Response(status=204)
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        """Listen, at the port of the time before if there was one."""
        app = web.Application()
        app.router.add_post("/hook", self._on_hook)
        app.router.add_route("*", "/{path:.*}", self._on_other)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _on_hook(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            {key.lower(): value for key, value in request.headers.items()}, await request.read()
        )
        self.requests.append(received)
        return self.answer(received)

    async def _on_other(self, request: web.Request) -> web.Response:
        self.elsewhere.append(request.path)
        return web.Response(status=204)


def is_signed(received: Received, secret: str = SECRET) -> bool:
    """The check as a receiver writes it, from the specification and nothing of ours."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{received.id}.{received.headers['webhook-timestamp']}.{received.body.decode()}"
    right = base64.b64encode(hmac.new(key, content.encode(), hashlib.sha256).digest()).decode()
    return f"v1,{right}" in received.headers["webhook-signature"].split()
