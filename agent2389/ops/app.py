"""The ops service's HTTP application."""

import asyncio
from typing import Any

from aiohttp import web

from agent2389 import __version__
from agent2389.errors import Unreachable
from agent2389.insight import fleet
from agent2389.insight.health import Health
from agent2389.insight.probes import Extra, add_probes
from agent2389.insight.problems import Handler, problems
from agent2389.ops import routes_blobs, routes_fleet, routes_jobs, routes_people, routes_router, routes_work
from agent2389.ops.access import bearer
from agent2389.ops.dependencies import DEPENDENCIES, Dependencies
from agent2389.ops.openapi import add_documentation

MAX_BLOB_BYTES = 32 * 1024 * 1024
FLEET_SECONDS = 1.0
"""With the two seconds of a check, what a probe waits for a database that is silent."""


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
    app = web.Application(middlewares=[problems(), count, guard], client_max_size=MAX_BLOB_BYTES + 1024)
    app[DEPENDENCIES] = dependencies

    async def summary() -> dict[str, Any]:
        found = await fleet.summary(dependencies.ledger)
        return {"fleet": found, "degraded": bool(found["pools_without_agents"])}

    async def measure() -> dict[str, Any]:
        await fleet.measure(dependencies.ledger, metrics)
        return {}

    health = dependencies.health
    add_probes(app, health, metrics, extra=_in_time(health, summary), refresh=_in_time(health, measure))
    app.router.add_get("/info", _info)
    routes_jobs.add(app)
    routes_blobs.add(app)
    routes_fleet.add(app)
    routes_people.add(app)
    routes_router.add(app)
    routes_work.add(app)
    add_documentation(app)
    return app


def _in_time(health: Health, ask: Extra) -> Extra:
    """What ``ask`` finds in the ledger, or nothing: a probe answers in time whatever the database does."""

    async def asked() -> dict[str, Any]:
        ok, _ = await health.ready()
        if not ok:
            return {}
        try:
            async with asyncio.timeout(FLEET_SECONDS):
                return await ask()
        except (TimeoutError, Unreachable):
            # The checks may be remembered from before the database fell silent.
            health.forget()
            return {}

    return asked


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
