"""One agent process, opened in order and closed in reverse."""

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web

from agent2389 import __version__
from agent2389.agent.http import AgentFace, add_face
from agent2389.agent.parts import Parts
from agent2389.agent.presence import Announcer
from agent2389.agent.routing import JournaledModel
from agent2389.agent.task import TaskRun
from agent2389.agent.worker import Worker
from agent2389.broker.reach import echo
from agent2389.config.model import AgentConfiguration, ApprovalsSection
from agent2389.config.process import AGENT_PORT
from agent2389.config.profiles import load_profiles
from agent2389.errors import ConfigurationError, RunFailed, Unreachable
from agent2389.insight import commands
from agent2389.insight.health import Health
from agent2389.insight.jobs import wait_for_end
from agent2389.insight.probes import add_probes
from agent2389.ledger.port import Ledger
from agent2389.llm.open import Models
from agent2389.llm.prices import Prices
from agent2389.router.build import build_fixed_router, build_router
from agent2389.router.policy import load_policy
from agent2389.telemetry.logs import configure_logging, register_secret
from agent2389.telemetry.metrics import Metrics
from agent2389.tools.registry import ToolSet
from agent2389.upkeep.accept import accept_document
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.intake import Intake
from agent2389.upkeep.roster import RosterReader
from agent2389.wire.names import new_uuid7
from agent2389.wiring.counting import CountingObserver
from agent2389.wiring.memory import settle
from agent2389.wiring.model import usable_model
from agent2389.wiring.servers import (
    check_mesh,
    http_server,
    needs_token,
    on_stop_signals,
    open_broker,
    open_ledger,
    watch_servers,
)
from agent2389.wiring.transcripts import transcript_sink

SELF_TEST_SECONDS = 5.0
FIRST_CONNECT_SECONDS = 3.0
EXECUTE_SECONDS = 300.0
ACTOR = "api"
"""Who acts through /action, for the record, as over the API without a name."""

log = structlog.get_logger(__name__)


