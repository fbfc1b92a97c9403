"""Each trap that doctor warns about, on a real broker and a real Postgres that have it."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from agent2389.broker.address import parse_broker_url
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection, Message
from agent2389.errors import Unreachable
from agent2389.ledger.fleet import AgentRecord
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.soundings import Soundings, hears_notifications, sound
from agent2389.proving.doctor import Check, Warned, configuration_checks, examine, ledger_checks
from agent2389.proving.doctor_broker import broker_checks
from agent2389.telemetry import children
from agent2389.wire.mesh import Mesh, encode
from agent2389.wire.topics import MeshTopics
from tests.support.mesh import clean_environ, command
from tests.support.postgres import Databases
from tests.support.structure import ROOT
from tests.support.waiting import until

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
OURS = "allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 10000\n"
TOPICS = MeshTopics("default")

Connect = Callable[..., Awaitable[Connection]]


@asynccontextmanager
async def broker_with(folder: Path, text: str) -> AsyncIterator[str]:
    """A Mosquitto with this configuration; its URL."""
    port = children.free_port()
    config = folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    config.write_text(f"listener {port} 127.0.0.1\n{user}{text}")
    assert MOSQUITTO is not None
    process = await children.start([MOSQUITTO, "-c", config], folder / "broker.log")
    try:
        await until(lambda: not children.is_free(port) or process.returncode is not None)
        assert process.returncode is None, (folder / "broker.log").read_text()
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        await children.stop(process)


@asynccontextmanager
async def checks_of(
    folder: Path, text: str, mesh_id: str = "ours"
) -> AsyncIterator[tuple[dict[str, Check], Connect]]:
    """The broker's checks, and a way to disturb it first."""
    async with broker_with(folder, text) as url:
        broker = MqttBroker(parse_broker_url(url))

        async def connect(name: str, *, manual: bool = False) -> Connection:
            connection = await broker.connect(f"doctor-{name}", manual_acknowledgement=manual)
            await connection.wait_connected(5)
            return connection

        try:
            yield broker_checks(connect, "default", mesh_id), connect
        finally:
            await broker.close()


async def warned(check: Check) -> Warned:
    found = await check()
    assert found is not None
    assert found.hint, "every warning says the next step"
    return found


@needs_mosquitto
async def test_a_broker_set_up_as_ours_hurts_nothing(tmp_path: Path) -> None:
    async with checks_of(tmp_path, OURS) as (checks, _):
        diagnosis = await examine(checks, {})
    assert [item for item in diagnosis.warnings if not item.harmless] == []
    assert diagnosis.is_healthy
    assert {"rights", "queue", "size", "no-delay", "one mesh"} <= set(diagnosis.passed)


@needs_mosquitto
async def test_a_stock_broker_drops_what_a_slow_reader_has_not_read(tmp_path: Path) -> None:
    async with checks_of(tmp_path, "allow_anonymous true\nset_tcp_nodelay true\n") as (checks, _):
        found = await warned(checks["queue"])
    assert "dropped silently" in found.message
    assert "max_queued_messages" in found.hint


@needs_mosquitto
@pytest.mark.parametrize("limit", ["message_size_limit 65536", "max_packet_size 65536"])
async def test_a_size_limit_below_a_message_is_found(tmp_path: Path, limit: str) -> None:
    async with checks_of(tmp_path, f"{OURS}{limit}\n") as (checks, _):
        assert "256 KiB" in (await warned(checks["size"])).message


@needs_mosquitto
async def test_rights_that_are_missing_are_named_though_the_broker_says_nothing(tmp_path: Path) -> None:
    rights = tmp_path / "acl"
    rights.write_text("topic readwrite agent2389/v1/default/agents/#\ntopic read agent2389/v1/#\n")
    async with checks_of(tmp_path, f"{OURS}acl_file {rights}\n") as (checks, _):
        found = await warned(checks["rights"])
    assert "agent2389/v1/default/wake/…" in found.message
    assert "/agents/" not in found.message
    assert "broker acl" in found.hint


@needs_mosquitto
async def test_no_delay_on_one_side_only_is_felt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.broker.mqtt._NO_DELAY", ())
    async with checks_of(tmp_path, OURS) as (checks, _):
        found = await warned(checks["no-delay"])
    assert "set_tcp_nodelay" in found.hint


@needs_mosquitto
async def test_the_old_way_of_shared_subscriptions_is_noted(tmp_path: Path) -> None:
    said = subprocess.run([str(MOSQUITTO), "-h"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in said.split("version ", 1)[1].split()[0].split("."))
    async with checks_of(tmp_path, OURS) as (checks, _):
        found = await checks["shared subscriptions"]()
    assert (found is not None) == (version < (2, 0, 13))
    assert found is None or found.harmless


@needs_mosquitto
async def test_another_mesh_on_the_tenant_is_found(tmp_path: Path) -> None:
    async with checks_of(tmp_path, OURS) as (checks, connect):
        other = await connect("other")
        await other.publish(Message(TOPICS.mesh(), encode(Mesh("ours", "1")), retain=True))
        assert await checks["one mesh"]() is None
        await other.publish(Message(TOPICS.mesh(), encode(Mesh("theirs", "1")), retain=True))
        assert TOPICS.mesh() in (await warned(checks["one mesh"])).message


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("listener 1883\n", "persistence"),
        ("persistence true\n", "persistence"),
        ("persistence true\nautosave_on_changes true\nautosave_interval 1\n", "persistence"),
        ("persistence true\nautosave_interval 60\n", "no-delay in the file"),
        ("set_tcp_nodelay false # by default\n", "no-delay in the file"),
    ],
)
async def test_what_a_configuration_says(text: str, check: str) -> None:
    assert (await warned(configuration_checks(text)[check])).check == check


