"""What people decide, over HTTP: questions, retries, corrections, approvals, commands to agents."""

import msgspec
from aiohttp import web

from agent2389.errors import Conflict, InputRefused, NotFound
from agent2389.insight import commands
from agent2389.insight.jobs import resolve
from agent2389.insight.problems import PreconditionFailed
from agent2389.ledger.records import Submitted, Written
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.ops.requests import (
    DECISIONS,
    Assign,
    Clone,
    Command,
    Decide,
    DecideApproval,
    Escalate,
    Override,
    Retry,
    actor_of,
    body_of,
    wanted_tags,
)
from agent2389.ops.routes_jobs import answer, number_in
from agent2389.wire.names import new_uuid7
from agent2389.wire.receipts import Code
from agent2389.wire.status import timestamp

MAX_EVENTS = 500
AGENT_ACTIONS = ("pause", "resume", "drain", "stop", "restart")
APPROVAL_STATES = ("pending", "approved", "rejected", "withdrawn")


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
    body = await body_of(request, Retry)
    job_id = await _job(request)
    ledger, actor = request.app[DEPENDENCIES].ledger, actor_of(request, body)
    done = await commands.retry(ledger, job_id, actor, words=body.words, key=_key(request))
    return await _done(request, job_id, done)


async def clone(request: web.Request) -> web.Response:
    """Run an ended job again as a new job."""
    body = await body_of(request, Clone)
    job_id = await _job(request)
    ledger = request.app[DEPENDENCIES].ledger
    made = await commands.clone(ledger, job_id, actor_of(request, body), key=_key(request))
    return await _done(request, job_id, made)


async def escalate(request: web.Request) -> web.Response:
    """Take the open tasks of a job, or one of them, to a person."""
    body = await body_of(request, Escalate)
    job_id = await _job(request)
    written = await commands.escalate(
        request.app[DEPENDENCIES].ledger,
        job_id,
        actor_of(request, body),
        task_id=body.task_id,
        reason=body.reason or "a person took the task",
    )
    return await _done(request, job_id, written)


async def override(request: web.Request) -> web.Response:
    """A person's text is the result; a completed job gets a corrected clone."""
    body = await body_of(request, Override)
    job_id = await _job(request)
    ledger, actor = request.app[DEPENDENCIES].ledger, actor_of(request, body)
    done = await commands.override(ledger, job_id, actor, body.text, key=_key(request))
    return await _done(request, job_id, done)


async def decide(request: web.Request) -> web.Response:
    """Decide a task that waits for a person: retry, accept, answer or cancel; ``next`` hands on.

    With ``If-Match`` (the ETag of the job) only while the job stands as the person saw it.
    """
    body = await body_of(request, Decide)
    ledger = request.app[DEPENDENCIES].ledger
    detail = await ledger.job(await _job(request))
    _check_version(request, commands.version_of(detail))
    written = await commands.decide(
        ledger,
        detail,
        body.action,
        actor_of(request, body),
        task_id=body.task_id,
        words=body.words,
        next_task=body.next.as_task() if body.next else None,
    )
    return await _done(request, detail.job.job_id, written)


async def approvals(request: web.Request) -> web.Response:
    """Questions about single tool calls, newest first; ``?state=pending``."""
    limit = number_in(request, "limit", 50, 1, 200)
    state = request.query.get("state")
    if state not in (None, *APPROVAL_STATES):
        raise InputRefused(Code.INVALID, f"state must be one of {', '.join(APPROVAL_STATES)}")
    rows = await request.app[DEPENDENCIES].ledger.approvals(state=state, limit=limit)
    return answer({"data": rows, "next_cursor": None})


async def approval(request: web.Request) -> web.Response:
    """One question; its ETag is the hash of the arguments."""
    found = await commands.approval(request.app[DEPENDENCIES].ledger, request.match_info["approval"])
    return answer(found, headers={"ETag": f'"{found.arguments_sha256}"'})


