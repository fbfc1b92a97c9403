"""Verbs for a mesh on this machine: up, down, run, ops, healthcheck, db."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from agent2389.cli import output
from agent2389.config.load import find_file, load_agent, require_key
from agent2389.config.process import AGENT_PORT, ProcessConfiguration, load_process
from agent2389.errors import Agent2389Error, ConfigurationError, NotFound
from agent2389.launch.folder import MeshFile, in_use, is_held, read_mesh, writing
from agent2389.telemetry.imports import without

DETACH_SECONDS = 60.0
DOWN_SECONDS = 40.0


def up(data: Path | None, agents: Path | None, *, detach: bool, print_env: bool) -> None:
    """Run a whole mesh here until Ctrl-C."""
    from agent2389.launch import mesh as launch  # noqa: PLC0415 - --print-env stays fast
    from agent2389.telemetry.logs import configure_logging  # noqa: PLC0415 - the same

    process = load_process()
    folder = data or process.data
    if print_env:
        for name, value in launch.print_env(read_mesh(folder)).items():
            output.data(f"export {name}={shlex.quote(value)}")
        return
    if detach:
        _detach(folder)
        return
    started = time.monotonic()

    def ready(mesh: MeshFile) -> None:
        took = time.monotonic() - started
        output.say(f"up in {took:.1f} s · broker: {mesh.broker} at {mesh.broker_url}")
        output.say(f"model: {launch.model_label(dict(os.environ))}")
        output.say(f"data and logs in {folder} · Ctrl-C stops everything")
        output.say(f'more agents: eval "$(agent2389 up --data {shlex.quote(str(folder))} --print-env)"')
        output.data(mesh.api)
        sys.stdout.flush()

    # What goes on is told in lines of its own; the processes have their log files.
    configure_logging("error", process.logging.format)
    options = launch.options_of(process, data=data, agents=agents)
    asyncio.run(launch.run_mesh(options, output.say, ready))


def _detach(folder: Path) -> None:
    if is_held(folder):
        # Before the log is opened: it belongs to the mesh that runs.
        raise in_use(folder)
    arguments = [item for item in sys.argv[1:] if item != "--detach"]
    log_file = folder / "logs" / "up.log"
    with writing(folder):
        log_file.parent.mkdir(exist_ok=True)
        log = log_file.open("ab")
    with log:
        began = log.tell()
        child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "agent2389", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + DETACH_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            # Not what earlier starts wrote, such as the address they had.
            output.say(log_file.read_bytes()[began:].decode("utf-8", "replace").strip())
            raise SystemExit(child.returncode or 1)
        try:
            mesh = read_mesh(folder)
        except NotFound:
            time.sleep(0.05)
            continue
        if mesh.pid == child.pid:
            output.data(mesh.api)
            return
    raise Agent2389Error("the mesh did not come up in time", hint=f"see {log_file}")


def down(data: Path | None) -> None:
    """Stop the mesh that runs on the data folder."""
    folder = data or load_process().data
    if not is_held(folder):
        raise NotFound(f"no mesh runs on {folder}")
    pid = int((folder / "lock").read_text(encoding="utf-8").strip())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while is_held(folder):
        if time.monotonic() > deadline:
            raise Agent2389Error(f"process {pid} still runs", hint=f"see {folder}/logs")
        time.sleep(0.05)
    output.say("down")


def run(file: Path | None) -> None:
    """Run one agent until it is told to stop."""
    with without("rich"):  # structlog looks for it, to print tracebacks that our log has as text
        from agent2389.wiring.agent import run_agent  # noqa: PLC0415 - only this verb needs it

    loaded = load_agent(file or find_file(os.environ))
    require_key(loaded)
    for warning in loaded.warnings:
        output.say(f"warning: {warning.key}: {warning.reason}")
    asyncio.run(run_agent(loaded.configuration))


def ops() -> None:
    """Run the ops service until it is told to stop."""
    from agent2389.wiring.ops import run_ops  # noqa: PLC0415 - only this verb needs it

    asyncio.run(run_ops(load_process()))


def healthcheck(api: str | None, path: str) -> None:
    """Ask the process on HEALTH_PORT here, else the API that is named; exit 0 when it answers 200."""
    process = load_process()
    bind = process.health.bind
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(bind, bind)  # noqa: S104 - translated, not bound
    # A container has its own HEALTH_PORT, and may know the API of ops besides.
    address = api or (None if process.health.port else process.api)
    address = address or f"http://{host}:{process.health.port or AGENT_PORT}"
    asyncio.run(_healthcheck(address.rstrip("/") + path))


async def _healthcheck(url: str) -> None:
    try:
        timeout = aiohttp.ClientTimeout(5)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as response:
            if response.status == 200:
                return
            reason = f"{url} answers HTTP {response.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        reason = f"{url} does not answer ({type(error).__name__})"
    raise NotFound(
        reason,
        hint="name the process by HEALTH_PORT or AGENT2389_API; "
        'for a mesh that runs here: eval "$(agent2389 up --print-env)"',
    )


async def database(action: str, *, as_json: bool) -> None:
    """``db migrate`` and ``db status``."""
    from agent2389.ledger.migrate import migrate, status  # noqa: PLC0415 - only this verb needs it

    dsn = _dsn(load_process())
    if action == "migrate":
        done = await migrate(dsn)
        if as_json:
            output.document(done)
        else:
            output.say(f"{len(done)} applied" if done else "nothing to do")
        return
    applied, missing = await status(dsn)
    if as_json:
        output.document({"applied": applied, "missing": missing})
        return
    rows: list[tuple[Any, ...]] = [(name, "applied") for name in applied]
    output.table(rows + [(name, "missing") for name in missing], ("migration", "state"))


def _dsn(process: ProcessConfiguration) -> str:
    if process.ledger.database_url is None:
        raise ConfigurationError("DATABASE_URL is not set", hint="export DATABASE_URL=postgresql://…")
    return process.ledger.database_url.get_secret_value()
