"""What work said, did and cost, over HTTP: transcripts, calls in doubt, budgets."""

import msgspec
from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.insight.jobs import resolve as resolve_job
from agent2389.insight.transcripts import as_markdown, entries
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.ops.requests import Resolve, SetLimit, actor_of, body_of
from agent2389.ops.routes_jobs import answer, number_in
from agent2389.wire.receipts import Code

MOST_ENTRIES = 500


def add(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/api/v1/jobs/{job}/transcript", transcript)
    app.router.add_post("/api/v1/jobs/{job}/resolve", resolve)
    app.router.add_get("/api/v1/budget", budget)
    app.router.add_post("/api/v1/budget", set_limit)


async def transcript(request: web.Request) -> web.StreamResponse:
    """The conversations of a job: a page of JSON, or all of it with ``?format=jsonl`` or ``markdown``."""
    ledger = request.app[DEPENDENCIES].ledger
    job_id = await resolve_job(ledger, request.match_info["job"])
    match request.query.get("format", "json"):
        case "json":
            skip = number_in(request, "skip", 0, 0, 2**31 - 1)
            limit = number_in(request, "limit", 100, 1, MOST_ENTRIES)
            await ledger.job(job_id)
            data = await ledger.transcript(job_id, skip, limit)
            return answer({"data": data, "next": skip + len(data) if len(data) == limit else None})
        case "jsonl":
            response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
            await response.prepare(request)
            async for entry in entries(ledger, job_id):
                await response.write(msgspec.json.encode(entry) + b"\n")
            await response.write_eof()
            return response
        case "markdown":
            found = [entry async for entry in entries(ledger, job_id)]
            return web.Response(text=as_markdown(job_id, found), content_type="text/markdown")
        case _:
            raise InputRefused(Code.INVALID, "format must be json, jsonl or markdown")


async def resolve(request: web.Request) -> web.Response:
    """A person's word on a call that may have happened before a crash; the task goes on with it."""
    body = await body_of(request, Resolve)
    dependencies = request.app[DEPENDENCIES]
    job_id = await resolve_job(dependencies.ledger, request.match_info["job"])
    written = await dependencies.ledger.resolve_effect(
        body.task_id,
        body.step,
        body.call,
        happened=body.happened,
        answer=body.answer,
        actor=actor_of(request, body),
    )
    await dependencies.dispatcher.perform(written.effects)
    return answer({"job_id": job_id, "verdict": written.verdict, "task_state": written.task_state})


async def budget(request: web.Request) -> web.Response:
    """What the tenant used today, this month and in all, beside its limits."""
    return answer({"data": await request.app[DEPENDENCIES].ledger.spending()})


async def set_limit(request: web.Request) -> web.Response:
    """Set or (with ``null``) take away a limit of the tenant."""
    body = await body_of(request, SetLimit)
    ledger = request.app[DEPENDENCIES].ledger
    await ledger.set_limit(body.period, body.unit, body.limit)
    return answer({"data": await ledger.spending()})
