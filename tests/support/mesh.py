"""A whole mesh as people run it: `agent2389 up` in a process of its own, on free ports."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.structure import ROOT

PREFIX = "agent2389/v1/default"


def clean_environ() -> dict[str, str]:
    ours = ("DATABASE_URL", "MQTT_BROKER_URL", "HEALTH_PORT", "OPENAI_API_KEY", "LLM_BASE_URL")
    return {
        key: value
        for key, value in os.environ.items()
        if key not in ours and not key.startswith("AGENT2389_")
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent2389", *arguments]


class Mesh:
    """The running mesh: its environment, and a plain MQTT client on it."""

    def __init__(self, process: subprocess.Popen[str], data: Path, environ: dict[str, str]) -> None:
        self.process = process
        self.data = data
        self.exported = environ
        self.environ = {**clean_environ(), **environ, "AGENT2389_DATA": str(data)}
        self.messages: list[tuple[str, bytes]] = []
        parts = urlsplit(environ["MQTT_BROKER_URL"])
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{os.getpid()}")
        self.client.on_message = lambda *arguments: self.messages.append(
            (arguments[2].topic, arguments[2].payload)
        )
        # At every connection, for a broker that was restarted knows nobody.
        self.client.on_connect = lambda client, *_: client.subscribe(
            [("agent2389/v1/#", 1), ("/conversations/#", 1), ("/control/#", 1)]
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.connect(self.host, self.port)
        self.client.loop_start()

    def publish(self, topic: str, payload: Any, *, retain: bool = False) -> None:
        text = payload if isinstance(payload, str | bytes) else json.dumps(payload)
        self.client.publish(topic, text, qos=1, retain=retain).wait_for_publish(10)

    def heard(self, topic: str, seconds: float = 20.0) -> Any:
        """The JSON of the first non-empty message on ``topic``."""
        return json.loads(self.until(lambda: self.on(topic), seconds)[0])

    def on(self, topic: str) -> list[bytes]:
        return [payload for name, payload in list(self.messages) if name == topic and payload]

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not in time; logs in {self.data}/logs"
            time.sleep(0.02)
        return value

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments), env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done


def exported(data: Path) -> dict[str, str]:
    lines = subprocess.run(
        command("up", "--data", str(data), "--print-env"),
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    words = [shlex.split(line)[1].split("=", 1) for line in lines]
    return dict(words)


@contextmanager
def running_mesh(data: Path, *, agents: Path = ROOT / "agents", **environ: str) -> Iterator[Mesh]:
    data.parent.mkdir(parents=True, exist_ok=True)
    log = (data.parent / "up.log").open("ab")
    process = subprocess.Popen(
        command("up", "--data", str(data), "--agents", str(agents)),
        env={**clean_environ(), "HEALTH_PORT": "0", **environ},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    mesh = None
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), (data.parent / "up.log").read_text()
        mesh = Mesh(process, data, exported(data))
        names = [path.stem for path in agents.glob("*.toml")]
        mesh.until(lambda: all(mesh.on(f"/control/agents/{name}/status") for name in names), 30)
        yield mesh
    finally:
        if mesh is not None:
            mesh.client.disconnect()
            mesh.client.loop_stop()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)
        log.close()
        if process.stdout is not None:
            process.stdout.close()
        location = data / "postgres.location"
        if location.exists():
            folder = Path(location.read_text().strip())
            if not folder.is_relative_to(data):
                shutil.rmtree(folder, ignore_errors=True)
