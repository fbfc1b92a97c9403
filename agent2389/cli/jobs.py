"""Verbs for jobs: submit, watch, trace, result, list, show, cancel."""

import asyncio
import base64
import contextlib
import hashlib
import json
import mimetypes
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent2389.cli import output
from agent2389.cli.chains import agent_links, instruction_of
from agent2389.cli.client import Client, connected
from agent2389.errors import Agent2389Error, InputRefused

INLINE_BYTES = 128 * 1024
WAIT_STEP = 30.0
DRAFT_CHARACTERS = 400
ENDED = ("completed", "failed", "cancelled", "expired")


class NotSucceeded(Agent2389Error):
    """The awaited job ended otherwise than completed."""

    exit_code = 7


class WaitTimedOut(Agent2389Error):
    """The job still runs."""

    exit_code = 8


def job_path(job: str, tail: str = "") -> str:
    """The address of a job or of something of it. Raises ``InputRefused`` without an id."""
    if not job.strip():
        raise InputRefused(
            "invalid",
            "the job id is empty",
            hint="give an id, its beginning or @last; agent2389 job list shows them",
        )
    return f"/api/v1/jobs/{quote(job, safe='@')}{tail}"


async def submit(
    api: str | None,
    text: str,
    *,
    capability: str | None,
    agent: str | None,
    input_json: str | None,
    files: Sequence[Path],
    budget: float | None,
    route: str | None,
    strategy: str | None = None,
    next_agents: Sequence[str] = (),
    tool: str | None = None,
    tool_params: str | None = None,
    conversation_id: str | None = None,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit a job, and with ``wait`` follow it to its end."""
    instruction = instruction_of(text, tool, read_option("--tool-params", tool_params))
    document: dict[str, Any] = {"instruction": instruction}
    if route is not None:
        names = _names_of(route)
        capability = capability or names.pop(0)
        document["next"] = names or None
        document["routing"] = {"strategy": "fixed"}
    if strategy:
        document["routing"] = {"strategy": strategy}
    given = {
        "next": agent_links(next_agents, text),
        "conversation_id": conversation_id or None,
        "capability": capability or None,
        "agent": agent or None,
        "input": read_option("--input", input_json),
        "budget": {"cost_usd": budget} if budget is not None else None,
    }
    document |= {key: value for key, value in given.items() if value is not None}
    async with connected(api) as client:
        if files:
            document["files"] = [await _file(client, path) for path in files]
        _, answer = await client.ask("POST", "/api/v1/jobs", json=document)
        if wait:
            output.say(f"job {answer['job_id']} {answer['state']}")
            with _told_when_interrupted(answer["job_id"]):
                await _follow(client, answer["job_id"])
                await _print_result(client, answer["job_id"], None, as_json=as_json)
        elif as_json:
            output.document(answer)
        else:
            output.data(answer["job_id"])
            if answer.get("note") == "no_live_agent":
                output.say("note: no live agent serves this capability yet; the job waits")


async def watch(api: str | None, job: str, *, as_jsonl: bool) -> None:
    """Events of a job until it ends."""
    async with connected(api) as client:
        async for line in client.lines(job_path(job, "/events?stream=1")):
            output.data(line if as_jsonl else told(json.loads(line)))
        detail = await client.get(job_path(job))
        if not as_jsonl:
            output.say(f"{detail['job_id']} {detail['state']}")


async def trace(api: str | None, job: str, *, as_json: bool) -> None:
    """Hops of a job: who, why, how long, at what cost."""
    async with connected(api) as client:
        found = await client.get(job_path(job, "/trace"))
    if as_json:
        output.document(found)
    else:
        output.data(render_trace(found))


async def result(api: str | None, job: str, *, wait: float | None, as_json: bool) -> None:
    """The result of a job: its text, or with ``as_json`` the stored payload."""
    async with connected(api) as client:
        await _print_result(client, job, wait, as_json=as_json)


async def list_jobs(api: str | None, *, state: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""
    query = {"limit": str(limit), **({"state": state} if state else {})}
    async with connected(api) as client:
        page = await client.get("/api/v1/jobs", **query)
    if as_json:
        output.document(page["data"], next_cursor=page["next_cursor"])
        return
    rows = [
        (
            job["job_id"],
            job["state"],
            job["agent"] or job["capability"],
            job["hops"],
            job["created_at"][:19] + "Z",
            " ".join((job["instruction"] or "").split())[:60],
        )
        for job in page["data"]
    ]
    output.table(rows, ("job", "state", "for", "hops", "created", "instruction"))
    if page["next_cursor"]:
        output.say(f"{len(rows)} shown, there are more: --limit")


async def show(api: str | None, job: str, *, as_json: bool) -> None:
    """Everything about one job."""
    async with connected(api) as client:
        detail = await client.get(job_path(job))
        found = await client.get(job_path(job, "/trace"))
    if as_json:
        output.document(detail)
        return
    for key in ("job_id", "state", "instruction", "priority", "source", "created_at", "deadline", "note"):
        if detail.get(key) is not None:
            output.data(f"{key:12} {detail[key]}")
    output.data(render_trace(found))
    for question in detail["questions"]:
        output.data(render_question(detail["job_id"], question))


async def cancel(api: str | None, job: str, *, as_json: bool) -> None:
    """Cancel a job."""
    async with connected(api) as client:
        _, answer = await client.ask("POST", job_path(job, "/cancel"))
    if as_json:
        output.document(answer)
    elif answer["verdict"] == "ok":
        output.data(f"{answer['job_id']} {answer['state']}")
    else:
        output.say(f"{answer['job_id']} had ended already: {answer['state']}")


def told(event: dict[str, Any]) -> str:
    """One event as a line."""
    data = event["data"]
    detail = ""
    if decision := data.get("decision"):
        chosen = decision.get("chosen")
        detail = f"→ {chosen}: {decision['reason']}" if chosen else f"done: {decision['reason']}"
    elif "message" in data:
        detail = data["message"]
    elif "pool" in data:
        detail = f"for {data['pool']}"
    who = event.get("agent_id") or ""
    return f"{event['at'][11:23]}  {event['type']:18} {who:14} {detail}".rstrip()


def render_trace(trace_: dict[str, Any]) -> str:
    """A trace for people."""
    usage = trace_["usage"]
    tokens = usage["input_tokens"] + usage["output_tokens"]
    head = " ".join((trace_["instruction"] or "").split())[:60]
    spent = f"{tokens:,} tok  {output.money(usage['cost_usd'])}"
    took = output.seconds(trace_["seconds"])
    lines = [f"{trace_['job_id']}  {trace_['state']}  {took}  {spent}  {head}"]
    for hop in trace_["hops"]:
        used = hop["usage"]
        spent = used["input_tokens"] + used["output_tokens"]
        lines.append(
            f"├─ {hop['hop']} {hop['agent_id'] or hop['capability']}  {hop['state']}  "
            f"{output.seconds(hop['seconds'])}  {spent:,} tok  {output.money(used['cost_usd'])}"
        )
        claim = "not claimed yet" if hop["claim_ms"] is None else f"claimed in {hop['claim_ms']:.0f} ms"
        again = f", attempt {hop['attempt'] + 1}" if hop["attempt"] else ""
        crashed = f", {hop['crashes']} crash(es) before" if hop["crashes"] else ""
        lines.append(f"│    {hop['capability']}: {claim}{again}{crashed}")
        lines += [f"│    {line}" for line in _decision_lines(hop)]
    return "\n".join(lines)


def render_question(job_id: str, question: dict[str, Any]) -> str:
    """What waits for a person, and how to decide it."""
    lines = [f"waits for a person: {question['capability']} (task {question['task_id']})"]
    if question["why"]:
        lines.append(f"  why    {question['why']}")
    if question["kind"] == "approval":
        lines.append("  decide agent2389 approval list")
        return "\n".join(lines)
    if draft := question["draft"]:
        lines.append(f"  draft  {' '.join(draft['text'].split())[:DRAFT_CHARACTERS]}")
    ways = "accept|answer|retry" if question["draft"] else "answer|retry"
    lines.append(f"  decide agent2389 job {ways} {job_id}")
    return "\n".join(lines)


def _decision_lines(hop: dict[str, Any]) -> list[str]:
    lines = []
    if error := hop.get("error"):
        lines.append(f"failed: {error['code']}: {error['message']}")
    decision = hop.get("decision")
    if not decision:
        return lines
    chosen = decision.get("chosen")
    arrow = f"→ {chosen}" if chosen else decision["outcome"]
    lines.append(f"{arrow} ({decision['strategy']}): {decision['reason']}")
    if decision.get("fallback"):
        lines.append(f"fallback: {decision['fallback']}")
    lines += [f"not {item['capability']}: {item['why']}" for item in decision.get("rejected", ())]
    return lines


def _names_of(route: str) -> list[str]:
    """The capabilities of ``--route``. Raises ``InputRefused`` for an empty one."""
    names = [name.strip() for name in route.split(",")]
    if not all(names):
        raise InputRefused(
            "invalid",
            f"--route {route!r} has an empty name",
            hint="name capabilities with commas between: --route writing,editing",
        )
    return names


@contextlib.contextmanager
def _told_when_interrupted(job_id: str) -> Iterator[None]:
    """Ctrl-C ends the wait and not the job, which nobody would guess from an exit code."""
    try:
        yield
    except asyncio.CancelledError:
        output.say(f"interrupted: job {job_id} goes on")
        output.say(
            f"hint: follow it with agent2389 watch {job_id}, stop it with agent2389 job cancel {job_id}"
        )
        raise


async def _follow(client: Client, job_id: str) -> None:
    async for line in client.lines(job_path(job_id, "/events?stream=1")):
        output.say("  " + told(json.loads(line)))


async def _print_result(client: Client, job: str, wait: float | None, *, as_json: bool) -> None:
    deadline = time.monotonic() + (wait or 0.0)
    while True:
        left = max(deadline - time.monotonic(), 0.0)
        status, payload = await client.ask(
            "GET", job_path(job, "/result"), params={"wait": f"{min(left, WAIT_STEP):.3f}"}
        )
        if status != 202 or left <= 0:
            break
    if status == 202:
        raise WaitTimedOut(
            f"job {payload['job_id']} is {payload['state']}", hint="wait longer with --wait SECONDS"
        )
    if as_json:
        output.document(payload)
    elif payload.get("result"):
        output.data(await _whole_text(client, payload["result"]))
    if payload["state"] != "completed":
        error = payload.get("error") or {}
        raise NotSucceeded(
            f"job {payload['job_id']} {payload['state']}: {error.get('message', '')}".rstrip(": "),
            hint=f"see agent2389 trace {payload['job_id']}",
        )


async def _whole_text(client: Client, result: dict[str, Any]) -> str:
    """The answer; one too large for a message is fetched from its blob."""
    text: str = result["text"]
    for file in result.get("files", ()):
        if file.get("preview") and text.startswith(file["preview"]) and file["size"] > len(text.encode()):
            return (await client.content(f"/api/v1/blobs/{file['sha256']}")).decode("utf-8", "replace")
    return text


async def _file(client: Client, path: Path) -> dict[str, Any]:
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise InputRefused("invalid", f"{path}: {error.strerror}") from None
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if len(content) <= INLINE_BYTES:
        encoded = base64.b64encode(content).decode()
        return {"name": path.name, "media_type": media_type, "content_base64": encoded}
    digest = hashlib.sha256(content).hexdigest()
    await client.ask("PUT", f"/api/v1/blobs/{digest}", data=content, headers={"Content-Type": media_type})
    return {"name": path.name, "media_type": media_type, "sha256": digest}


def read_option(name: str, text: str | None) -> Any:
    """The JSON value of an option; ``None`` when it is absent. Raises ``InputRefused``."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputRefused("malformed", f"{name} is not JSON: {error}") from None
