"""Verbs about what work said, did and cost: transcripts, calls in doubt, budgets."""

from pathlib import Path
from typing import Any

from agent2389.cli import output
from agent2389.cli.client import connected
from agent2389.cli.jobs import job_path
from agent2389.errors import Agent2389Error, Conflict, InputRefused, NotFound

FORMATS = ("markdown", "jsonl")
UNLIMITED = "none"


async def transcript(api: str | None, job: str, *, form: str, out: Path | None) -> None:
    """Print or write what was said on a job."""
    if form not in FORMATS:
        raise InputRefused("invalid", f"there is no format {form!r}", hint=f"one of {', '.join(FORMATS)}")
    async with connected(api) as client:
        content = await client.content(job_path(job, f"/transcript?format={form}"))
    if out is None:
        output.data(content.decode().rstrip("\n"))
        return
    try:
        out.write_bytes(content)
    except OSError as error:
        raise Agent2389Error(f"{out}: {error.strerror}", hint="choose another --out") from None
    output.say(f"{len(content)} bytes in {out}")


async def resolve(
    api: str | None, job: str, *, happened: bool, answer: str, which: str | None, as_json: bool
) -> None:
    """Say what became of the call in doubt of a job; ``which`` is TASK/STEP/CALL where there are several."""
    async with connected(api) as client:
        rows = await _in_doubt(client, job)
        chosen = [row for row in rows if which is None or _place(row).startswith(which)]
        if not chosen:
            raise NotFound("no call of this job is in doubt", hint=f"look: agent2389 job transcript {job}")
        if len(chosen) > 1:
            raise Conflict(
                f"{len(chosen)} calls are in doubt: "
                + ", ".join(f"{_place(row)} {row['name']}" for row in chosen),
                hint="name one: --call TASK/STEP/CALL",
            )
        row = chosen[0]
        body = {
            "happened": happened,
            "answer": answer,
            **{key: row[key] for key in ("task_id", "step", "call")},
        }
        _, said = await client.ask("POST", job_path(job, "/resolve"), json=body)
    if as_json:
        output.document(said)
    else:
        output.data(f"{said['job_id']} {row['name']} {'happened' if happened else 'did not happen'}")


async def show_budget(api: str | None, *, as_json: bool) -> None:
    """What was used and what is allowed."""
    async with connected(api) as client:
        _tell((await client.get("/api/v1/budget"))["data"], as_json=as_json)


async def set_budget(api: str | None, period: str, unit: str, limit: str, *, as_json: bool) -> None:
    """Set a limit, or take it away with ``none``."""
    try:
        number = None if limit == UNLIMITED else float(limit)
    except ValueError:
        raise InputRefused("invalid", f"{limit!r} is no number", hint="a number, or none") from None
    async with connected(api) as client:
        body = {"period": period, "unit": unit, "limit": number}
        _, said = await client.ask("POST", "/api/v1/budget", json=body)
    _tell(said["data"], as_json=as_json)


async def _in_doubt(client: Any, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    skip: int | None = 0
    while skip is not None:
        page = await client.get(job_path(job, "/transcript"), skip=str(skip), limit="500")
        found += [
            entry["effect"]
            for entry in page["data"]
            if entry["effect"]
            and entry["effect"]["state"] == "in_doubt"
            and entry["effect"]["repeat"] == "unsafe"
        ]
        skip = page["next"]
    return found


def _place(row: dict[str, Any]) -> str:
    return f"{row['task_id']}/{row['step']}/{row['call']}"


def _tell(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        output.document(rows)
        return
    shown = [
        (row["period"], row["unit"], f"{row['used']:g}", "-" if row["limit"] is None else f"{row['limit']:g}")
        for row in rows
    ]
    output.table(shown, ("period", "unit", "used", "limit"))
