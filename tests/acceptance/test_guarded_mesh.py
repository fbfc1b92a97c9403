"""A whole mesh on a broker with TLS, passwords and rights: every process with a login of its own."""

import asyncio
import base64
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.guarded import MOSQUITTO, PLUGIN, Guarded, guarded_broker
from tests.support.mesh import PREFIX, clean_environ, command
from tests.support.plain_mqtt import PlainClient
from tests.support.postgres import Databases
from tests.support.structure import ROOT
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
AGENTS = ("researcher", "writer")
REFUSALS = ("publish refused", "subscription refused", "refuses to publish", "a step after connecting failed")


class Process:
    """One of our processes and its log."""

    def __init__(self, name: str, arguments: list[str], environ: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(command(*arguments), env=environ, stdout=output, stderr=output)

    async def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.popen.wait, 40)

    def told(self, words: str) -> bool:
        return words in self.log.read_text()


def agent_file(folder: Path, name: str) -> Path:
    """A shipped agent with a short lease, so that it soon notices that no ops lives."""
    text = (ROOT / "agents" / f"{name}.toml").read_text()
    path = folder / f"{name}.toml"
    path.write_text(text + "\n[worker]\nlease_seconds = 3\n")
    return path


@asynccontextmanager
async def mesh(folder: Path, broker: Guarded, dsn: str) -> AsyncIterator[dict[str, Process]]:
    shared = {
        **clean_environ(),
        "MQTT_BROKER_URL": broker.url,
        "AGENT2389_CA_FILE": str(broker.ca),
        "DATABASE_URL": dsn,
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "json",
    }
    running: dict[str, Process] = {}
    with ExitStack() as stack:
        for name in ("ops", *AGENTS):
            environ = {**shared, "MQTT_USERNAME": name, "MQTT_PASSWORD": broker.passwords[name]}
            arguments = ["ops"] if name == "ops" else ["run", str(folder / f"{name}.toml")]
            running[name] = Process(name, arguments, environ, folder / f"{name}.log")
            stack.callback(running[name].popen.kill)
        try:
            for process in running.values():
                await until(lambda: process.told("runs") or process.popen.poll() is not None, 40)
                assert process.popen.poll() is None, process.log.read_text()
            yield running
        finally:
            await asyncio.gather(*(process.stop() for process in running.values()))


async def answer(client: PlainClient, topic: str, seconds: float = 40.0) -> Any:
    def found() -> bytes | None:
        return next((payload for name, payload, _ in client.received if name == topic and payload), None)

    return json.loads(await until(found, seconds))


@pytest.mark.parametrize("kind", ["acl", "dynamic-security"])
async def test_the_document_job_on_a_guarded_broker(kind: str, tmp_path: Path, databases: Databases) -> None:
    if kind == "dynamic-security" and PLUGIN is None:
        pytest.skip("this mosquitto came without its dynamic security plugin")
    files = [str(agent_file(tmp_path, name)) for name in AGENTS]
    dsn = databases.login_dsn(await databases.new())
    async with (
        guarded_broker(tmp_path / "broker", *files, dynamic=kind != "acl", witness=False) as broker,
        mesh(tmp_path, broker, dsn) as processes,
    ):
        client = await PlainClient.connect(
            broker.port, "somebody", "producer", broker.passwords["producer"], ca=broker.ca
        )
        codes = await client.subscribe(f"{PREFIX}/receipts/+", f"{PREFIX}/results/+", f"{PREFIX}/events/+")
        assert codes == [0, 0, 0]
        content = (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()
        document = {
            "name": "report.pdf",
            "media_type": "application/pdf",
            "content_base64": base64.b64encode(content).decode(),
        }
        job = {"instruction": "Read the document, gather the facts and draft a brief.", "files": [document]}
        await client.publish(f"{PREFIX}/jobs/research/doc-1", json.dumps(job).encode(), retain=True)
        assert (await answer(client, f"{PREFIX}/receipts/doc-1"))["verdict"] == "accepted"
        result = await answer(client, f"{PREFIX}/results/doc-1")
        assert result["state"] == "completed"
        assert [hop["agent_id"] for hop in result["route"]] == ["researcher", "writer"]
        assert "6,420 bicycles" in result["result"]["text"]
        assert [name for name, _, _ in client.received if name == f"{PREFIX}/events/doc-1"]

        # Without ops the agents take work in by their own logins, and clear what they took.
        await processes["ops"].stop()
        stored = {"instruction": "Write. The sun is warm today."}
        await client.publish(f"{PREFIX}/jobs/writing/late-1", json.dumps(stored).encode(), retain=True)
        assert (await answer(client, f"{PREFIX}/receipts/late-1"))["verdict"] == "accepted"
        assert (await answer(client, f"{PREFIX}/results/late-1"))["state"] == "completed"

        # 2389 envelopes reach the agent, its answer the conversation.
        await client.subscribe("/conversations/talk-1/+")
        envelope: dict[str, Any] = {
            "task_id": "5f0c2f4e-3d3c-4d64-9d52-0e7c0f3b6c11",
            "conversation_id": "talk-1",
            "topic": "/control/agents/writer/input",
            "instruction": "Write one sentence about the sea.",
            "input": {},
            "next": None,
        }
        await client.publish("/control/agents/writer/input", json.dumps(envelope).encode())
        assert (await answer(client, "/conversations/talk-1/writer"))["task_id"] == envelope["task_id"]

        monitor = await PlainClient.connect(
            broker.port, "eyes", "monitor", broker.passwords["monitor"], ca=broker.ca
        )
        await monitor.subscribe("/control/agents/+/status", f"{PREFIX}/jobs/+/+")
        await until(lambda: len(statuses(monitor)) == len(AGENTS))
        assert set(statuses(monitor).values()) == {"available"}
        assert not [name for name, payload, _ in monitor.received if "/jobs/" in name and payload]
        await asyncio.gather(*(process.stop() for process in processes.values()))
        await until(lambda: set(statuses(monitor).values()) == {"unavailable"})
        for process in processes.values():
            assert process.popen.returncode == 0
            assert not [words for words in REFUSALS if process.told(words)], process.log.read_text()
        await client.close()
        await monitor.close()


def statuses(client: PlainClient) -> dict[str, str]:
    """Agent id → what its status said last."""
    found = {}
    for topic, payload, _ in client.received:
        if topic.startswith("/control/agents/") and payload:
            found[topic] = json.loads(payload)["status"]
    return found
