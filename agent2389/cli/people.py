"""Verbs of people about work: retry, clone, escalate, answer, assign, approvals, events."""

import json
from typing import Any
from urllib.parse import quote

from agent2389.cli import output
from agent2389.cli.client import connected
from agent2389.cli.jobs import job_path, told
from agent2389.errors import Conflict


async def act(api: str | None, job: str, door: str, body: dict[str, Any], *, as_json: bool) -> None:
    """Send ``body`` (without what was not said) to a door of a job and tell what came of it."""
    said = {key: value for key, value in body.items() if value is not None}
    async with connected(api) as client:
        _, answer = await client.ask("POST", job_path(job, f"/{door}"), json=said)
    _tell(answer, as_json=as_json)


async def assign(api: str | None, job: str, agent: str, *, task: str | None, as_json: bool) -> None:
    """Give the queued task of a job to an agent, or to one of its processes."""
    async with connected(api) as client:
        detail = await client.get(job_path(job))
        queued = [row["task_id"] for row in detail["tasks"] if row["state"] == "queued"]
        chosen = [one for one in queued if one.startswith(task or "")]
        if len(chosen) != 1:
            raise Conflict(
                f"{len(chosen)} tasks of job {detail['job_id']} are queued and meant",
                hint="name one: --task " + queued[0] if queued else f"see agent2389 trace {job}",
            )
        rows = (await client.get("/api/v1/agents"))["data"]
        named = {row["incarnation"] for row in rows if row["incarnation"].startswith(agent)}
        by_name = any(row["agent_id"] == agent for row in rows)
        whom = {"incarnation": named.pop()} if len(named) == 1 and not by_name else {"agent": agent}
        _, answer = await client.ask("POST", f"/api/v1/tasks/{chosen[0]}/assign", json=whom)
    if as_json:
        output.document({**answer, "job_id": detail["job_id"], "task_id": chosen[0]})
    else:
        output.data(f"{detail['job_id']} {chosen[0]} {answer['task_state']} to {agent}")


async def events(api: str | None, job: str, *, follow: bool, as_jsonl: bool) -> None:
    """The events of a job so far, and with ``follow`` those to come until it ends."""
    async with connected(api) as client:
        if follow:
            async for line in client.lines(job_path(job, "/events?stream=1")):
                output.data(line if as_jsonl else told(json.loads(line)))
            return
        for event in (await client.get(job_path(job, "/events")))["data"]:
            output.data(json.dumps(event, ensure_ascii=False) if as_jsonl else told(event))


# approvals -----------------------------------------------------------------------------


async def approvals(api: str | None, *, state: str, limit: int, as_json: bool) -> None:
    """Questions about single tool calls, newest first."""
    query = {"limit": str(limit), **({} if state == "all" else {"state": state})}
    async with connected(api) as client:
        rows = (await client.get("/api/v1/approvals", **query))["data"]
    if as_json:
        output.document(rows)
        return
    shown = [
        (
            row["approval_id"],
            row["state"],
            row["job_id"],
            row["tool"],
            row["asked_at"][:19] + "Z",
            " ".join(row["question"].split())[:60],
        )
        for row in rows
    ]
    output.table(shown, ("approval", "state", "job", "tool", "asked", "question"))


async def show_approval(api: str | None, approval: str, *, as_json: bool) -> None:
    """One question with the exact arguments."""
    async with connected(api) as client:
        row = await client.get(_path(approval))
    if as_json:
        output.document(row)
        return
    for key in ("approval_id", "state", "question", "tool", "arguments", "arguments_sha256", "job_id"):
        output.data(f"{key:17} {row[key]}")
    for key in ("task_id", "asked_at", "actor", "reason", "decided_at"):
        if row[key]:
            output.data(f"{key:17} {row[key]}")


async def decide_approval(
    api: str | None, approval: str, decision: str, *, sha256: str | None, reason: str, as_json: bool
) -> None:
    """Approve or reject; what is decided is shown, and with ``sha256`` it must be just that."""
    async with connected(api) as client:
        asked = await client.get(_path(approval))
        if not as_json:
            output.say(f"{asked['tool']} {asked['arguments']}")
        tag = sha256 or asked["arguments_sha256"]
        _, answer = await client.ask(
            "POST",
            _path(asked["approval_id"]),
            json={"decision": decision, "reason": reason},
            headers={"If-Match": f'"{tag}"'},
        )
    if as_json:
        output.document(answer)
    elif answer["verdict"] == "ok":
        output.data(f"{answer['approval_id']} {answer['state']}")
    else:
        output.say(f"{answer['approval_id']} was {answer['state']} already")


def _path(approval: str) -> str:
    return f"/api/v1/approvals/{quote(approval, safe='')}"


def _tell(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.document(answer)
    elif answer["verdict"] == "already":
        output.say(f"{answer['job_id']} had ended already: {answer['state']}")
    else:
        output.data(f"{answer['job_id']} {answer['state']}")
