"""A web server on loopback with pages that are slow, endless, packed too well or lead elsewhere."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

PAGE = """<!doctype html><html><head><title>A &amp; B</title><style>p{}</style><script>evil()</script></head>
<body><h1>Head</h1><p>One <b>two</b></p><ul><li>x</li><li>y</li></ul>
<a href="https://example.com/next">next</a><noscript>hidden</noscript></body></html>"""


class WebServer:
    """What was asked, and the address to ask at."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.unfinished = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        handler = getattr(self, "on_" + request.path.strip("/").replace("/", "_"), None)
        return web.Response(status=404, text="no such page") if handler is None else await handler(request)

    async def on_page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def on_latin(self, request: web.Request) -> web.Response:
        return web.Response(
            body="Größe".encode("latin-1"), headers={"content-type": "text/plain; charset=latin-1"}
        )

    async def on_odd_charset(self, request: web.Request) -> web.Response:
        return web.Response(body=b"plain", headers={"content-type": "text/plain; charset=zip"})

    async def on_long(self, request: web.Request) -> web.Response:
        return web.Response(text="0123456789" * 5000)

    async def on_binary(self, request: web.Request) -> web.Response:
        return web.Response(body=b"\x89PNG\x00", content_type="image/png")

    async def on_untyped(self, request: web.Request) -> web.Response:
        response = web.Response(body=b"\x00\x01")
        response.headers["content-type"] = ""
        return response

    async def on_moved(self, request: web.Request) -> web.Response:
        return web.Response(
            status=int(request.query.get("status", "302")), headers={"location": request.query["to"]}
        )

    async def on_loop(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/loop"})

    async def on_packed(self, request: web.Request) -> web.Response:
        return web.Response(
            body=gzip.compress(b"packed text"),
            headers={"content-encoding": "gzip", "content-type": "text/plain"},
        )

    async def on_deflated(self, request: web.Request) -> web.Response:
        return web.Response(
            body=zlib.compress(b"deflated text"),
            headers={"content-encoding": "deflate", "content-type": "text/plain"},
        )

    async def on_raw_deflated(self, request: web.Request) -> web.Response:
        packer = zlib.compressobj(wbits=-15)
        body = packer.compress(b"raw deflated text") + packer.flush()
        return web.Response(body=body, headers={"content-encoding": "deflate", "content-type": "text/plain"})

    async def on_bomb(self, request: web.Request) -> web.Response:
        packer = zlib.compressobj(9, wbits=31)
        body = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(300)) + packer.flush()
        return web.Response(body=body, headers={"content-encoding": "gzip", "content-type": "text/plain"})

    async def on_brotli(self, request: web.Request) -> web.Response:
        return web.Response(
            body=b"\x0b\x02\x80x\x03", headers={"content-encoding": "br", "content-type": "text/plain"}
        )

    async def on_broken_gzip(self, request: web.Request) -> web.Response:
        return web.Response(
            body=b"\x1f\x8b\x08garbage", headers={"content-encoding": "gzip", "content-type": "text/plain"}
        )

    async def on_endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/plain"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"again " * 10_000)
        finally:
            self.unfinished.set()

    async def on_slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/plain"})
        await response.prepare(request)
        await response.write(b"beginning")
        await asyncio.Event().wait()
        return response

    async def on_never(self, request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async def on_echo(self, request: web.Request) -> web.Response:
        """Sends everything back, credentials too."""
        document = {
            "method": request.method,
            "headers": dict(request.headers),
            "body": self.bodies[-1].decode("utf-8", "replace"),
        }
        return web.json_response(
            document,
            status=int(request.query.get("status", "200")),
            headers={"etag": request.headers.get("authorization", "none")},
        )

    async def on_wait(self, request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"retry-after": "7"}, text="later")

    async def on_search(self, request: web.Request) -> web.Response:
        asked = json.loads(self.bodies[-1])
        word = str(asked.get("q", asked.get("query")))
        if word.startswith("status "):
            return web.Response(status=int(word.split()[1]), headers={"retry-after": "9"})
        if word == "broken":
            return web.Response(text="{]")
        if word == "list":
            return web.json_response([1])
        if word == "strange":
            return web.json_response({"organic": [5, {"title": 5}], "results": "x"})
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "")
        hit = {
            "title": f"About {word}",
            "link": "https://example.com/1",
            "url": "https://example.com/1",
            "snippet": f"seen with {key}",
            "content": f"seen with {key}",
        }
        return web.json_response(
            {"organic": [hit] * 9, "results": [hit] * 9, "answerBox": {"title": "Box", "answer": "42"}}
        )


@asynccontextmanager
async def web_server() -> AsyncIterator[WebServer]:
    """A started server; handlers still at work are dropped at the end."""
    server = WebServer()
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