async def test_our_own_production_file_is_clean() -> None:
    text = (ROOT / "broker" / "mosquitto.prod.conf").read_text()
    assert (await examine(configuration_checks(text), {})).warnings == ()


async def test_a_ledger_in_order_passes(databases: Databases) -> None:
    dsn = databases.login_dsn(await databases.new())
    assert (await examine(ledger_checks(_Real(dsn)), {})).passed == ("clock", "singleton", "listen")


async def test_a_clock_that_is_off_is_told_with_its_side(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = databases.login_dsn(await databases.new())
    real = time.time
    monkeypatch.setattr("agent2389.ledger.soundings.time.time", lambda: real() + 3600)
    found = await warned(ledger_checks(_Real(dsn))["clock"])
    assert "3600" in found.message or "3599" in found.message
    assert "ahead of" in found.message


async def test_two_processes_of_a_singleton_are_found(databases: Databases) -> None:
    dsn = databases.login_dsn(await databases.new())
    ledger = await PostgresLedger.open(dsn)
    try:
        # The guard lets no second one in; one that was frozen for longer than its beat comes back.
        for incarnation in ("first", "second"):
            await ledger.register(
                AgentRecord(
                    agent_id="only",
                    incarnation=incarnation,
                    capabilities=("x",),
                    slots=1,
                    singleton=incarnation == "first",
                )
            )
    finally:
        await ledger.close()
    admin = await asyncpg.connect(databases.admin_dsn(dsn.rpartition("/")[2]))
    try:
        await admin.execute("UPDATE agent2389.agents SET singleton = true")
    finally:
        await admin.close()
    found = await warned(ledger_checks(_Real(dsn))["singleton"])
    assert "only" in found.message


async def test_a_dsn_that_hears_nothing_is_a_pooler(databases: Databases) -> None:
    """A door that gives every statement to another session, as a transaction pooler does."""
    dsn = databases.login_dsn(await databases.new())
    async with _pooler(dsn) as pooled:
        assert await hears_notifications(dsn)
        found = await warned(ledger_checks(_Real(pooled))["listen"])
        assert "AGENT2389_LISTEN_URL" in found.hint
        assert await ledger_checks(_Real(pooled), _Real(dsn))["listen"]() is None


async def test_a_server_that_does_not_answer_is_a_warning_not_a_crash() -> None:
    class Away(_Real):
        async def sound(self) -> Soundings:
            raise Unreachable("ledger", "gone", hint="start it")

    diagnosis = await examine(ledger_checks(Away("postgresql://x@127.0.0.1:1/x")), {})
    assert {(item.check, item.hint) for item in diagnosis.warnings if "gone" in item.message} == {
        ("clock", "start it"),
        ("singleton", "start it"),
    }


@needs_mosquitto
async def test_the_verb_tells_as_json_and_by_its_exit_code(tmp_path: Path, databases: Databases) -> None:
    dsn = databases.login_dsn(await databases.new())
    for text, code in ((OURS, 0), (f"{OURS}message_size_limit 1000\n", 5)):
        async with broker_with(tmp_path, text) as url:
            environ = {**clean_environ(), "DATABASE_URL": dsn, "MQTT_BROKER_URL": url}
            done = await asyncio.to_thread(
                subprocess.run,
                command("doctor", "--json"),
                env={**environ, "AGENT2389_DATA": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == code, done.stderr
        document = json.loads(done.stdout)
        assert document["meta"]["healthy"] is (code == 0)
        assert "persistence" in document["data"]["skipped"]
        assert ("size" in {item["check"] for item in document["data"]["warnings"]}) is (code == 5)


class _Real:
    """A database at its DSN."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def sound(self) -> Soundings:
        return await sound(self._dsn)

    async def hears_notifications(self) -> bool:
        return await hears_notifications(self._dsn)


@asynccontextmanager
async def _pooler(dsn: str) -> AsyncIterator[str]:
    """Passes bytes on, except what a server says without being asked: the notification of a LISTEN."""
    host, _, port = dsn.rpartition("@")[2].partition("/")[0].partition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))

        async def up() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)
            up_writer.close()

        async def down() -> None:
            while head := await up_reader.read(5):
                head += await up_reader.readexactly(5 - len(head))
                body = await up_reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                if head[:1] != b"A":
                    writer.write(head + body)
            writer.close()

        await asyncio.gather(up(), down(), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        address = dsn.rpartition("@")
        ours = server.sockets[0].getsockname()[1]
        yield f"{address[0]}@127.0.0.1:{ours}/{dsn.rpartition('/')[2]}?sslmode=disable"
    finally:
        server.close()