class _Process:
    """What the HTTP face and the signals share with the worker while it starts up."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.dispatcher: Dispatcher | None = None
        self.stop = asyncio.Event()
        self.waiting_for = "starting"
        self.restart = False

    def ask_stop(self) -> None:
        """SIGTERM: drain; before the worker runs: just end."""
        self.stop.set()
        if self.worker is not None:
            self.worker.ask_drain()

    def ask_restart(self) -> None:
        """Drain, then begin anew with the same arguments."""
        self.restart = True
        self.ask_stop()


async def run_agent(configuration: AgentConfiguration) -> None:
    """Run one agent until it is told to stop. An unreachable broker or ledger only makes it not ready."""
    configure_logging(configuration.logging.level, configuration.logging.format)
    for secret in (configuration.llm.api_key, configuration.health.token):
        register_secret(secret.get_secret_value() if secret else None)
    process = _Process()
    on_stop_signals(process.ask_stop)
    incarnation = new_uuid7()
    structlog.contextvars.bind_contextvars(agent_id=configuration.agent.id)
    metrics = Metrics(__version__)
    health = Health(
        agent_id=configuration.agent.id,
        state=lambda: process.worker.state if process.worker else "starting",
    )
    work = asyncio.create_task(_work(configuration, incarnation, process, health, metrics), name="agent")
    stopped = asyncio.create_task(process.stop.wait(), name="stop")
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done() and process.worker is None:
        work.cancel()  # nothing was claimed yet, so there is nothing to drain
    stopped.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    if process.restart:
        os.execv(sys.executable, [sys.executable, "-m", "agent2389", *sys.argv[1:]])  # noqa: S606


async def _work(
    configuration: AgentConfiguration,
    incarnation: str,
    process: _Process,
    health: Health,
    metrics: Metrics,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opened: list[Ledger] = []
        port = await stack.enter_async_context(
            http_server(
                _application(configuration, incarnation, process, health, metrics, opened),
                configuration.health,
                AGENT_PORT,
            )
        )
        log.info("agent starts", incarnation=incarnation, port=port, version=__version__)

        async def waiting() -> str:
            if process.waiting_for:
                raise Unreachable("startup", process.waiting_for)
            return "complete"

        health.add("startup", waiting)

        def tell(reason: str) -> None:
            process.waiting_for = reason

        # A wrong address or a missing SDK is told at once, not when the ledger has come.
        models = _models(configuration, stack)
        broker = open_broker(configuration.mqtt, production=configuration.environment == "production")
        ledger = await open_ledger(
            configuration.ledger,
            role="agent2389_agent",
            tell=tell,
            lease_seconds=configuration.worker.lease_seconds,
        )
        stack.push_async_callback(ledger.close)
        opened.append(ledger)
        _check_tenant(configuration, ledger)
        stack.push_async_callback(broker.close)
        announcer = Announcer(configuration, incarnation, await ledger.mesh_id())
        client_id = f"{configuration.agent.id}-{incarnation}"
        connection = await broker.connect(client_id, will=announcer.will())
        intake_connection = await broker.connect(f"{client_id}-intake", manual_acknowledgement=True)
        watch_servers(health, metrics, ledger, connection)
        dispatcher = process.dispatcher = Dispatcher(ledger, connection)
        tools = ToolSet(configuration, ledger.dossier)
        await tools.open()
        stack.push_async_callback(tools.close)
        _watch_tools(health, tools, configuration.approvals)
        roster = await RosterReader.listening(connection, ledger.tenant)
        sink = await stack.enter_async_context(transcript_sink(configuration, metrics))
        parts = msgspec.structs.replace(
            _parts(configuration, incarnation, models, tools, metrics),
            transcripts=sink.offer if sink else None,
            strangers=roster.strangers,
        )
        await stack.enter_async_context(usable_model(models, health, metrics, tell))
        with contextlib.suppress(Unreachable):
            # Without a broker the agent works all the same: it claims by polling.
            await connection.wait_connected(FIRST_CONNECT_SECONDS)
            await check_mesh(connection, ledger)
            await echo(connection, announcer.probe_topic, seconds=SELF_TEST_SECONDS)
        if tools.unavailable:
            process.waiting_for = "; ".join(f"{name}: {why}" for name, why in tools.unavailable.items())
            await process.stop.wait()
            return
        root = configuration.workspace_root or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="agent2389-", ignore_cleanup_errors=True))
        )
        worker = Worker(
            parts,
            ledger,
            connection,
            Intake(
                ledger,
                intake_connection,
                dispatcher,
                on_dropped=lambda reason: metrics.dropped.labels(reason).inc(),
                on_submitted=lambda _, source: metrics.submitted.labels(source).inc(),
            ),
            dispatcher,
            announcer,
            TaskRun(parts, ledger, dispatcher, root),
        )
        process.worker = worker
        process.waiting_for = ""
        health.started_up = True
        settle()
        log.info("agent runs", capabilities=list(configuration.agent.capabilities))
        if process.stop.is_set():
            return
        await worker.run()
        process.restart = process.restart or worker.restart_asked
    log.info("agent stopped")


def _models(configuration: AgentConfiguration, stack: contextlib.AsyncExitStack) -> Models:
    """The models of this process; the one that ``[llm]`` names is opened now."""
    models = Models(configuration.llm, proxy=configuration.network.proxy)
    stack.push_async_callback(models.close)
    models.main()
    return models


def _check_tenant(configuration: AgentConfiguration, ledger: Ledger) -> None:
    if configuration.agent.tenant != ledger.tenant:
        raise ConfigurationError(
            f"the file says tenant {configuration.agent.tenant}, the login belongs to {ledger.tenant}",
            hint="use a login of that tenant or change agent.tenant",
        )


def _application(
    configuration: AgentConfiguration,
    incarnation: str,
    process: _Process,
    health: Health,
    metrics: Metrics,
    opened: list[Ledger],
) -> web.Application:
    app = web.Application(client_max_size=512 * 1024)
    token = configuration.health.token
    secret = token.get_secret_value() if token else None
    if secret is None and needs_token(configuration.health):
        # Off loopback nothing but the probes works without a token, so make one nobody knows.
        secret = new_uuid7() + new_uuid7()

    async def extra() -> dict[str, Any]:
        worker = process.worker
        return (
            {}
            if worker is None
            else {"tasks_running": len(worker.task_ids), "tasks_total": worker.tasks_total}
        )

    async def refresh() -> dict[str, Any]:
        worker, agent = process.worker, configuration.agent
        ready, _ = await health.ready()
        busy = len(worker.task_ids) if worker else 0
        metrics.agent_ready.labels(agent.id).set(ready)
        metrics.agent_slots.labels(agent.id).set(agent.slots)
        metrics.agent_slots_busy.labels(agent.id).set(busy)
        metrics.task_running.labels(agent.id).set(min(busy, 1))
        return {}

    async def execute(parameters: dict[str, Any]) -> bytes | None:
        instruction = str(parameters.get("instruction") or parameters.get("prompt") or "Work on the input.")
        document = {"instruction": instruction, "input": parameters, "agent": configuration.agent.id}
        if not opened:
            raise Unreachable("ledger", process.waiting_for)
        submitted = await accept_document(opened[0], msgspec.json.encode(document))
        detail = await wait_for_end(opened[0], submitted.job_id, EXECUTE_SECONDS)
        return detail.final.encode() if detail.final else None

    async def keep(action: str) -> None:
        if not opened or process.dispatcher is None:
            raise Unreachable("ledger", process.waiting_for)
        command_id, agent_id = new_uuid7(), configuration.agent.id
        await commands.command(opened[0], command_id, agent_id, action, ACTOR)
        await process.dispatcher.publish(commands.hint(opened[0], command_id, agent_id, action))

    add_probes(app, health, metrics, extra=extra, refresh=refresh)
    add_face(
        app,
        AgentFace(
            configuration=configuration,
            incarnation=incarnation,
            worker=lambda: process.worker,
            execute=execute,
            keep=keep,
            restart=process.ask_restart,
            token=secret,
        ),
    )
    return app


def _parts(
    configuration: AgentConfiguration,
    incarnation: str,
    models: Models,
    tools: ToolSet,
    metrics: Metrics,
) -> Parts:
    routing = configuration.routing
    policy = load_policy(routing.policy)
    prices = Prices(configuration.prices, configuration.llm)
    return Parts(
        configuration=configuration,
        incarnation=incarnation,
        model=models.main(),
        router=build_router(
            routing,
            policy,
            lambda: JournaledModel(models.routing(routing.llm), prices),
            proxy=configuration.network.proxy,
        ),
        fixed_router=build_fixed_router(),
        tools=tools,
        model_for_job=models.for_job,
        observer=CountingObserver(metrics, configuration.agent.id),
        profiles=load_profiles(configuration.agent.profiles),
    )


def _watch_tools(health: Health, tools: ToolSet, approvals: ApprovalsSection) -> None:
    for name in tools.unknown(approvals):
        log.warning("[approvals] names a tool that is not here", tool=name, hint="agent2389 tools list")

    async def tools_ready() -> str:
        if tools.unavailable:
            raise RunFailed("; ".join(f"{name}: {why}" for name, why in tools.unavailable.items()))
        skipped = "; ".join(f"{name} skipped: {why}" for name, why in tools.skipped.items())
        return skipped or f"{len(tools.specs())} tools"

    health.add("tools", tools_ready)
