"""What `doctor` looks at, and how it tells."""

import contextlib
from pathlib import Path

import msgspec

from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection
from agent2389.cli import output
from agent2389.config.process import ProcessConfiguration, load_process
from agent2389.errors import Agent2389Error, ConfigurationError, NotFound
from agent2389.launch.folder import MeshFile, read_mesh
from agent2389.ledger.soundings import Soundings, hears_notifications, sound
from agent2389.proving.doctor import (
    Check,
    Diagnosis,
    Warned,
    configuration_checks,
    examine,
    ledger_checks,
    names,
)
from agent2389.proving.doctor_broker import broker_checks
from agent2389.telemetry.logs import configure_logging
from agent2389.wire.names import new_uuid7
from agent2389.wiring.servers import open_broker

CONNECT_SECONDS = 6.0
LOCAL = Path("broker") / "mosquitto.conf"
"""Where `up` writes the configuration of its broker, below the data folder."""


class NotHealthy(Agent2389Error):
    """Something below the mesh will hurt it."""

    exit_code = 5


class _Database:
    """``proving.doctor.LedgerDoor`` on a DSN."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def sound(self) -> Soundings:
        """Clock, identity, twins."""
        return await sound(self._dsn)

    async def hears_notifications(self) -> bool:
        """Whether LISTEN works there."""
        return await hears_notifications(self._dsn)


async def doctor(*, broker_config: Path | None, as_json: bool) -> None:
    """Examine the servers of the environment, or of the mesh that runs on the data folder."""
    configure_logging("critical", "pretty")  # a connection that breaks is a finding, not a log line
    process = load_process()
    mesh = _running_mesh(process)
    skipped: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        ledger, mesh_id = await _ledger_checks(process, mesh, skipped)
        broker = await _broker_checks(process, mesh, mesh_id, skipped, stack)
        file = _file_checks(process, broker_config, skipped)
        diagnosis = await examine(names((ledger, broker, file)), skipped)
    _tell(diagnosis, as_json=as_json)


async def _ledger_checks(
    process: ProcessConfiguration, mesh: MeshFile | None, skipped: dict[str, str]
) -> tuple[dict[str, Check], str | None]:
    """Checks of the ledger, and its mesh id where it answers."""
    given = process.ledger.database_url
    dsn = given.get_secret_value() if given else mesh.database_url if mesh else None
    if dsn is None:
        skipped["ledger"] = "DATABASE_URL is not set and no mesh runs here"
        return {}, None
    door = _Database(dsn)
    try:
        mesh_id = (await door.sound()).mesh_id
    except Agent2389Error as error:
        return {"ledger": _failed("ledger", error, "check DATABASE_URL and the server")}, None
    direct = process.ledger.listen_url
    return ledger_checks(door, _Database(direct.get_secret_value()) if direct else None), mesh_id


async def _broker_checks(
    process: ProcessConfiguration,
    mesh: MeshFile | None,
    mesh_id: str | None,
    skipped: dict[str, str],
    stack: contextlib.AsyncExitStack,
) -> dict[str, Check]:
    section = process.mqtt
    if "broker_url" not in section.model_fields_set:
        if mesh is None:
            skipped["broker"] = "MQTT_BROKER_URL is not set and no mesh runs here"
            return {}
        section = section.model_copy(update={"broker_url": mesh.broker_url})
    if mesh_id is None:
        skipped["one mesh"] = "no ledger to compare the broker with"
    broker: MqttBroker = open_broker(section)
    stack.push_async_callback(broker.close)

    async def connect(name: str, *, manual: bool = False) -> Connection:
        client_id = f"doctor-{name}-{new_uuid7()}"
        connection = await broker.connect(client_id, manual_acknowledgement=manual)
        await connection.wait_connected(CONNECT_SECONDS)
        return connection

    try:
        await connect("reach")
    except Agent2389Error as error:
        return {"broker": _failed("broker", error, "check MQTT_BROKER_URL and the broker")}
    return broker_checks(connect, process.tenant, mesh_id)


def _file_checks(
    process: ProcessConfiguration, broker_config: Path | None, skipped: dict[str, str]
) -> dict[str, Check]:
    path = broker_config or process.data / LOCAL
    try:
        return configuration_checks(path.read_text(encoding="utf-8"))
    except OSError as error:
        if broker_config is not None:
            raise ConfigurationError(
                f"{path} cannot be read: {error.strerror}", hint="name the broker's mosquitto.conf"
            ) from None
        skipped["persistence"] = "no client can see it; name the broker's file with --broker-config"
        return {}


def _failed(name: str, error: Agent2389Error, hint: str) -> Check:
    async def check() -> Warned | None:
        return Warned(name, str(error), error.hint or hint)

    return check


def _running_mesh(process: ProcessConfiguration) -> MeshFile | None:
    try:
        return read_mesh(process.data)
    except NotFound:
        return None


def _tell(diagnosis: Diagnosis, *, as_json: bool) -> None:
    if as_json:
        output.document(msgspec.to_builtins(diagnosis), healthy=diagnosis.is_healthy)
    else:
        for warned in diagnosis.warnings:
            output.data(f"{'note' if warned.harmless else 'warning':7}  {warned.check}: {warned.message}")
            output.data(f"         {warned.hint}")
        for name in diagnosis.passed:
            output.say(f"ok       {name}")
        for name, reason in diagnosis.skipped.items():
            output.say(f"skipped  {name}: {reason}")
    if not diagnosis.is_healthy:
        count = sum(not warned.harmless for warned in diagnosis.warnings)
        raise NotHealthy(f"{count} warning{'s' if count != 1 else ''}", hint="each line says the next step")
