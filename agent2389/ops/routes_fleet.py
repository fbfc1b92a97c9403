"""The fleet over HTTP: agents, pools, and the register/heartbeat form of older agents."""

import time
from typing import Any

from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.insight.bodies import body_bytes
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.ops.routes_jobs import answer
from agent2389.wire.limits import read_json
from agent2389.wire.names import is_identifier
from agent2389.wire.receipts import Code

TTL_SECONDS = 30.0
MAX_SERVICES = 10_000
SERVICES: web.AppKey[dict[str, dict[str, Any]]] = web.AppKey("services", dict)


def add(app: web.Application) -> None:
    """Add the routes."""
    app[SERVICES] = {}
    app.router.add_get("/api/v1/agents", agents)
    app.router.add_get("/api/v1/pools", pools)
    app.router.add_get("/api/agent-services", services)
    app.router.add_post("/api/agent-services/register", register)
    app.router.add_post("/api/agent-services/heartbeat", heartbeat)


async def agents(request: web.Request) -> web.Response:
    """Incarnations seen within the last day."""
    rows = await request.app[DEPENDENCIES].ledger.agents()
    return answer({"data": [row for row in rows if row.role == "agent"], "next_cursor": None})


async def pools(request: web.Request) -> web.Response:
    """Work and workers by capability."""
    rows = await request.app[DEPENDENCIES].ledger.pools()
    return answer({"data": [row for row in rows if "." not in row.pool], "next_cursor": None})


async def services(request: web.Request) -> web.Response:
    """Agents of the ledger, and services that registered over HTTP within 30 s."""
    known = [
        {"id": row.agent_id, "status": row.state, "incarnation": row.incarnation, "source": "ledger"}
        for row in await request.app[DEPENDENCIES].ledger.agents()
        if row.role == "agent"
    ]
    alive = [
        {key: value for key, value in entry.items() if key != "seen"}
        for entry in request.app[SERVICES].values()
        if time.monotonic() - entry["seen"] < TTL_SECONDS
    ]
    return answer({"services": known + alive})


async def register(request: web.Request) -> web.Response:
    """Enter an HTTP service (id, serviceUrl, metadata)."""
    document = await _document(request)
    entries = request.app[SERVICES]
    if len(entries) >= MAX_SERVICES and document["id"] not in entries:
        raise InputRefused(Code.QUOTA, "too many services are registered")
    entries[document["id"]] = {
        "id": document["id"],
        "serviceUrl": document.get("serviceUrl"),
        "metadata": document.get("metadata"),
        "status": "running",
        "source": "http",
        "seen": time.monotonic(),
    }
    return answer({"registered": document["id"]}, status=201)


async def heartbeat(request: web.Request) -> web.Response:
    """Keep an entry alive; 404 asks the service to register again."""
    document = await _document(request)
    entry = request.app[SERVICES].get(document["id"])
    if entry is None:
        raise web.HTTPNotFound(reason="Register first")
    entry["seen"] = time.monotonic()
    entry["status"] = str(document.get("status", "running"))[:32]
    return answer({"ok": True})


async def _document(request: web.Request) -> dict[str, Any]:
    document = read_json(await body_bytes(request))
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise InputRefused(Code.INVALID, "send a JSON object with an id")
    if not is_identifier(document["id"]):
        raise InputRefused(Code.INVALID, "id must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    return document
