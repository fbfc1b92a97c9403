"""The probe endpoints every process serves without a token."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from agent2389.insight.health import Health
from agent2389.telemetry.metrics import Metrics

PROBES = ("/live", "/livez", "/ready", "/readyz", "/health", "/healthz", "/startup", "/metrics")

Extra = Callable[[], Awaitable[dict[str, Any]]]


async def _nothing() -> dict[str, Any]:
    return {}


def add_probes(
    app: web.Application,
    health: Health,
    metrics: Metrics,
    *,
    extra: Extra = _nothing,
    refresh: Extra = _nothing,
) -> None:
    """Serve the probes on ``app``. ``extra`` adds to /health, ``refresh`` runs before /metrics."""

    async def live(request: web.Request) -> web.Response:
        if "verbose" in request.query:
            return web.Response(text="[+]event loop ok\nlivez check passed\n")
        return web.json_response({"alive": True, "timestamp": int(time.time())})

    async def ready(request: web.Request) -> web.Response:
        ok, reasons = await health.ready()
        status = 200 if ok else 503
        if "verbose" in request.query:
            return web.Response(text=await _verbose(health, ok=ok, name="readyz"), status=status)
        body: dict[str, Any] = {"ready": ok, "timestamp": int(time.time()), "reasons": reasons}
        return web.json_response(body, status=status)

    async def report(request: web.Request) -> web.Response:
        # First, for what it finds out may change the verdict.
        more = {} if "verbose" in request.query else await extra()
        ok, body = await health.report()
        if "verbose" in request.query:
            text = await _verbose(health, ok=ok, name="healthz")
            return web.Response(text=text, status=200 if ok else 503)
        if more.pop("degraded", False) and body["status"] == "healthy":
            body["status"] = "degraded"
        return web.json_response({**body, **more}, status=200 if ok else 503)

    async def startup(_: web.Request) -> web.Response:
        return web.json_response({"started": health.started_up}, status=200 if health.started_up else 503)

    async def exposition(_: web.Request) -> web.Response:
        await refresh()
        return web.Response(
            body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    for paths, handler in (
        (("/live", "/livez"), live),
        (("/ready", "/readyz"), ready),
        (("/health", "/healthz"), report),
        (("/startup",), startup),
        (("/metrics",), exposition),
    ):
        for path in paths:
            app.router.add_get(path, handler)


async def _verbose(health: Health, *, ok: bool, name: str) -> str:
    marks = {"healthy": "+", "degraded": "~", "unhealthy": "-"}
    checks = await health.checks()
    lines = [
        f"[{marks[check.status]}]{title} {'ok' if check.status == 'healthy' else check.message}"
        for title, check in checks.items()
    ]
    return "\n".join([*lines, f"{name} check {'passed' if ok else 'failed'}"]) + "\n"
