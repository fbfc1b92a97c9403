"""A whole mesh on one machine: servers, ops, one process for each agent file."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from agent2389.broker.address import BrokerAddress, is_loopback, parse_broker_url
from agent2389.broker.local import local_broker
from agent2389.broker.reach import reach
from agent2389.config.model import MqttSection
from agent2389.config.process import OPS_PORT, ProcessConfiguration
from agent2389.errors import ConfigurationError, Unreachable
from agent2389.launch.children import Child, Supervisor
from agent2389.launch.folder import MeshFile, held, write_mesh
from agent2389.ledger.embedded import embedded_postgres
from agent2389.ledger.migrate import migrate, provision_login, provision_self
from agent2389.telemetry import children

OPS_SECONDS = 30.0
DRAIN_SECONDS = 20.0
LOGIN = "mesh"
KEYS = ("OPENAI_API_KEY",)

JOINING = ("DATABASE_URL", "MQTT_BROKER_URL", "AGENT2389_API", "AGENT2389_TOKEN")
"""What ``up --print-env`` sets in a shell."""

Tell = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What ``up`` was asked for. ``None`` ports mean: the usual one when free."""

    data: Path
    agents: Path | None = None
    http_port: int | None = None
    mqtt_port: int | None = None
    database_url: str | None = None
    broker_url: str | None = None
    mqtt: MqttSection = MqttSection()
    tenant: str = "default"


