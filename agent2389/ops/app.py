"""The ops service's HTTP application."""

from typing import Any

from aiohttp import web

from agent2389 import __version__
from agent2389.insight import fleet
from agent2389.insight.probes import add_probes
from agent2389.ops import routes_blobs, routes_fleet, routes_jobs, routes_people, routes_router, routes_work
from agent2389.ops.access import bearer
from agent2389.ops.dependencies import DEPENDENCIES, Dependencies
from agent2389.ops.openapi import add_documentation
from agent2389.ops.problems import Handler, problems

MAX_BLOB_BYTES = 32 * 1024 * 1024


def build_app(dependencies: Dependencies) -> web.Application:
    """The whole application; the caller runs it."""
    metrics = dependencies.metrics

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "unknown"
        with metrics.http_seconds.labels(route).time():
            response = await handler(request)
        metrics.http_requests.labels(request.method, route, f"{response.status // 100}xx").inc()
        return response

    guard: Any = bearer(dependencies.token, dependencies.manager_token, required=dependencies.token_required)
    app = web.Application(middlewares=[problems, count, guard], client_max_size=MAX_BLOB_BYTES + 1024)
    app[DEPENDENCIES] = dependencies

    async def extra() -> dict[str, Any]:
        summary = await fleet.summary(dependencies.ledger)
        return {"fleet": summary, "degraded": bool(summary["pools_without_agents"])}

    async def safe_extra() -> dict[str, Any]:
        ok, _ = await dependencies.health.ready()
        return await extra() if ok else {}

    async def refresh() -> dict[str, Any]:
        ok, _ = await dependencies.health.ready()
        if ok:
            await fleet.measure(dependencies.ledger, metrics)
        return {}

    add_probes(app, dependencies.health, metrics, extra=safe_extra, refresh=refresh)
    app.router.add_get("/info", _info)
    routes_jobs.add(app)
    routes_blobs.add(app)
    routes_fleet.add(app)
    routes_people.add(app)
    routes_router.add(app)
    routes_work.add(app)
    add_documentation(app)
    return app


async def _info(request: web.Request) -> web.Response:
    ledger = request.app[DEPENDENCIES].ledger
    return web.json_response(
        {
            "name": "agent2389",
            "role": "ops",
            "version": __version__,
            "tenant": ledger.tenant,
            "mesh_id": await ledger.mesh_id(),
        }
    )
