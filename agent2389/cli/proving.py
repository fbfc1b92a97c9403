"""Verbs that prove things: fsck, chaos, sim."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection
from agent2389.cli import output
from agent2389.config.model import LedgerSection, MqttSection
from agent2389.config.process import ProcessConfiguration, load_process
from agent2389.errors import Agent2389Error, ConfigurationError, Conflict, NotFound
from agent2389.launch.folder import MeshFile, read_mesh
from agent2389.ledger.inspection import Inspector, Problem
from agent2389.ledger.port import Ledger
from agent2389.proving.chaos import Run, to_line
from agent2389.proving.fsck import Report, inspect
from agent2389.proving.plan import Plan
from agent2389.proving.sim import SimPlan
from agent2389.proving.sim_seeds import Sums, play
from agent2389.telemetry.logs import configure_logging
from agent2389.wire.names import new_uuid7
from agent2389.wiring.servers import open_broker, open_ledger

CONNECT_SECONDS = 10.0


class NotClean(Agent2389Error):
    """Something that must hold does not."""

    exit_code = 1


class NotPassed(Agent2389Error):
    """A fault run broke a promise, or proved too little."""

    exit_code = 1


class RealDoors:
    """The real adapters for a fault run."""

    def __init__(self) -> None:
        self._brokers: list[MqttBroker] = []

    async def ledger(self, dsn: str, lease_seconds: float) -> Ledger:
        """An agent's view of the ledger."""
        section = LedgerSection.model_validate({"database_url": dsn})
        return await open_ledger(
            section, role="agent2389_agent", tell=output.say, lease_seconds=lease_seconds
        )

    async def inspector(self, dsn: str) -> Inspector:
        """An operator's view of it."""
        return await Inspector.open(dsn)

    async def connection(self, url: str, name: str) -> Connection:
        """A broker connection that comes back by itself."""
        broker = open_broker(MqttSection(broker_url=url))
        self._brokers.append(broker)
        return await broker.connect(f"{name}-{new_uuid7()}")

    async def close(self) -> None:
        """Close all connections."""
        for broker in self._brokers:
            await broker.close()


async def chaos(plan: Plan, *, keep: bool) -> None:
    """Run it; the figures go to stdout as one line of JSON."""
    configure_logging("error", "pretty")
    plan.data.mkdir(parents=True, exist_ok=True)
    if any(plan.data.iterdir()):
        # A ledger that knows the jobs already would answer all of them at once.
        raise Conflict(f"{plan.data} is not empty", hint="choose a new folder for --data")
    try:
        figures = await Run(plan, RealDoors(), output.say).go()
    except BaseException:
        output.say(f"logs are in {plan.data / 'logs'}")
        raise
    output.data(to_line(figures))
    if not figures.passed:
        raise NotPassed("; ".join(figures.reasons), hint=f"logs are in {plan.data / 'logs'}")
    if not keep:
        _remove(plan.data)


def scratch_folder() -> Path:
    """A new folder for a run that nobody wants to keep."""
    return Path(tempfile.mkdtemp(prefix="agent2389-chaos-"))


def _remove(data: Path) -> None:
    """The folder, and the database that stands elsewhere when root started it."""
    location = data / "postgres.location"
    place = Path(location.read_text(encoding="utf-8").strip()) if location.exists() else data
    for folder in {place, data}:
        shutil.rmtree(folder, ignore_errors=True)


def sim(seeds: range, plan: SimPlan, log: Path | None) -> None:
    """Play the seeds on clocks of their own; what must not be is told with the way to play it again."""
    sums = Sums()
    with log.open("w", encoding="utf-8") if log else contextlib.nullcontext() as file:
        for outcome in play(seeds, plan):
            sums.add(outcome)
            if file is not None:
                file.write(f"seed {outcome.seed}\n" + "".join(f"{line}\n" for line in outcome.log))
            for problem in outcome.found:
                output.say(f"seed {outcome.seed}: {problem}")
            if outcome.found:
                output.say(f"play it again: {outcome.replay(plan)}")
    figures = sums.figures()
    output.data(msgspec.json.encode(figures).decode())
    if figures.failed_seeds:
        raise NotPassed(
            f"{len(figures.failed_seeds)} of {figures.seeds} seeds broke a promise",
            hint=f"agent2389 sim --seed {figures.failed_seeds[0]} --log FILE writes every step",
        )


async def fsck(*, quiet_wait: float, repair: bool, as_json: bool) -> None:
    """Check the ledger, and the broker against it where one is named."""
    configure_logging("error", "pretty")
    process = load_process()
    mesh = running_mesh(process)
    async with contextlib.AsyncExitStack() as stack:
        inspector = await Inspector.open(database_of(process, mesh))
        stack.push_async_callback(inspector.close)
        connection = await stack.enter_async_context(_connection(process, mesh))
        report = await inspect(inspector, connection, quiet_wait=quiet_wait, repair=repair)
    if as_json:
        output.document(msgspec.to_builtins(report), clean=report.is_clean)
    else:
        _show(report)
    if not report.is_clean:
        count = sum(item.times for item in report.violations)
        hint = None if repair else "what needs no guess is set right by: agent2389 fsck --repair"
        raise NotClean(f"{count} violation{'s' if count != 1 else ''}", hint=hint)


def running_mesh(process: ProcessConfiguration) -> MeshFile | None:
    """The mesh on the data folder, for what the environment does not name."""
    if process.ledger.database_url is not None:
        return None
    try:
        return read_mesh(process.data)
    except NotFound:
        return None


def database_of(process: ProcessConfiguration, mesh: MeshFile | None) -> str:
    """The ledger that the environment names, else that of the mesh. Raises ``ConfigurationError``."""
    if process.ledger.database_url is not None:
        return process.ledger.database_url.get_secret_value()
    if mesh is not None:
        return mesh.database_url
    raise ConfigurationError(
        "DATABASE_URL is not set and no mesh runs here",
        hint="export DATABASE_URL=postgresql://…, or name the mesh's folder with AGENT2389_DATA",
    )


@contextlib.asynccontextmanager
async def _connection(
    process: ProcessConfiguration, mesh: MeshFile | None
) -> AsyncIterator[Connection | None]:
    """A connection to the broker, or none where no broker is named."""
    section = process.mqtt
    if "broker_url" not in section.model_fields_set:
        if mesh is None:
            yield None
            return
        section = section.model_copy(update={"broker_url": mesh.broker_url})
    broker: MqttBroker = open_broker(section)
    try:
        connection = await broker.connect(f"fsck-{new_uuid7()}")
        await connection.wait_connected(CONNECT_SECONDS)
        yield connection
    finally:
        await broker.close()


def _show(report: Report) -> None:
    for label, problems in (("violation", report.violations), ("settling", report.settling)):
        for item in problems:
            output.data(f"{label:9}  {_line(item)}")
    for name, done in report.repaired.items():
        output.say(f"repaired: {name.replace('_', ' ')} {done}")
    for invariant, reason in sorted(report.not_checked.items()):
        output.say(f"not checked: {invariant}, {reason}")
    if report.is_clean:
        output.say(f"clean in {report.seconds:g} s" + (", still settling" if report.settling else ""))


def _line(item: Problem) -> str:
    more = f" (and {item.times - 1} more like it)" if item.times > 1 else ""
    return f"{item.invariant:3}  {item.subject}  {item.message}{more}"
