"""An agent's own small HTTP face: what it is, how it stands, its logs, its lifecycle."""

import os
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from agent2389 import __version__
from agent2389.agent.worker import Worker
from agent2389.config.model import AgentConfiguration
from agent2389.errors import Agent2389Error, Conflict, InputRefused
from agent2389.insight.bodies import body_bytes
from agent2389.insight.commands import OF_THE_AGENT
from agent2389.insight.probes import PROBES
from agent2389.insight.problems import Handler, problems, status_of
from agent2389.insight.tokens import bearer_of, is_token, unauthorized
from agent2389.ledger.states import AgentState
from agent2389.telemetry.logs import recent_lines
from agent2389.wire.limits import read_json
from agent2389.wire.receipts import Code

MAX_LOG_LINES = 1000

Execute = Callable[[dict[str, Any]], Awaitable[bytes | None]]
"""Submits a job to this agent and waits; ``None`` when it took too long."""

Keep = Callable[[str], Awaitable[None]]
"""Writes a pause or resume of this agent id into the ledger: every beat makes a process follow that."""

_ANSWERING = frozenset({AgentState.RUNNING, AgentState.PAUSED})
"""States in which a pause or a resume means something."""


class AgentFace(msgspec.Struct, frozen=True):
    """What the routes need. ``worker`` is ``None`` until the process has started up."""

    configuration: AgentConfiguration
    incarnation: str
    worker: Callable[[], Worker | None]
    execute: Execute
    keep: Keep
    restart: Callable[[], None]
    token: str | None


def add_face(app: web.Application, face: AgentFace) -> None:
    """Serve /info, /status, /logs, /execute and /action."""
    agent = face.configuration.agent

    def state() -> AgentState:
        worker = face.worker()
        return worker.state if worker else AgentState.STARTING

    async def info(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "id": agent.id,
                "name": agent.id,
                "description": agent.description,
                "defaultModel": face.configuration.llm.model,
                "capabilities": list(agent.capabilities),
                "version": __version__,
                "incarnation": face.incarnation,
                "pid": os.getpid(),
                "metadata": {"config_sha256": face.configuration.sha256},
            }
        )

    async def status(_: web.Request) -> web.Response:
        worker = face.worker()
        tasks = list(worker.task_ids) if worker else []
        return web.json_response(
            {
                "status": "stopping" if state() is AgentState.DRAINING else state().value,
                "current_task": tasks[0] if tasks else None,
                "tasks": tasks,
                "tasks_total": worker.tasks_total if worker else 0,
            }
        )

    async def logs(request: web.Request) -> web.Response:
        text = request.query.get("lines", "100")
        if not text.isdigit() or not 0 < int(text[:9]) <= MAX_LOG_LINES:
            raise InputRefused(Code.INVALID, f"lines must be between 1 and {MAX_LOG_LINES}")
        return web.json_response({"lines": recent_lines(int(text))})

    async def execute(request: web.Request) -> web.Response:
        if state() is not AgentState.RUNNING:
            raise Conflict(f"the agent is {state()}")
        document = read_json(await body_bytes(request))
        if not isinstance(document, dict) or not isinstance(document.get("parameters"), dict):
            raise InputRefused(Code.INVALID, 'send {"parameters": {…}}')
        payload = await face.execute(document["parameters"])
        if payload is None:
            raise web.HTTPGatewayTimeout(text="no result in time")
        return web.Response(body=payload, content_type="application/json")

    async def action(request: web.Request) -> web.Response:
        document = read_json(await body_bytes(request))
        worker = face.worker()
        wanted = document.get("action") if isinstance(document, dict) else None
        if wanted not in ("pause", "resume", "stop", "restart"):
            raise InputRefused(Code.INVALID, "action must be pause, resume, stop or restart")
        if worker is None or (wanted in OF_THE_AGENT and worker.state not in _ANSWERING):
            raise Conflict(f"the agent is {state()}")
        match wanted:
            case "pause":
                await face.keep(wanted)
                worker.pause()
            case "resume":
                await face.keep(wanted)
                worker.resume()
            case "stop":
                worker.ask_drain()
            case _:
                face.restart()
        return web.json_response({"ok": True, "action": wanted, "status": state().value})

    app.middlewares.extend([problems(_status_of), _guard(face.token)])
    app.router.add_get("/info", info)
    app.router.add_get("/status", status)
    app.router.add_get("/logs", logs)
    app.router.add_post("/execute", execute)
    app.router.add_post("/action", action)


def _guard(token: str | None) -> Middleware:
    """A middleware: with a ``token`` everything but the probes needs it."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is None or request.path in PROBES or is_token(bearer_of(request), token):
            return await handler(request)
        return unauthorized(request)

    return check


def _status_of(error: Agent2389Error) -> tuple[int, str]:
    """As everywhere, but the managers of such agents know 400 only for what is wrong in a request."""
    status, code = status_of(error)
    return (400 if status == HTTPStatus.UNPROCESSABLE_ENTITY else status), code
