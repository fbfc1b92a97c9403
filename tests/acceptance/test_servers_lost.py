"""Broker and database are killed, stopped and lost under a working mesh: nothing that was accepted is lost."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tests.support.mesh import PREFIX, Mesh, running_mesh


def ask(mesh: Mesh, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    """Status and JSON of the ops service; 0 when it does not answer at all."""
    headers = {
        "Authorization": f"Bearer {mesh.exported['AGENT2389_TOKEN']}",
        "Content-Type": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(mesh.exported["AGENT2389_API"] + path, data, headers), timeout=15) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)
    except (URLError, TimeoutError):
        return 0, {}


def broker_pid(mesh: Mesh) -> int:
    return int((mesh.data / "broker" / "broker.pid").read_text())


def postgres_pid(mesh: Mesh) -> int:
    cluster = Path((mesh.data / "postgres.location").read_text().strip()) / "data"
    return int((cluster / "postmaster.pid").read_text().split()[0])


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]


@contextmanager
def flowing(mesh: Mesh) -> Iterator[set[str]]:
    """Jobs that are submitted all the time, over HTTP and MQTT; yields the ids that were accepted."""
    accepted: set[str] = set()
    stop = threading.Event()

    def submit() -> None:
        number = 0
        while not stop.wait(0.02):
            number += 1
            instruction = f"Write. Ship number {number} is painted green."
            over_mqtt = f"flow-{number}"
            job = json.dumps({"instruction": instruction})
            mesh.client.publish(f"{PREFIX}/jobs/writing/{over_mqtt}", job, qos=1)
            status, answer = ask(mesh, "/api/v1/jobs", {"instruction": instruction, "capability": "writing"})
            if status == 201:
                accepted.add(str(answer["job_id"]))

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield accepted
    finally:
        stop.set()
        thread.join(30)
    for topic, body in list(mesh.messages):
        if "/receipts/flow-" in topic and body and json.loads(body)["verdict"] == "accepted":
            accepted.add(topic.rpartition("/")[2])


def until_more(mesh: Mesh, accepted: set[str]) -> None:
    enough = len(accepted) + 5
    mesh.until(lambda: len(accepted) >= enough, 30)


def kill_and_wait(mesh: Mesh, pid_of: Callable[[Mesh], int]) -> None:
    """Kill a server and wait until another process stands in its place."""
    killed = pid_of(mesh)

    def has_successor() -> bool:
        try:
            return pid_of(mesh) != killed
        except (OSError, ValueError, IndexError):
            return False

    os.kill(killed, signal.SIGKILL)
    mesh.until(has_successor, 30)


def test_servers_that_die_are_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with running_mesh(tmp_path / "data") as mesh:
        with flowing(mesh) as accepted:
            for pid_of in (broker_pid, postgres_pid, broker_pid):
                until_more(mesh, accepted)
                kill_and_wait(mesh, pid_of)
            until_more(mesh, accepted)
        assert any(name.startswith("flow-") for name in accepted)

        def unfinished() -> list[str]:
            states = {name: str(ask(mesh, f"/api/v1/jobs/{name}")[1].get("state")) for name in accepted}
            return [name for name, state in states.items() if state != "completed"]

        mesh.until(lambda: not unfinished(), 60)
        # The last kill may have cost retained results; the mesh publishes what is missing again.
        mesh.until(mesh.client.is_connected)
        mesh.publish(
            f"{PREFIX}/jobs/writing/after", {"instruction": "Write. The evening is calm."}, retain=True
        )
        assert mesh.heard(f"{PREFIX}/results/after", 30)["state"] == "completed"
        assert ask(mesh, "/health")[1]["status"] == "healthy"


def test_the_database_may_be_lost_and_comes_back(tmp_path: Path) -> None:
    with running_mesh(tmp_path / "data") as mesh:
        postmaster = postgres_pid(mesh)
        # Stopped, not killed: sessions hang, new ones get no answer, as behind a dead network.
        frozen = [postmaster, *children_of(postmaster)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            mesh.until(lambda: ask(mesh, "/ready")[0] == 503, 30)
            reasons = ask(mesh, "/ready")[1]["reasons"]
            assert any("ledger" in reason for reason in reasons)  # type: ignore[attr-defined]
            assert ask(mesh, "/live")[0] == 200
            status, problem = ask(mesh, "/api/v1/jobs", {"instruction": "Write. The wind is cold."})
            assert (status, problem["code"]) == (503, "unavailable")
            topic = f"{PREFIX}/jobs/writing/waits"
            mesh.publish(topic, {"instruction": "Write. The tide is low."}, retain=True)
            time.sleep(1)  # nothing to wait for: the point is that nothing happens
            assert not mesh.on(f"{PREFIX}/receipts/waits")
            assert (topic, b"") not in mesh.messages
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        assert mesh.heard(f"{PREFIX}/receipts/waits", 30)["verdict"] == "accepted"
        assert mesh.heard(f"{PREFIX}/results/waits", 30)["state"] == "completed"
        mesh.until(lambda: (topic, b"") in mesh.messages)
        mesh.until(lambda: ask(mesh, "/ready")[0] == 200)
