"""Verbs about the fleet: list, show, pause, resume, drain, stop, restart, logs, pools."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from agent2389.cli import output
from agent2389.cli.client import Client, connected
from agent2389.config.process import load_process
from agent2389.errors import Agent2389Error, InputRefused, NotFound, Unreachable

LOOK_SECONDS = 0.1
FOLLOW_SECONDS = 0.2
GONE = ("stopped", "lost")
TAIL_BYTES = 4 * 1024 * 1024


class DrainTimedOut(Agent2389Error):
    """The agent did not get there in the time that was given."""

    exit_code = 10


async def agents(api: str | None, *, as_json: bool) -> None:
    """The fleet."""
    async with connected(api) as client:
        rows = (await client.get("/api/v1/agents"))["data"]
    if as_json:
        output.document(rows)
        return
    output.table(
        [
            (
                row["agent_id"],
                row["state"],
                ",".join(row["capabilities"]),
                f"{row['tasks_running']}/{row['slots']}",
                row["tasks_total"],
                row["version"],
                row["incarnation"][:13],
            )
            for row in rows
        ],
        ("agent", "state", "capabilities", "busy", "done", "version", "incarnation"),
    )


async def show_agent(api: str | None, name: str, *, as_json: bool) -> None:
    """One agent id with all its incarnations."""
    async with connected(api) as client:
        rows = (await client.get("/api/v1/agents"))["data"]
    chosen = [row for row in rows if row["agent_id"] == name or row["incarnation"].startswith(name)]
    if not chosen:
        raise NotFound(f"there is no agent {name}", hint="list them: agent2389 agent list")
    if as_json:
        output.document(chosen)
        return
    for row in chosen:
        for key, value in row.items():
            output.data(f"{key:14} {value}")


async def command(
    api: str | None,
    agent: str,
    action: str,
    *,
    incarnation: str | None = None,
    wait: float | None = None,
    as_json: bool,
) -> None:
    """Tell an agent something, and with ``wait`` stay until it is done (seconds)."""
    async with connected(api) as client:
        path = f"/api/v1/agents/{quote(agent, safe='')}"
        before = await _processes(client, path)
        chosen = _chosen(before, incarnation, agent) if incarnation else None
        body = {"incarnation": chosen} if chosen else {}
        _, answer = await client.ask("POST", f"{path}/{action}", json=body)
        if wait is not None and answer["incarnations"]:
            known = {row["incarnation"] for row in before}
            await _until_done(client, path, answer, known, wait)
    if as_json:
        output.document(answer)
    elif answer["incarnations"] or action in ("pause", "resume"):
        output.data(f"{agent} {action} {' '.join(answer['incarnations'])}".rstrip())
    else:
        output.say(f"no process of {agent} is running")


def _chosen(rows: list[dict[str, Any]], incarnation: str, agent: str) -> str:
    found = [row["incarnation"] for row in rows if row["incarnation"].startswith(incarnation)]
    if len(found) != 1:
        raise NotFound(
            f"{agent} has {len(found)} processes that begin with {incarnation}",
            hint=f"see agent2389 agent show {agent}",
        )
    return str(found[0])


async def _processes(client: Client, path: str) -> list[dict[str, Any]]:
    try:
        return list((await client.get(path))["incarnations"])
    except NotFound:
        return []  # nobody of that name was seen today; the ledger may know it all the same


async def _until_done(
    client: Client, path: str, answer: dict[str, Any], known: set[str], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    concerned = set(answer["incarnations"])
    while not _is_done(answer["action"], await _processes(client, path), concerned, known):
        if time.monotonic() > deadline:
            raise DrainTimedOut(
                f"{answer['agent_id']} did not {answer['action']} within {seconds:g} s",
                hint=f"the ledger keeps the command; see agent2389 agent show {answer['agent_id']}",
            )
        await asyncio.sleep(LOOK_SECONDS)


def _is_done(action: str, rows: list[dict[str, Any]], concerned: set[str], known: set[str]) -> bool:
    states = {row["incarnation"]: row["state"] for row in rows}
    mine = [states.get(incarnation, "lost") for incarnation in concerned]
    match action:
        case "pause":
            return all(state in ("paused", *GONE) for state in mine)
        case "resume":
            return all(state in ("running", *GONE) for state in mine)
        case "restart":
            new = [row for row in rows if row["incarnation"] not in known and row["state"] == "running"]
            return all(state in GONE for state in mine) and len(new) >= len(concerned)
        case _:
            return all(state in GONE for state in mine)


async def pools(api: str | None, *, as_json: bool) -> None:
    """Work and workers by capability."""
    async with connected(api) as client:
        rows = (await client.get("/api/v1/pools"))["data"]
    if as_json:
        output.document(rows)
        return
    shown = [
        (
            row["pool"],
            row["queued"],
            row["running"],
            row["agents"],
            row["free_slots"],
            output.seconds(row["oldest_seconds"]) if row["queued"] else None,
        )
        for row in rows
    ]
    output.table(shown, ("pool", "queued", "running", "agents", "free", "oldest"))


# logs ------------------------------------------------------------------------------------


async def logs(
    agent: str, *, data: Path | None, lines: int, follow: bool, url: str | None, as_jsonl: bool
) -> None:
    """The last log lines of an agent: of the mesh on this machine, or of the process at ``url``."""
    if url is not None:
        if follow:
            raise InputRefused("invalid", "--follow reads the log of a mesh on this machine, not --url")
        found = await _asked(url, lines)
        _print(found, as_jsonl=as_jsonl)
        return
    path = _log_file((data or load_process().data) / "logs", agent)
    with path.open("rb") as file:
        _print(_tail(file.read(), lines), as_jsonl=as_jsonl)
        while follow:
            for line in file.read().decode("utf-8", "replace").splitlines():
                output.data(line if as_jsonl else _for_people(line))
            await asyncio.sleep(FOLLOW_SECONDS)


def _tail(content: bytes, lines: int) -> list[str]:
    return content[-TAIL_BYTES:].decode("utf-8", "replace").splitlines()[-lines:]


def _log_file(folder: Path, agent: str) -> Path:
    """The log named like the agent, else the one in which it speaks: a file may have another name."""
    mark = f'"agent_id": "{agent}"'.encode()
    named = [path for path in sorted(folder.glob("*.log")) if path.stem == agent]
    for path in named or _speaking(folder, mark):
        return path
    raise NotFound(
        f"no log of {agent} is in {folder}",
        hint="an agent elsewhere: --url http://HOST:PORT of its health endpoint, or its platform's logs",
    )


def _speaking(folder: Path, mark: bytes) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*.log")) if mark in path.read_bytes()[:TAIL_BYTES])


async def _asked(url: str, lines: int) -> list[str]:
    process = load_process()
    token = process.health.token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        timeout = aiohttp.ClientTimeout(10)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as http,
            http.get(f"{url.rstrip('/')}/logs", params={"lines": str(lines)}) as response,
        ):
            if response.status != 200:
                raise NotFound(f"{url}/logs answers HTTP {response.status}", hint="set AGENT2389_TOKEN")
            return list((await response.json())["lines"])
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unreachable("agent", f"{url} does not answer ({type(error).__name__})") from None


def _print(lines: list[str], *, as_jsonl: bool) -> None:
    for line in lines:
        output.data(line if as_jsonl else _for_people(line))


def _for_people(line: str) -> str:
    """A JSON line as time, level, event and the rest; any other line as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    said = {key: value for key, value in entry.items() if key not in ("ts", "level", "event", "agent_id")}
    rest = " ".join(f"{key}={value}" for key, value in said.items())
    return f"{str(entry.get('ts', ''))[11:23]}  {entry.get('level', ''):8} {entry['event']}  {rest}".rstrip()
