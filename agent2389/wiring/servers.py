"""What every process opens: ledger, broker, HTTP server, signals, the mesh's identity."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from agent2389 import __version__
from agent2389.broker.address import BrokerAddress, is_loopback, parse_broker_url
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection, Delivery, Message
from agent2389.config.model import HealthSection, LedgerSection, MqttSection
from agent2389.errors import ConfigurationError, Conflict
from agent2389.insight.bodies import SERVED_UNDECODED
from agent2389.insight.health import Degraded, Health
from agent2389.ledger.patience import until_reachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.postgres import PostgresLedger
from agent2389.telemetry import children
from agent2389.telemetry.logs import register_secret
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.chores import INTERVALS
from agent2389.wire.mesh import Mesh, encode, read_mesh
from agent2389.wire.topics import MeshTopics

MESH_SECONDS = 0.3
"""How long a retained message may take after its subscription was granted."""


async def open_ledger(
    section: LedgerSection,
    *,
    role: str | None,
    tell: Callable[[str], None],
    lease_seconds: float = 30.0,
) -> Ledger:
    """Connect, and go on trying while the database is away; ``tell`` hears why it takes so long.

    Raises ``ConfigurationError`` without a DSN or with a schema too old, ``NotAllowed`` for a bad login.
    """
    if section.database_url is None:
        raise ConfigurationError(
            "no ledger is configured",
            hint='set DATABASE_URL, or join a mesh that runs here: eval "$(agent2389 up --print-env)"',
        )
    dsn = section.database_url.get_secret_value()
    register_secret(dsn)
    ledger = await until_reachable(
        lambda: PostgresLedger.open(dsn, role=role, lease_seconds=lease_seconds), tell
    )
    ledger.expect_chores(INTERVALS)
    return ledger


def open_broker(section: MqttSection, *, production: bool = False) -> MqttBroker:
    """The broker of a configuration; it connects when asked for a connection."""
    return MqttBroker(broker_address(section, production=production))


def broker_address(section: MqttSection, *, production: bool = False) -> BrokerAddress:
    """Where the broker of a configuration is. Raises ``ConfigurationError``."""
    password = section.password.get_secret_value() if section.password else None
    register_secret(password)
    return parse_broker_url(
        section.broker_url,
        username=section.username,
        password=password,
        ca_file=section.ca_file,
        client_cert=section.client_cert,
        client_key=section.client_key,
        insecure_ok=section.insecure_ok,
        production=production,
    )


async def check_mesh(connection: Connection, ledger: Ledger) -> None:
    """Refuse to work when the tenant's topics on this broker belong to another ledger.

    Raises ``Conflict`` whose hint is the command that clears the topic.
    """
    topic = MeshTopics(ledger.tenant).mesh()
    found: list[Mesh] = []

    async def on_mesh(delivery: Delivery) -> None:
        mesh = read_mesh(delivery.payload)
        if mesh is not None:
            found.append(mesh)

    await connection.subscribe(topic, on_mesh)
    await asyncio.sleep(MESH_SECONDS)
    await connection.unsubscribe(topic)
    own = await ledger.mesh_id()
    if found and found[-1].mesh_id != own:
        raise Conflict(
            f"tenant {ledger.tenant} on this broker belongs to another ledger ({found[-1].mesh_id})",
            hint=f"use another tenant, or clear it: mosquitto_pub -r -n -t {topic}",
        )


async def announce_mesh(connection: Connection, ledger: Ledger) -> None:
    """Say which ledger the tenant belongs to (retained)."""
    body = encode(Mesh(await ledger.mesh_id(), __version__))
    await connection.publish(Message(MeshTopics(ledger.tenant).mesh(), body, retain=True))


@contextlib.asynccontextmanager
async def http_server(app: web.Application, section: HealthSection, default_port: int) -> AsyncIterator[int]:
    """Serve ``app`` for the time of the block and tell the port.

    ``default_port`` gives way to a free one when taken; a port that was asked for does not
    (``ConfigurationError``).
    """
    port = section.port
    if port is None:
        port = default_port if children.is_free(default_port, section.bind) else 0
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, **SERVED_UNDECODED)
    await runner.setup()
    try:
        site = web.TCPSite(runner, section.bind, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve HTTP on {section.bind}:{port}: {error.strerror}",
                hint="choose another HEALTH_PORT; 0 takes a free one",
            ) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def needs_token(section: HealthSection) -> bool:
    """Off loopback only probes work without a token."""
    return not is_loopback(section.bind)


def on_stop_signals(act: Callable[[], None]) -> None:
    """Call ``act`` at every SIGTERM and SIGINT of this process."""
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, act)


def watch_servers(health: Health, metrics: Metrics, ledger: Ledger, connection: Connection) -> None:
    """The two checks every process has: the ledger decides readiness, the broker does not."""
    metrics.mqtt_connected.set_function(lambda: connection.state.connected)

    async def ledger_answers() -> str:
        await ledger.check()
        return "answers"

    async def broker_connected() -> str:
        state = connection.state
        if not state.connected:
            raise Degraded(f"not connected: {state.last_error or 'no answer yet'}; work is found by polling")
        if state.refusal:
            raise Degraded(f"connected, but {state.refusal}; results wait in the ledger")
        return f"connected, MQTT {state.protocol}"

    health.add("ledger", ledger_answers)
    health.add("mqtt", broker_connected, required=False)
