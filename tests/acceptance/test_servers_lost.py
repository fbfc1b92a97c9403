"""Broker and database are killed, stopped and lost under a working mesh: nothing that was accepted is lost."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import aiohttp

from agent2389.broker.local import local_broker
from agent2389.ledger.embedded import embedded_postgres
from agent2389.ledger.migrate import migrate, provision_login
from agent2389.telemetry.children import free_port, start, stop
from tests.support.mesh import PREFIX, Mesh, clean_environ, command, running_mesh
from tests.support.waiting import until


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
        assert ask(mesh, "/health")[0] == 200
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            asked_at = time.monotonic()
            status, health = ask(mesh, "/health")
            assert time.monotonic() - asked_at < 6
            checks: dict[str, dict[str, object]] = health["checks"]  # type: ignore[assignment]
            assert (status, health["status"], checks["ledger"]["status"]) == (503, "unhealthy", "unhealthy")
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


async def test_processes_that_came_before_their_servers_begin_when_these_come(tmp_path: Path) -> None:
    database, broker_port, ops_port = free_port(), free_port(), free_port()
    agent = tmp_path / "early.toml"
    agent.write_text('[agent]\nid = "early"\ncapabilities = ["early"]\n[llm]\nprovider = "rehearsal"\n')
    password = "word-of-the-login"
    environ = {
        **clean_environ(),
        "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{broker_port}",
        "DATABASE_URL": f"postgresql://early:{password}@127.0.0.1:{database}/agent2389",
    }
    async with embedded_postgres(tmp_path / "data", port=database) as server:
        await migrate(server.dsn)
        await provision_login(server.dsn, "early", password)
    log = tmp_path / "processes.log"
    ops = await start(command("ops"), log, environ=environ | {"HEALTH_PORT": str(ops_port)})
    early = await start(command("run", str(agent)), log, environ=environ | {"HEALTH_PORT": "0"})

    async def status(path: str, body: dict[str, str] | None = None) -> int:
        try:
            async with http.request("POST" if body else "GET", path, json=body) as response:
                return response.status
        except aiohttp.ClientError:
            return 0

    async with contextlib.AsyncExitStack() as stack:
        for process in (ops, early):
            stack.push_async_callback(stop, process)
        http = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{ops_port}"))
        await until(lambda: _is(status("/live"), 200), 90)
        assert await status("/ready") == 503
        await stack.enter_async_context(embedded_postgres(tmp_path / "data", port=database))
        stack.callback(shutil.rmtree, (tmp_path / "data" / "postgres.location").read_text().strip(), True)
        await until(lambda: _is(status("/ready"), 200), 90)
        body = {"instruction": "Say it. The first light is grey.", "capability": "early"}
        async with http.post("/api/v1/jobs", json=body) as response:
            job_id = (await response.json())["job_id"]
        async with http.get(f"/api/v1/jobs/{job_id}/result", params={"wait": "30"}) as response:
            assert (await response.json())["state"] == "completed", "a broker is not needed for that"
        await stack.enter_async_context(local_broker(tmp_path / "data", port=broker_port))

        async def broker_is_healthy() -> bool:
            async with http.get("/health") as response:
                return bool((await response.json())["checks"]["mqtt"]["status"] == "healthy")

        await until(broker_is_healthy, 60)
        assert (ops.returncode, early.returncode) == (None, None)


async def _is(asked: Awaitable[int], wanted: int) -> bool:
    return await asked == wanted
