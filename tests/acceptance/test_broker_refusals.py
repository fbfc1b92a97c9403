"""What people are told when the broker does not let them in, or not where they want to go."""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from agent2389.telemetry import children
from tests.support.guarded import MOSQUITTO, Guarded, guarded_broker, make_certificates, serving
from tests.support.mesh import clean_environ, command
from tests.support.postgres import Databases
from tests.support.structure import ROOT

pytestmark = pytest.mark.skipif(
    MOSQUITTO is None or shutil.which("openssl") is None, reason="mosquitto or openssl is not installed"
)
RESEARCHER = str(ROOT / "agents" / "researcher.toml")


def environ(broker: Guarded, dsn: str, login: str = "researcher") -> dict[str, str]:
    return {
        **clean_environ(),
        "DATABASE_URL": dsn,
        "MQTT_BROKER_URL": broker.url,
        "AGENT2389_CA_FILE": str(broker.ca),
        "MQTT_USERNAME": login,
        "MQTT_PASSWORD": broker.passwords[login],
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "json",
    }


async def ended(arguments: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def tells(arguments: list[str], environ: dict[str, str], words: str, log: Path) -> str:
    """Run until the log says ``words``, then stop; the whole log. The process has to end with 0."""
    process = await children.start(command(*arguments), log, environ=environ)
    try:
        async with asyncio.timeout(60):
            while words not in log.read_text():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
    finally:
        await children.stop(process, signal.SIGTERM, seconds=30)
    assert process.returncode == 0, log.read_text()
    return log.read_text()


class Place(msgspec.Struct, frozen=True):
    """The broker, a ledger, and the CA of somebody else."""

    broker: Guarded
    dsn: str
    foreign_ca: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("refusals")
    files = [str(ROOT / "agents" / f"{name}.toml") for name in ("researcher", "writer")]
    make_certificates(folder / "others")
    async with guarded_broker(folder / "broker", *files, witness=False) as broker:
        dsn = databases.login_dsn(await databases.new())
        yield Place(broker, dsn, folder / "others" / "ca.crt")


def stolen(place: Place, login: str) -> dict[str, str]:
    return {"MQTT_USERNAME": login, "MQTT_PASSWORD": place.broker.passwords[login]}


# name: what differs, exit code, what is told, what to do
MISTAKES: dict[str, tuple[Callable[[Place], dict[str, str]], int, str, str]] = {
    "none": (lambda _: {}, 0, "ok", ""),
    "password": (lambda _: {"MQTT_PASSWORD": "wrong"}, 4, "refuses the login", "mqtt.password_env"),
    "no login": (
        lambda _: {"MQTT_USERNAME": "", "MQTT_PASSWORD": ""},
        4,
        "refuses the login",
        "mqtt.username",
    ),
    "unknown login": (lambda _: {"MQTT_USERNAME": "eve"}, 4, "refuses the login", "mqtt.username"),
    "wrong CA": (
        lambda place: {"AGENT2389_CA_FILE": str(place.foreign_ca)},
        9,
        "certificate is not accepted",
        "must hold the CA that signed",
    ),
    "no CA": (lambda _: {"AGENT2389_CA_FILE": ""}, 9, "certificate is not accepted", "mqtt.ca_file"),
    "CA away": (
        lambda _: {"AGENT2389_CA_FILE": "/nowhere/ca"},
        3,
        "there is no file /nowhere/ca",
        "mqtt.ca_file",
    ),
    "plain to TLS": (
        lambda place: {"MQTT_BROKER_URL": place.broker.url.replace("mqtts", "mqtt")},
        9,
        "does not answer",
        "a port with TLS needs mqtts://",
    ),
    "nobody there": (
        lambda _: {"MQTT_BROKER_URL": f"mqtts://localhost:{children.free_port()}"},
        9,
        "cannot be reached",
        "that the broker runs",
    ),
    "another agent's login": (
        lambda place: stolen(place, "writer"),
        4,
        "rights do not fit",
        "this agent's own login",
    ),
    "a producer's login": (
        lambda place: stolen(place, "producer"),
        4,
        "rights do not fit",
        "agent2389 broker acl",
    ),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_has_its_words_and_its_exit_code(place: Place, mistake: str) -> None:
    change, code, told, hint = MISTAKES[mistake]
    environment = environ(place.broker, place.dsn) | change(place)
    got, out, err = await ended(["validate", RESEARCHER, "--online"], environment)
    assert got == code, out + err
    assert told in out + err
    assert hint in err
    assert not [word for word in place.broker.passwords.values() if word in out + err]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_process_that_is_not_let_in_stays_and_says_so_once(place: Place, tmp_path: Path) -> None:
    environment = environ(place.broker, place.dsn) | {"MQTT_PASSWORD": "wrong"}
    text = await tells(["run", RESEARCHER], environment, "agent runs", tmp_path / "run.log")
    assert text.count("the broker refuses the login") == 1
    assert "MQTT_PASSWORD" in text


@pytest.mark.asyncio(loop_scope="module")
async def test_rights_that_do_not_fit_end_a_process(place: Place, tmp_path: Path) -> None:
    """Nobody shall take a deaf agent for a working one."""
    right = environ(place.broker, place.dsn)
    code, _, err = await ended(["run", RESEARCHER], right | stolen(place, "writer"))
    assert (code, "rights do not fit" in err, "hint: " in err) == (4, True, True)
    code, _, err = await ended(["ops"], right)
    assert (code, "refuses to publish on" in err, "broker acl" in err) == (4, True, True)
    text = await tells(["ops"], right | stolen(place, "ops"), "ops runs", tmp_path / "ops.log")
    assert "refuse" not in text


async def test_an_expired_certificate_is_named_and_renewing_it_is_enough(
    tmp_path: Path, databases: Databases
) -> None:
    dsn = databases.login_dsn(await databases.new())
    folder = tmp_path / "broker"
    async with guarded_broker(folder, RESEARCHER, witness=False) as broker:
        right = environ(broker, dsn)
    certs: list[str | Path] = [ROOT / "broker" / "certs.sh", folder / "certs", "localhost"]
    subprocess.run([*certs, "-1"], check=True)
    async with serving(folder, broker.port):
        code, _, err = await ended(["validate", RESEARCHER, "--online"], right)
        assert (code, "certificate has expired" in err) == (9, True)
        assert "renew the broker's certificate" in err
    subprocess.run(certs, check=True)
    async with serving(folder, broker.port):
        code, out, err = await ended(["validate", RESEARCHER, "--online"], right)
        assert (code, "ok" in out) == (0, True), err
