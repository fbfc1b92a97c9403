"""The ops process: health and API, intake, upkeep."""

import asyncio
import contextlib

import structlog
from aiohttp import web

from agent2389 import __version__
from agent2389.broker.port import Connection, Message
from agent2389.config.process import OPS_PORT, ProcessConfiguration
from agent2389.errors import Agent2389Error, Unreachable
from agent2389.insight.health import Health
from agent2389.insight.probes import add_probes
from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.patience import until_reachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Submitted
from agent2389.ledger.states import AgentState
from agent2389.ops.app import build_app
from agent2389.ops.dependencies import Dependencies
from agent2389.telemetry.logs import configure_logging, register_secret
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.accept import accept_document
from agent2389.upkeep.chores import Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.foreign import Foreign
from agent2389.upkeep.intake import Intake
from agent2389.upkeep.reconcile import Reconciler
from agent2389.upkeep.roster import RosterTeller
from agent2389.upkeep.webhook import receiver_of
from agent2389.wire.names import new_uuid7
from agent2389.wire.topics import MeshTopics
from agent2389.wiring.servers import (
    announce_mesh,
    check_mesh,
    http_server,
    needs_token,
    on_stop_signals,
    open_broker,
    open_ledger,
    watch_servers,
)
from agent2389.wiring.telling import telling

BEAT_SECONDS = 10.0
FIRST_CONNECT_SECONDS = 3.0

log = structlog.get_logger(__name__)


async def run_ops(configuration: ProcessConfiguration) -> None:
    """Run the ops service until it is told to stop."""
    configure_logging(configuration.logging.level, configuration.logging.format)
    token = configuration.health.token
    register_secret(token.get_secret_value() if token else None)
    stop = asyncio.Event()
    on_stop_signals(stop.set)
    serve = asyncio.create_task(_serve(configuration), name="ops")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({serve, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not serve.done():
        serve.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serve
    log.info("ops stopped")


async def _serve(configuration: ProcessConfiguration) -> None:
    structlog.contextvars.bind_contextvars(agent_id="ops")
    metrics, health = Metrics(__version__), Health()
    # A wrong address is told at once, not when the ledger has come.
    broker = open_broker(configuration.mqtt, production=configuration.is_production)
    receiver = receiver_of(
        configuration.webhook,
        production=configuration.is_production,
        proxy=configuration.network.proxy,
    )
    ledger = await _first_ledger(configuration, metrics, health)
    incarnation = new_uuid7()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(broker.close)
        connection = await broker.connect(f"ops-{incarnation}")
        intake_connection = await broker.connect(f"ops-{incarnation}-intake", manual_acknowledgement=True)
        watch_servers(health, metrics, ledger, connection)
        dispatcher = Dispatcher(ledger, connection)
        foreign = Foreign(
            ledger, connection, dispatcher, answer_seconds=configuration.mqtt.foreign_answer_secs
        )
        intake = Intake(
            ledger,
            intake_connection,
            dispatcher,
            on_dropped=lambda reason: metrics.dropped.labels(reason).inc(),
            on_submitted=lambda _, source: metrics.submitted.labels(source).inc(),
        )
        secret = configuration.health.token
        manager = configuration.manager_token

        async def submit(body: bytes, job_id: str | None) -> Submitted:
            return await accept_document(ledger, body, source="http", job_id=job_id)

        app = build_app(
            Dependencies(
                ledger=ledger,
                submit=submit,
                dispatcher=dispatcher,
                health=health,
                metrics=metrics,
                token=secret.get_secret_value() if secret else None,
                manager_token=manager.get_secret_value() if manager else None,
                token_required=needs_token(configuration.health),
            )
        )
        with contextlib.suppress(Unreachable):
            # HTTP works without a broker; connections come back by themselves.
            await connection.wait_connected(FIRST_CONNECT_SECONDS)
            await check_mesh(connection, ledger)
        await until_reachable(lambda: _register(ledger, incarnation))
        reconciler = Reconciler(ledger, connection, dispatcher)
        await _keep_announced(connection, ledger, reconciler)
        await intake.serve_pools()
        await intake.serve_protocol()
        await foreign.neighbours.follow_all()
        teller = RosterTeller(foreign.neighbours, connection, ledger.tenant)
        notifier = None
        if receiver is not None:
            notifier = await stack.enter_async_context(telling(receiver, ledger, metrics, health))
        port = await stack.enter_async_context(http_server(app, configuration.health, OPS_PORT))
        health.started_up = True
        log.info("ops runs", port=port, version=__version__)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_beats(ledger, incarnation), name="ops-beat")
                group.create_task(dispatcher.run(), name="ops-dispatch")
                chores = Chores(ledger, dispatcher, foreign=foreign, reconciler=reconciler)
                group.create_task(chores.run(), name="ops-chores")
                group.create_task(intake.run(), name="ops-intake")
                group.create_task(reconciler.run(), name="ops-reconcile")
                group.create_task(teller.run(), name="ops-roster")
                if notifier is not None:
                    group.create_task(notifier.run(), name="ops-webhook")
        finally:
            await asyncio.shield(_leave(ledger, connection, dispatcher, incarnation))


async def _first_ledger(configuration: ProcessConfiguration, metrics: Metrics, health: Health) -> Ledger:
    """Open the ledger; while it is away the probes are served all the same."""
    reason = "starting"

    async def waiting() -> str:
        raise Unreachable("ledger", reason)

    health.add("ledger", waiting)
    probes = web.Application()
    add_probes(probes, health, metrics)

    def note(text: str) -> None:
        nonlocal reason
        reason = text

    ready = asyncio.create_task(open_ledger(configuration.ledger, role="agent2389_operator", tell=note))

    done, _ = await asyncio.wait({ready}, timeout=0.5)
    if not done:
        async with http_server(probes, configuration.health, OPS_PORT):
            try:
                await asyncio.wait({ready})
            finally:
                ready.cancel()
    return await ready


async def _keep_announced(connection: Connection, ledger: Ledger, reconciler: Reconciler) -> None:
    """After every connection: whose mesh this is, and whether the broker still holds the board."""

    async def announce() -> None:
        await announce_mesh(connection, ledger)
        reconciler.broker_is_back()

    connection.on_connected(announce)
    if connection.state.connected:
        await announce()


async def _register(ledger: Ledger, incarnation: str) -> None:
    await ledger.register(
        AgentRecord(
            agent_id="ops",
            incarnation=incarnation,
            capabilities=(),
            role="ops",
            slots=0,
            version=__version__,
        )
    )
    await _beat(ledger, incarnation)


async def _beats(ledger: Ledger, incarnation: str) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        try:
            await _beat(ledger, incarnation)
        except Unreachable as error:
            log.warning("beat missed", reason=str(error))


async def _beat(ledger: Ledger, incarnation: str) -> None:
    await ledger.beat(Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=0))


async def _leave(ledger: Ledger, connection: Connection, dispatcher: Dispatcher, incarnation: str) -> None:
    """The last ops that stops cleanly clears the mesh's identity from the broker."""
    try:
        await ledger.stopped(incarnation)
        await dispatcher.send_leftovers()
        await dispatcher.flush()
        if not any(row.role == "ops" and row.state is AgentState.RUNNING for row in await ledger.agents()):
            await connection.publish(Message(MeshTopics(ledger.tenant).mesh(), b"", retain=True))
    except Agent2389Error as error:
        log.warning("left without saying goodbye", reason=str(error))
