"""What people decide, over HTTP: questions, retries, corrections, approvals, commands to agents."""

from typing import Any

import msgspec
from aiohttp import web

from agent2389.broker.port import Message
from agent2389.errors import InputRefused, NotFound
from agent2389.insight import commands
from agent2389.insight.jobs import resolve
from agent2389.ledger.records import NextTask, Submitted, Written
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.ops.routes_jobs import answer, number_in
from agent2389.wire.limits import read_json
from agent2389.wire.mesh import Control, encode
from agent2389.wire.names import is_capability, is_identifier, new_uuid7
from agent2389.wire.receipts import Code
from agent2389.wire.status import timestamp
from agent2389.wire.topics import MeshTopics

MAX_ACTOR = 64
MAX_EVENTS = 500
AGENT_ACTIONS = ("pause", "resume", "drain", "stop", "restart")
DECISIONS = {"approve": "approved", "approved": "approved", "reject": "rejected", "rejected": "rejected"}


def add(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_post("/api/v1/jobs/{job}/retry", retry)
    app.router.add_post("/api/v1/jobs/{job}/clone", clone)
    app.router.add_post("/api/v1/jobs/{job}/escalate", escalate)
    app.router.add_post("/api/v1/jobs/{job}/override", override)
    app.router.add_post("/api/v1/jobs/{job}/decide", decide)
    app.router.add_get("/api/v1/approvals", approvals)
    app.router.add_get("/api/v1/approvals/{approval}", approval)
    app.router.add_post("/api/v1/approvals/{approval}", decide_approval)
    app.router.add_get("/api/v1/agents/{agent}", agent)
    app.router.add_post("/api/v1/agents/{agent}/{action}", command)
    app.router.add_post("/api/v1/tasks/{task}/assign", assign)
    app.router.add_get("/api/v1/events", events)


async def retry(request: web.Request) -> web.Response:
    """Try again: an ended job as a clone, an open one where it waits for a person."""
    job_id, body = await _asked(request)
    ledger = request.app[DEPENDENCIES].ledger
    done = await commands.retry(ledger, job_id, _actor(request, body), words=_text(body, "words"))
    return await _done(request, job_id, done)


async def clone(request: web.Request) -> web.Response:
    """Run an ended job again as a new job."""
    job_id, body = await _asked(request)
    ledger = request.app[DEPENDENCIES].ledger
    return await _done(request, job_id, await ledger.clone(job_id, new_uuid7(), _actor(request, body)))


async def escalate(request: web.Request) -> web.Response:
    """Take the open tasks of a job, or one of them, to a person."""
    job_id, body = await _asked(request)
    reason = _text(body, "reason") or "a person took the task"
    written = await request.app[DEPENDENCIES].ledger.escalate(
        job_id, _actor(request, body), task_id=_text(body, "task_id"), reason=reason
    )
    return await _done(request, job_id, written)


async def override(request: web.Request) -> web.Response:
    """A person's text is the result; a completed job gets a corrected clone."""
    job_id, body = await _asked(request)
    text = _text(body, "text")
    if not text:
        raise InputRefused(Code.INVALID, "text is missing: the corrected result")
    ledger = request.app[DEPENDENCIES].ledger
    return await _done(request, job_id, await commands.override(ledger, job_id, _actor(request, body), text))


async def decide(request: web.Request) -> web.Response:
    """Decide a task that waits for a person: retry, accept, answer or cancel; ``next`` hands on."""
    job_id, body = await _asked(request)
    ledger = request.app[DEPENDENCIES].ledger
    written = await commands.decide(
        ledger,
        await ledger.job(job_id),
        _text(body, "action") or "",
        _actor(request, body),
        task_id=_text(body, "task_id"),
        words=_text(body, "words"),
        next_task=_next(body.get("next")),
    )
    return await _done(request, job_id, written)


async def approvals(request: web.Request) -> web.Response:
    """Questions about single tool calls, newest first; ``?state=pending``."""
    limit = number_in(request, "limit", 50, 1, 200)
    rows = await request.app[DEPENDENCIES].ledger.approvals(state=request.query.get("state"), limit=limit)
    return answer({"data": rows, "next_cursor": None})


async def approval(request: web.Request) -> web.Response:
    """One question; its ETag is the hash of the arguments."""
    found = await _approval(request)
    return answer(found, headers={"ETag": f'"{found.arguments_sha256}"'})


async def decide_approval(request: web.Request) -> web.Response:
    """Approve or reject exactly the arguments of ``arguments_sha256`` (or ``If-Match``)."""
    body = await _body(request)
    found = await _approval(request)
    sha256 = _text(body, "arguments_sha256") or request.headers.get("If-Match", "").strip('"')
    if not sha256:
        raise InputRefused(Code.INVALID, "arguments_sha256 is missing: what exactly is decided")
    decision = DECISIONS.get(_text(body, "decision") or "")
    if decision is None:
        raise InputRefused(Code.INVALID, "decision must be approve or reject")
    written = await request.app[DEPENDENCIES].ledger.decide_approval(
        found.approval_id, decision, sha256, _actor(request, body), reason=_text(body, "reason") or ""
    )
    await request.app[DEPENDENCIES].dispatcher.perform(written.effects)
    return answer({"approval_id": found.approval_id, "verdict": written.verdict, "state": decision})


async def agent(request: web.Request) -> web.Response:
    """One agent id with its incarnations."""
    name = request.match_info["agent"]
    rows = await request.app[DEPENDENCIES].ledger.agents()
    chosen = [row for row in rows if row.role == "agent" and row.agent_id == name]
    if not chosen:
        raise NotFound(f"there is no agent {name}", hint="list them: agent2389 agent list")
    return answer({"agent_id": name, "incarnations": chosen})


async def command(request: web.Request) -> web.Response:
    """Pause, resume, drain, stop or restart an agent; the ledger keeps it, the broker only hints."""
    name, action = request.match_info["agent"], request.match_info["action"]
    if action not in AGENT_ACTIONS:
        raise web.HTTPNotFound(reason="Not Found")
    body = await _body(request)
    dependencies = request.app[DEPENDENCIES]
    command_id = new_uuid7()
    concerned = await dependencies.ledger.command(
        command_id, name, action, _actor(request, body), incarnation=_text(body, "incarnation")
    )
    hint = Control(action=action, command_id=command_id, incarnation=_text(body, "incarnation"))
    topic = MeshTopics(dependencies.ledger.tenant).control(name)
    await dependencies.dispatcher.publish(Message(topic, encode(hint)))
    return answer({"agent_id": name, "action": action, "command_id": command_id, "incarnations": concerned})


async def assign(request: web.Request) -> web.Response:
    """Give a queued task to one incarnation, which has thirty seconds to take it."""
    body = await _body(request)
    incarnation = _text(body, "incarnation")
    if not incarnation:
        raise InputRefused(Code.INVALID, "incarnation is missing: who shall do it")
    written = await request.app[DEPENDENCIES].ledger.assign(
        request.match_info["task"], incarnation, _actor(request, body)
    )
    return await _done(request, None, written)


async def events(request: web.Request) -> web.Response:
    """Events of all jobs after a sealed number: dense, in commit order, nothing missed."""
    after = number_in(request, "after", 0, 0, 2**53)
    limit = number_in(request, "limit", 100, 1, MAX_EVENTS)
    ledger = request.app[DEPENDENCIES].ledger
    await ledger.seal(MAX_EVENTS)
    found = await ledger.sealed_changes(after, limit)
    data = [
        {**msgspec.structs.asdict(change), "at": timestamp(change.at), "number": number}
        for number, change in found
    ]
    return answer({"data": data, "next": found[-1][0] if found else after})


# what requests say ------------------------------------------------------------------


async def _asked(request: web.Request) -> tuple[str, dict[str, Any]]:
    body = await _body(request)
    return await resolve(request.app[DEPENDENCIES].ledger, request.match_info["job"]), body


async def _body(request: web.Request) -> dict[str, Any]:
    payload = await request.read()
    document = read_json(payload) if payload else {}
    if not isinstance(document, dict):
        raise InputRefused(Code.INVALID, "send a JSON object")
    return document


def _text(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise InputRefused(Code.INVALID, f"{key} must be a text")
    return value


def _actor(request: web.Request, body: dict[str, Any]) -> str:
    """Who acts: what the caller says, for the record; what it may do, its token decides."""
    actor = _text(body, "actor") or request.headers.get("X-Actor") or "api"
    if len(actor) > MAX_ACTOR or not actor.isprintable():
        raise InputRefused(Code.INVALID, f"actor must be at most {MAX_ACTOR} printable characters")
    return actor


def _next(value: Any) -> NextTask | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InputRefused(Code.INVALID, "next must be an object with a capability or an agent")
    capability, name = _text(value, "capability"), _text(value, "agent")
    if (capability is None) == (name is None):
        raise InputRefused(Code.INVALID, "next names a capability or an agent, one of them")
    if not (is_capability(capability) if capability is not None else is_identifier(name or "")):
        raise InputRefused(Code.INVALID, "next names something that is no capability and no agent id")
    return NextTask(
        capability=capability,
        agent=name,
        instruction=_text(value, "instruction"),
        input=value.get("input"),
        reason="a person decided",
    )


async def _approval(request: web.Request) -> Any:
    wanted = request.match_info["approval"]
    rows = await request.app[DEPENDENCIES].ledger.approvals(limit=1000)
    found = [row for row in rows if row.approval_id.startswith(wanted)]
    exact = [row for row in found if row.approval_id == wanted]
    if len(exact or found) != 1:
        raise NotFound(f"there is no single approval {wanted}", hint="list them: agent2389 approval list")
    return (exact or found)[0]


async def _done(request: web.Request, job_id: str | None, done: Submitted | Written) -> web.Response:
    await request.app[DEPENDENCIES].dispatcher.perform(done.effects)
    if isinstance(done, Submitted):
        body = {"job_id": done.job_id, "verdict": done.verdict, "state": done.state, "retry_of": job_id}
        return answer(body, status=201, headers={"Location": f"/api/v1/jobs/{done.job_id}"})
    state = {
        "job_id": job_id,
        "verdict": done.verdict,
        "state": done.job_state,
        "task_state": done.task_state,
    }
    return answer(state, status=202 if done.verdict == "ok" else 200)