async def run_mesh(options: Options, tell: Tell, ready: Callable[[MeshFile], None]) -> None:
    """Run until SIGINT or SIGTERM. ``tell`` hears progress, ``ready`` the addresses.

    Raises ``Conflict`` (folder held), ``ConfigurationError`` (port taken, nothing to run with),
    ``Unreachable`` (a server does not start).
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    main = asyncio.create_task(_run(options, tell, ready))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({main, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not main.done():
        main.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await main


async def _run(options: Options, tell: Tell, ready: Callable[[MeshFile], None]) -> None:
    data = options.data.resolve()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(held(data))
        http_port = _http_port(options)
        tell("starting ledger and broker")
        kept: list[children.Kept] = []
        database_url, (broker_url, broker) = await _servers(stack, options, data, kept)
        token = secrets.token_urlsafe(24)
        mesh = MeshFile(
            pid=os.getpid(),
            api=f"http://127.0.0.1:{http_port}",
            broker_url=broker_url,
            database_url=database_url,
            token=token,
            broker=broker,
            tenant=options.tenant,
        )
        supervisor = Supervisor(tell)
        stack.push_async_callback(_stop_children, supervisor, data)
        environ = _environ(mesh)
        ops = Child(
            "ops",
            (sys.executable, "-m", "agent2389", "ops"),
            {**environ, "HEALTH_PORT": str(http_port)},
            data / "logs" / "ops.log",
        )
        tell("starting ops and agents")
        await supervisor.start(ops)
        folder = await stack.enter_async_context(_agent_folder(options.agents))
        paths = sorted(folder.glob("*.toml"))
        if not paths:
            tell(f"warning: {folder} has no agent files (*.toml): jobs wait until an agent joins")
        for path in paths:
            await supervisor.start(
                Child(
                    path.stem,
                    (sys.executable, "-m", "agent2389", "run", str(path)),
                    {**_for_agents(environ), "HEALTH_PORT": "0"},
                    data / "logs" / f"{path.stem}.log",
                    may_end=True,
                )
            )
        await _wait_until_ready(mesh.api, supervisor, ops)
        write_mesh(data, mesh)
        ready(mesh)
        # Until cancelled, and exactly once: a second cancellation would end servers before their clients.
        await _first_given_up(kept)


async def _first_given_up(kept: list[children.Kept]) -> None:
    """Wait for ever; a server of our own that cannot be kept running is ``Unreachable``."""
    endless: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended, _ = await asyncio.wait(
        {endless, *(server.gave_up for server in kept)}, return_when=asyncio.FIRST_COMPLETED
    )
    ended.pop().result()


def _http_port(options: Options) -> int:
    if options.http_port:
        if not children.is_free(options.http_port):
            raise ConfigurationError(
                f"port {options.http_port} is taken", hint="choose another HEALTH_PORT; 0 takes a free one"
            )
        return options.http_port
    if options.http_port is None and children.is_free(OPS_PORT):
        return OPS_PORT
    return children.free_port()


async def _servers(
    stack: contextlib.AsyncExitStack, options: Options, data: Path, kept: list[children.Kept]
) -> tuple[str, tuple[str, str]]:
    """The ledger's DSN for children and the broker's URL and label; both start at once."""
    broker = asyncio.create_task(_enter_broker(stack, options, data, kept))
    try:
        dsn = await _enter_ledger(stack, options, data, kept)
    finally:
        done = await asyncio.gather(broker, return_exceptions=True)
    if isinstance(done[0], BaseException):
        raise done[0]
    return dsn, done[0]


async def _enter_broker(
    stack: contextlib.AsyncExitStack, options: Options, data: Path, kept: list[children.Kept]
) -> tuple[str, str]:
    if options.broker_url is not None:
        with _named_by_environment(options.broker_url):
            await reach(_given_broker(options))
        return options.broker_url, "given by MQTT_BROKER_URL"
    running = await stack.enter_async_context(local_broker(data, port=options.mqtt_port))
    kept.append(running.kept)
    return running.url, running.label


@contextlib.contextmanager
def _named_by_environment(url: str) -> Iterator[None]:
    """A server of this machine that is away may be that of a mesh that has ended, which a shell still names.

    It is never passed over for one of our own: it may be somebody's database that is down.
    """
    try:
        yield
    except Unreachable as error:
        if is_loopback(urlsplit(url).hostname or ""):
            forget = f"if this shell joined a mesh that has ended: unset {' '.join(JOINING)}"
            error.hint = f"{error.hint}; {forget}" if error.hint else forget
        raise


def _given_broker(options: Options) -> BrokerAddress:
    mqtt = options.mqtt
    return parse_broker_url(
        mqtt.broker_url,
        username=mqtt.username,
        password=mqtt.password.get_secret_value() if mqtt.password else None,
        ca_file=mqtt.ca_file,
        client_cert=mqtt.client_cert,
        client_key=mqtt.client_key,
        insecure_ok=mqtt.insecure_ok,
    )


async def _enter_ledger(
    stack: contextlib.AsyncExitStack, options: Options, data: Path, kept: list[children.Kept]
) -> str:
    if options.database_url is not None:
        with _named_by_environment(options.database_url):
            await migrate(options.database_url)
            await provision_self(options.database_url, tenant=options.tenant)
        return options.database_url
    server = await stack.enter_async_context(embedded_postgres(data))
    kept.append(server.kept)
    await migrate(server.dsn)
    password = secrets.token_urlsafe(18)
    await provision_login(server.dsn, LOGIN, password, tenant=options.tenant)
    database = server.dsn.rpartition("/")[2]
    return f"postgresql://{LOGIN}:{password}@{server.host}:{server.port}/{database}"


@contextlib.asynccontextmanager
async def _agent_folder(given: Path | None) -> AsyncIterator[Path]:
    """The given folder, else ./agents, else the packaged agents."""
    if given is not None:
        if not given.is_dir():
            raise ConfigurationError(f"{given} is no folder of agent files")
        yield given
    elif Path("agents").is_dir() and any(Path("agents").glob("*.toml")):
        yield Path("agents").resolve()
    else:
        with as_file(files("agent2389.config") / "shipped") as packaged:
            yield packaged


def _environ(mesh: MeshFile) -> dict[str, str]:
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in ("CONFIG_PATH", "AGENT_CONFIG", "HEALTH_PORT", "AGENT2389_BIND", "LOG_FORMAT")
    }
    environ |= print_env(mesh)
    environ["LOG_FORMAT"] = "json"
    environ["PYTHONUNBUFFERED"] = "1"
    if "AGENT2389_LLM_PROVIDER" not in environ:
        environ |= _model_of(environ)
    return environ


def _for_agents(environ: dict[str, str]) -> dict[str, str]:
    """Without what only ops may know: agents run code of others."""
    return {key: value for key, value in environ.items() if not key.startswith("AGENT2389_WEBHOOK_")}


def _model_of(environ: dict[str, str]) -> dict[str, str]:
    """A real model for the shipped agents when the environment names one, else the rehearsal model."""
    if environ.get("LLM_BASE_URL") or any(environ.get(key) for key in KEYS):
        return {
            "AGENT2389_LLM_PROVIDER": "openai",
            "AGENT2389_LLM_MODEL": environ.get("AGENT2389_LLM_MODEL", "gpt-4o-mini"),
        }
    return {}


def model_label(environ: dict[str, str]) -> str:
    """What people are told about the model of the shipped agents."""
    chosen = {**environ, **_model_of(environ)}
    provider = chosen.get("AGENT2389_LLM_PROVIDER", "rehearsal")
    if provider == "rehearsal":
        return "rehearsal (offline, no key found; set OPENAI_API_KEY or LLM_BASE_URL for a real model)"
    return f"{chosen.get('AGENT2389_LLM_MODEL', '')} ({environ.get('LLM_BASE_URL') or 'OpenAI'})"


def print_env(mesh: MeshFile) -> dict[str, str]:
    """What ``up --print-env`` prints, so that more agents can join."""
    return {
        "MQTT_BROKER_URL": mesh.broker_url,
        "DATABASE_URL": mesh.database_url,
        "AGENT2389_API": mesh.api,
        "AGENT2389_TOKEN": mesh.token,
        **({"AGENT2389_TENANT": mesh.tenant} if mesh.tenant != "default" else {}),
    }


async def _wait_until_ready(api: str, supervisor: Supervisor, ops: Child) -> None:
    deadline = asyncio.get_running_loop().time() + OPS_SECONDS
    async with aiohttp.ClientSession() as http:
        while asyncio.get_running_loop().time() < deadline and not supervisor.has_died(ops.name):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(f"{api}/ready", timeout=aiohttp.ClientTimeout(2)) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    if (refusal := supervisor.refusal(ops)) is not None:
        raise refusal
    raise Unreachable(
        "ops",
        f"the ops service did not become ready: {children.tail(ops.log_file)}",
        hint=f"see {ops.log_file}",
    )


async def _stop_children(supervisor: Supervisor, data: Path) -> None:
    (data / "mesh.json").unlink(missing_ok=True)
    agents = [name for name in supervisor.names if name != "ops"]
    await asyncio.shield(supervisor.stop(agents, seconds=DRAIN_SECONDS))
    await asyncio.shield(supervisor.stop(seconds=5.0))


def options_of(process: ProcessConfiguration, *, data: Path | None, agents: Path | None) -> Options:
    """Options from flags and environment."""
    mqtt = process.mqtt
    given = "broker_url" in mqtt.model_fields_set
    dsn = process.ledger.database_url
    return Options(
        data=data or process.data,
        agents=agents,
        http_port=process.health.port,
        database_url=dsn.get_secret_value() if dsn else None,
        broker_url=mqtt.broker_url if given else None,
        mqtt=mqtt,
        tenant=process.tenant,
    )
