"""A mesh with a webhook: an escalated task reaches a receiver that fails, dies and comes back."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from aiohttp import web

from tests.support.mesh import Mesh, running_mesh
from tests.support.webhook_receiver import SECRET, Received, WebhookReceiver, is_signed


class Outside:
    """The receiver on a thread of its own, as a process beside the mesh would be."""

    def __init__(self) -> None:
        self.receiver = WebhookReceiver()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self.receiver.start())

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def restart(self) -> None:
        self.do(self.receiver.stop())
        self.do(self.receiver.start())

    def close(self) -> None:
        self.do(self.receiver.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def outside() -> Iterator[Outside]:
    outside = Outside()
    yield outside
    outside.close()


def webhook_check(mesh: Mesh) -> dict[str, Any]:
    with urlopen(mesh.exported["AGENT2389_API"] + "/health") as response:
        found: dict[str, Any] = json.load(response)["checks"]["webhook"]
    return found


def escalated(mesh: Mesh) -> str:
    job = mesh.run("submit", "Say it in Danish.", "--capability", "danish").stdout.strip()
    mesh.run("job", "escalate", job, "--reason", "nobody here speaks Danish")
    return job


class Dies:
    """Takes an event and is gone before it says so."""

    def __init__(self) -> None:
        self.took: list[str] = []

    def __call__(self, received: Received) -> web.StreamResponse:
        self.took.append(received.id)
        raise asyncio.CancelledError


def children_that_know(mesh: Mesh, secret: str) -> list[str]:
    """What the processes under ``up`` do that have ``secret`` in their environment."""
    up = mesh.process.pid
    found = []
    for child in Path(f"/proc/{up}/task/{up}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "agent2389" in words and secret in Path(f"/proc/{child}/environ").read_text():
            found.append(words[words.index("agent2389") + 1])
    return found


@pytest.mark.timeout(180)
def test_an_escalation_is_told_once_whatever_happens_to_the_receiver(
    tmp_path: Path, outside: Outside
) -> None:
    receiver = outside.receiver
    receiver.answer = lambda _: web.Response(status=500, text="not today")
    url = receiver.url + "?token=very-secret"
    with running_mesh(tmp_path / "data", AGENT2389_WEBHOOK_URL=url, AGENT2389_WEBHOOK_SECRET=SECRET) as mesh:
        mesh.until(lambda: "told up to event" in webhook_check(mesh)["message"])
        assert children_that_know(mesh, SECRET) == ["ops"]
        jobs = [escalated(mesh), escalated(mesh)]

        mesh.until(lambda: receiver.requests)
        mesh.until(lambda: webhook_check(mesh)["status"] == "degraded")
        assert "answers 500" in webhook_check(mesh)["message"]

        dies = receiver.answer = Dies()
        outside.restart()
        mesh.until(lambda: dies.took, 30)

        received: list[Received] = []

        def takes(one: Received) -> web.Response:
            received.append(one)
            return web.Response(status=204)

        receiver.answer = takes
        outside.restart()
        mesh.until(lambda: len(received) == 2, 60)
        mesh.until(lambda: webhook_check(mesh)["status"] == "healthy")

        assert [one.document["job_id"] for one in received] == jobs
        assert received[0].id in dies.took, "the repeat is known by its id"
        assert len({one.id for one in received}) == 2
        for one in received:
            assert is_signed(one)
            assert one.document["type"] == "task.escalated"
        bodies = {one.body for one in receiver.requests if one.id == received[0].id}
        assert len(bodies) == 1, "every try says the same"

        with urlopen(mesh.exported["AGENT2389_API"] + "/metrics") as response:
            figures = response.read().decode()
        assert 'agent2389_webhook_events_total{outcome="sent"} 2.0' in figures
        logs = "".join(path.read_text() for path in (mesh.data / "logs").glob("*.log"))
        assert "an event could not be told" in logs
        for secret in ("very-secret", SECRET):
            assert secret not in logs
