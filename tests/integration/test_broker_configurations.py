"""The shipped broker configurations start, and refuse whom they should, on a real Mosquitto."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent2389.broker.address import parse_broker_url
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Message, PublishRefused
from agent2389.errors import Unreachable
from agent2389.telemetry import children
from tests.support.structure import ROOT
from tests.support.waiting import until

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
pytestmark = pytest.mark.skipif(
    MOSQUITTO is None or shutil.which("mosquitto_passwd") is None, reason="mosquitto is not installed"
)


@asynccontextmanager
async def started(folder: Path, name: str, port: int) -> AsyncIterator[None]:
    """A shipped configuration with its paths, port and user brought to this machine."""
    text = (ROOT / "broker" / name).read_text().replace("/mosquitto/config", str(folder))
    text = text.replace("/mosquitto/data/", f"{folder}/data/")
    text = re.sub(r"^listener .*$", f"listener {port} 127.0.0.1", text, flags=re.MULTILINE)
    (folder / "data").mkdir(exist_ok=True)
    config = folder / name
    config.write_text(("user root\n" if os.geteuid() == 0 else "") + text)
    assert MOSQUITTO is not None
    process = await children.start([MOSQUITTO, "-c", config], folder / "broker.log")
    try:
        await until(lambda: not children.is_free(port) or process.returncode is not None)
        assert process.returncode is None, (folder / "broker.log").read_text()
        yield
    finally:
        await children.stop(process)


async def test_development_takes_anybody_on_loopback(tmp_path: Path) -> None:
    port = children.free_port()
    async with started(tmp_path, "mosquitto.dev.conf", port):
        broker = MqttBroker(parse_broker_url(f"mqtt://127.0.0.1:{port}"))
        connection = await broker.connect("anybody")
        await connection.wait_connected(5)
        await connection.publish(Message("a/b", b"x", retain=True))
        await broker.close()


async def test_production_asks_for_tls_and_a_password(tmp_path: Path) -> None:
    port = children.free_port()
    subprocess.run([ROOT / "broker" / "certs.sh", tmp_path / "certs", "localhost"], check=True)
    users = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "ops", "secret-of-ops"], check=True)
    shutil.copy(ROOT / "broker" / "acl.template", tmp_path / "acl")
    ca_file = tmp_path / "certs" / "ca.crt"

    async def connects(url: str, user: str | None, password: str | None, ca: Path | None) -> bool:
        broker = MqttBroker(parse_broker_url(url, username=user, password=password, ca_file=ca))
        connection = await broker.connect(f"client-{user}-{password}")
        try:
            await connection.wait_connected(3)
        except Unreachable:
            return False
        finally:
            await broker.close()
        return True

    async with started(tmp_path, "mosquitto.prod.conf", port):
        tls = f"mqtts://localhost:{port}"
        assert await connects(tls, "ops", "secret-of-ops", ca_file)
        refused = await asyncio.gather(
            connects(tls, None, None, ca_file),
            connects(tls, "ops", "wrong", ca_file),
            connects(tls, "ops", "secret-of-ops", None),
            connects(f"mqtt://localhost:{port}", "ops", "secret-of-ops", None),
        )
        assert not any(refused)


ROLES = {
    # role → (may publish, may not publish)
    "producer": ("jobs/writing/one", "results/one"),
    "monitor": (None, "cancel/one"),
    "operator": ("cancel/one", "jobs/writing/one"),
    "agent": ("results/one", None),
}


async def test_each_role_publishes_what_it_may_and_nothing_else(tmp_path: Path) -> None:
    port = children.free_port()
    subprocess.run([ROOT / "broker" / "certs.sh", tmp_path / "certs", "localhost"], check=True)
    users = tmp_path / "passwords"
    for number, role in enumerate(ROLES):
        create = ["-c"] if number == 0 else []
        subprocess.run(["mosquitto_passwd", "-b", *create, users, role, f"secret-{role}"], check=True)
    shutil.copy(ROOT / "broker" / "acl.template", tmp_path / "acl")
    async with started(tmp_path, "mosquitto.prod.conf", port):
        for role, (allowed, denied) in ROLES.items():
            address = parse_broker_url(
                f"mqtts://localhost:{port}",
                username=role,
                password=f"secret-{role}",
                ca_file=tmp_path / "certs" / "ca.crt",
            )
            broker = MqttBroker(address)
            connection = await broker.connect(role)
            await connection.wait_connected(5)
            if allowed is not None:
                await connection.publish(Message(f"agent2389/v1/default/{allowed}", b"x"))
            if denied is not None:
                with pytest.raises(PublishRefused):
                    await connection.publish(Message(f"agent2389/v1/default/{denied}", b"x"))
            await broker.close()