async def decide_approval(request: web.Request) -> web.Response:
    """Approve or reject exactly the arguments of ``arguments_sha256`` (or ``If-Match``)."""
    body = await body_of(request, DecideApproval)
    ledger = request.app[DEPENDENCIES].ledger
    found = await commands.approval(ledger, request.match_info["approval"])
    if body.arguments_sha256 is None and wanted_tags(request) is None:
        raise InputRefused(Code.INVALID, "arguments_sha256 is missing: what exactly is decided")
    _check_version(request, found.arguments_sha256)
    if body.arguments_sha256 not in (None, found.arguments_sha256):
        raise Conflict("the decision is about other arguments than the question", hint="read it again")
    decision = DECISIONS[body.decision]
    written = await ledger.decide_approval(
        found.approval_id, decision, found.arguments_sha256, actor_of(request, body), reason=body.reason
    )
    await request.app[DEPENDENCIES].dispatcher.perform(written.effects)
    return answer({"approval_id": found.approval_id, "verdict": written.verdict, "state": decision})


async def agent(request: web.Request) -> web.Response:
    """One agent id with its incarnations."""
    name = request.match_info["agent"]
    chosen = await commands.processes_of(request.app[DEPENDENCIES].ledger, name)
    if not chosen:
        raise NotFound(f"there is no agent {name}", hint="list them: agent2389 agent list")
    return answer({"agent_id": name, "incarnations": chosen})


async def command(request: web.Request) -> web.Response:
    """Pause, resume, drain, stop or restart an agent; the ledger keeps it, the broker only hints."""
    name, action = request.match_info["agent"], request.match_info["action"]
    if action not in AGENT_ACTIONS:
        raise NotFound(f"agents know no {action}", hint=f"one of {', '.join(AGENT_ACTIONS)}")
    body = await body_of(request, Command)
    dependencies = request.app[DEPENDENCIES]
    command_id = new_uuid7()
    concerned = await commands.command(
        dependencies.ledger,
        command_id,
        name,
        action,
        actor_of(request, body),
        incarnation=body.incarnation,
    )
    hint = commands.hint(dependencies.ledger, command_id, name, action, incarnation=body.incarnation)
    await dependencies.dispatcher.publish(hint)
    return answer({"agent_id": name, "action": action, "command_id": command_id, "incarnations": concerned})


async def assign(request: web.Request) -> web.Response:
    """Give a queued task to one incarnation, which has thirty seconds to take it."""
    body = await body_of(request, Assign)
    written = await commands.assign(
        request.app[DEPENDENCIES].ledger,
        request.match_info["task"],
        actor_of(request, body),
        incarnation=body.incarnation,
        agent_id=body.agent,
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


async def _job(request: web.Request) -> str:
    return await resolve(request.app[DEPENDENCIES].ledger, request.match_info["job"])


def _key(request: web.Request) -> str | None:
    return request.headers.get("Idempotency-Key") or None


def _check_version(request: web.Request, version: str) -> None:
    wanted = wanted_tags(request)
    if wanted is not None and version not in wanted:
        raise PreconditionFailed("it is not what If-Match names any more", hint="read it again, then decide")


async def _done(request: web.Request, job_id: str | None, done: Submitted | Written) -> web.Response:
    await request.app[DEPENDENCIES].dispatcher.perform(done.effects)
    if isinstance(done, Submitted):
        body = {"job_id": done.job_id, "verdict": done.verdict, "state": done.state, "retry_of": job_id}
        status = 201 if done.verdict == "accepted" else 200
        return answer(body, status=status, headers={"Location": f"/api/v1/jobs/{done.job_id}"})
    state = {
        "job_id": job_id,
        "verdict": done.verdict,
        "state": done.job_state,
        "task_state": done.task_state,
    }
    return answer(state, status=202 if done.verdict == "ok" else 200)
