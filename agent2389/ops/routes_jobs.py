"""Jobs over HTTP: submit, list, show, result, trace, events, cancel."""

import asyncio
import json
from typing import Any

import msgspec
from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.insight.bodies import body_bytes
from agent2389.insight.commands import version_of
from agent2389.insight.jobs import resolve, trace_of, wait_for_end
from agent2389.insight.problems import REQUEST_ID, problem
from agent2389.insight.questions import questions
from agent2389.ledger.port import Ledger
from agent2389.ledger.states import JOB_ENDED, JobState
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.ops.requests import Cancel, actor_of, body_of
from agent2389.wire.limits import MAX_MESSAGE_BYTES, check_size
from agent2389.wire.names import derived_uuid
from agent2389.wire.receipts import Code, Verdict
from agent2389.wire.status import timestamp

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
MAX_WAIT_SECONDS = 120.0
MAX_EVENT = 2**53
STREAM_PAUSE_SECONDS = 0.25
STREAM_TYPE = "text/event-stream"
_STATUS = {Verdict.ACCEPTED: 201, Verdict.DUPLICATE: 200}


def add(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/api/v1/jobs", jobs)
    app.router.add_post("/api/v1/jobs", submit)
    app.router.add_get("/api/v1/jobs/{job}", job)
    app.router.add_get("/api/v1/jobs/{job}/result", result)
    app.router.add_get("/api/v1/jobs/{job}/trace", trace)
    app.router.add_get("/api/v1/jobs/{job}/events", events)
    app.router.add_post("/api/v1/jobs/{job}/cancel", cancel)


def answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A struct (or plain data) as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def submit(request: web.Request) -> web.Response:
    """Submit a job."""
    if request.content_type not in ("application/json", "application/octet-stream"):
        raise web.HTTPUnsupportedMediaType(text="send the job as application/json")
    if (request.content_length or 0) > MAX_MESSAGE_BYTES:
        raise InputRefused(Code.TOO_LARGE, f"a submission has at most {MAX_MESSAGE_BYTES} bytes")
    body = await body_bytes(request)
    check_size(body)
    key = request.headers.get("Idempotency-Key")
    dependencies = request.app[DEPENDENCIES]
    submitted = await dependencies.submit(body, derived_uuid("idempotency", key) if key else None)
    await dependencies.dispatcher.perform(submitted.effects)
    fields = {"job_id": submitted.job_id, "verdict": submitted.verdict, "state": submitted.state}
    if submitted.note:
        fields["note"] = submitted.note
    headers = {"Location": f"/api/v1/jobs/{submitted.job_id}"}
    if submitted.verdict == Verdict.CONFLICT:
        detail = f"another job has the id {submitted.job_id}; the first one stands"
        return problem(409, "conflict", detail, request[REQUEST_ID], headers=headers, more=fields)
    dependencies.metrics.submitted.labels("http").inc()
    return answer(fields, status=_STATUS[Verdict(submitted.verdict)], headers=headers)


async def jobs(request: web.Request) -> web.Response:
    """List jobs, newest first."""
    ledger = request.app[DEPENDENCIES].ledger
    limit = number_in(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    state = request.query.get("state")
    if state is not None and state not in set(JobState):
        raise InputRefused(Code.INVALID, f"state must be one of {', '.join(JobState)}")
    cursor = request.query.get("cursor") or None
    rows = await ledger.jobs(state=JobState(state) if state else None, limit=limit + 1, before=cursor)
    if cursor is not None and not rows:
        await _check_cursor(ledger, cursor)
    shown = rows[:limit]
    following = shown[-1].job_id if len(rows) > limit else None
    return answer({"data": shown, "next_cursor": following})


async def job(request: web.Request) -> web.Response:
    """Show one job with its hops."""
    detail = await _detail(request)
    final = msgspec.Raw(detail.final.encode()) if detail.final else None
    body = {
        **msgspec.to_builtins(detail.job),
        "submission": detail.submission,
        "deadline": detail.deadline,
        "budget": detail.budget,
        "conversation_id": detail.conversation_id,
        "tasks": detail.tasks,
        "questions": questions(detail),
        "final": final,
    }
    return answer(body, headers={"ETag": f'"{version_of(detail)}"'})


async def result(request: web.Request) -> web.Response:
    """The terminal payload, byte for byte; 202 while the job runs. ``?wait=S`` waits up to 120 s."""
    ledger = request.app[DEPENDENCIES].ledger
    job_id = await resolve(ledger, request.match_info["job"])
    wait = _seconds(request, "wait")
    detail = await wait_for_end(ledger, job_id, wait)
    if detail.final is None:
        return answer({"job_id": job_id, "state": detail.job.state}, status=202)
    return web.Response(body=detail.final.encode(), content_type="application/json")


async def trace(request: web.Request) -> web.Response:
    """Who, why, how long, at what cost."""
    return answer(trace_of(await _detail(request)))


async def events(request: web.Request) -> web.StreamResponse:
    """Events of a job after a number: a list, or Server-Sent Events (``?stream=1``) until the job ends."""
    ledger = request.app[DEPENDENCIES].ledger
    job_id = await resolve(ledger, request.match_info["job"])
    after = _after(request)
    if not _wants_stream(request):
        found = await ledger.changes(job_id, after)
        return answer({"data": [_event(number, change) for number, change in found]})
    stream = web.StreamResponse(headers={"Content-Type": STREAM_TYPE, "Cache-Control": "no-cache"})
    await stream.prepare(request)
    while True:
        found = await ledger.changes(job_id, after)
        for number, change in found:
            after = number
            text = msgspec.json.encode(_event(number, change)).decode()
            await stream.write(f"id: {number}\nevent: {change.type}\ndata: {text}\n\n".encode())
        ended = not found and (await ledger.job(job_id)).job.state in JOB_ENDED
        if ended:
            await stream.write_eof()
            return stream
        await asyncio.sleep(STREAM_PAUSE_SECONDS)


async def cancel(request: web.Request) -> web.Response:
    """Cancel a job; an ended one answers with its state and changes nothing."""
    actor = actor_of(request, await body_of(request, Cancel))
    dependencies = request.app[DEPENDENCIES]
    job_id = await resolve(dependencies.ledger, request.match_info["job"])
    written = await dependencies.ledger.cancel(job_id, actor)
    await dependencies.dispatcher.perform(written.effects)
    body = {"job_id": job_id, "verdict": written.verdict, "state": written.job_state}
    return answer(body, status=202 if written.verdict == "ok" else 200)


async def _check_cursor(ledger: Ledger, cursor: str) -> None:
    """An empty page means the end of the list only after a job that is there."""
    if cursor not in await ledger.find_jobs(cursor):
        raise InputRefused(Code.INVALID, "cursor names no job", hint="use next_cursor as it was given")


async def _detail(request: web.Request) -> Any:
    ledger = request.app[DEPENDENCIES].ledger
    return await ledger.job(await resolve(ledger, request.match_info["job"]))


def _event(number: int, change: Any) -> dict[str, Any]:
    return {
        "number": number,
        "job_id": change.job_id,
        "task_id": change.task_id,
        "type": change.type,
        "at": timestamp(change.at),
        "agent_id": change.agent_id,
        "data": change.data,
    }


def number_in(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number of the query. Raises ``InputRefused``."""
    return whole(request.query.get(name, str(default)), name, least, most)


def whole(text: str, name: str, least: int, most: int) -> int:
    """``text`` as a number, by its ``name``. Raises ``InputRefused``."""
    if not text.isascii() or not text.isdigit() or not least <= int(text[:17]) <= most:
        raise InputRefused(Code.INVALID, f"{name} must be a number between {least} and {most}")
    return int(text)


def _after(request: web.Request) -> int:
    """The number of the last event that the client has: of the query, else of its header."""
    if "after" in request.query:
        return number_in(request, "after", 0, 0, MAX_EVENT)
    last = request.headers.get("Last-Event-ID", "").strip()
    return whole(last, "Last-Event-ID", 0, MAX_EVENT) if last else 0


def _wants_stream(request: web.Request) -> bool:
    """Whether the query says so, or the client takes nothing else, as an EventSource does."""
    kinds = [kind.partition(";")[0].strip() for kind in request.headers.get("Accept", "").lower().split(",")]
    return "stream" in request.query or kinds == [STREAM_TYPE]


def _seconds(request: web.Request, name: str) -> float:
    try:
        value = float(json.loads(request.query.get(name, "0")))
    except (ValueError, TypeError):
        raise InputRefused(Code.INVALID, f"{name} must be a number of seconds") from None
    if not 0 <= value <= MAX_WAIT_SECONDS:
        raise InputRefused(Code.INVALID, f"{name} must be between 0 and {MAX_WAIT_SECONDS:g} seconds")
    return value
