"""`up` as people start it: what it refuses, what it tells, and what it leaves behind."""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent2389.launch.folder import is_held
from agent2389.telemetry.children import free_port
from tests.support.mesh import Mesh, clean_environ, command, exported, running_mesh

AGENT = '[agent]\nid = "alone"\n\n[llm]\nprovider = "rehearsal"\n'


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        env={**clean_environ(), "HEALTH_PORT": "0", **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder to start meshes in, with one agent; all of them are ended afterwards."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "alone.toml").write_text(AGENT)
    yield tmp_path
    for data in tmp_path.iterdir():
        if is_held(data):
            run("down", "--data", str(data), cwd=tmp_path)
        if (location := data / "postgres.location").exists():
            shutil.rmtree(location.read_text().strip(), ignore_errors=True)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running_mesh(tmp_path_factory.mktemp("starting") / "data") as mesh:
        yield mesh


@pytest.mark.parametrize("detach", [(), ("--detach",)])
@pytest.mark.parametrize("data", ["a-file", "/proc/no-such-folder"])
def test_what_cannot_be_a_data_folder_is_an_error_with_a_hint(
    place: Path, data: str, detach: tuple[str, ...]
) -> None:
    (place / "a-file").write_text("not a folder")
    done = run("up", *detach, "--data", data, cwd=place)
    assert (done.returncode, done.stdout) == (3, "")
    what, hint = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert f"{data} cannot be the data folder" in what
    assert "--data" in hint
    assert (place / "a-file").read_text() == "not a folder"


def test_a_detached_start_keeps_its_folder_private_and_tells_only_of_itself(place: Path) -> None:
    data = place / "data"
    first = run("up", "--detach", "--data", "data", cwd=place)
    assert first.returncode == 0, first.stderr
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    log = (data / "logs" / "up.log").read_bytes()
    assert first.stdout.strip().encode() in log
    second = run("up", "--detach", "--data", "data", cwd=place)
    assert (second.returncode, second.stdout) == (6, "")
    assert (data / "lock").read_text() in second.stderr
    assert (data / "logs" / "up.log").read_bytes() == log
    assert run("down", "--data", "data", cwd=place).returncode == 0
    away = f"mqtt://127.0.0.1:{free_port()}"
    failed = run("up", "--detach", "--data", "data", cwd=place, MQTT_BROKER_URL=away)
    assert (failed.returncode, failed.stdout) == (9, "")
    assert "cannot be reached" in failed.stderr
    assert first.stdout.strip() not in failed.stderr


def test_a_shell_that_still_names_an_ended_mesh_is_told_to_forget_it(place: Path) -> None:
    assert run("up", "--detach", "--data", "data", cwd=place).returncode == 0
    joined = exported(place / "data")
    assert run("down", "--data", "data", cwd=place).returncode == 0
    servers = {name: joined[name] for name in ("DATABASE_URL", "MQTT_BROKER_URL")}
    for given in (servers, {"DATABASE_URL": servers["DATABASE_URL"]}):
        done = run("up", "--data", "data", cwd=place, **given)
        assert (done.returncode, done.stdout) == (9, "")
        assert "unset DATABASE_URL MQTT_BROKER_URL AGENT2389_API AGENT2389_TOKEN" in done.stderr


def test_a_database_elsewhere_is_no_ended_mesh(place: Path) -> None:
    done = run("up", "--data", "data", cwd=place, DATABASE_URL="postgresql://u:p@no-such-host.invalid/d")
    assert done.returncode == 9
    assert "check DATABASE_URL" in done.stderr
    assert "unset" not in done.stderr


def test_a_broker_of_another_ledger_is_a_conflict_that_names_the_cure(mesh: Mesh, place: Path) -> None:
    done = run("up", "--data", "data", cwd=place, MQTT_BROKER_URL=mesh.exported["MQTT_BROKER_URL"])
    assert (done.returncode, done.stdout) == (6, "")
    assert "error: tenant default on this broker belongs to another ledger" in done.stderr
    assert (
        "hint: use another tenant, or clear it: mosquitto_pub -r -n -t agent2389/v1/default/mesh"
        in done.stderr
    )


def test_a_folder_without_agents_is_started_with_a_warning(place: Path) -> None:
    (place / "none").mkdir()
    (place / "none" / "notes.txt").write_text("no agent")
    process = subprocess.Popen(
        command("up", "--data", "data", "--agents", "none"),
        env={**clean_environ(), "HEALTH_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert address.startswith("http://127.0.0.1:")
    assert "warning: none has no agent files" in told


def test_healthcheck_asks_the_mesh_that_the_shell_joined(mesh: Mesh, tmp_path: Path) -> None:
    environ = clean_environ()
    for verb, named in (
        (("healthcheck",), {"AGENT2389_API": mesh.exported["AGENT2389_API"]}),
        (("--api", mesh.exported["AGENT2389_API"], "healthcheck", "--path", "/ready"), {}),
    ):
        done = subprocess.run(command(*verb), env={**environ, **named}, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
    port = str(free_port())
    own = run("healthcheck", cwd=tmp_path, HEALTH_PORT=port, AGENT2389_API=mesh.exported["AGENT2389_API"])
    assert own.returncode == 5
    assert f":{port}/live" in own.stderr
    assert "hint: " in own.stderr
    assert "AGENT2389_API" in own.stderr


def test_an_interrupted_wait_says_that_the_job_goes_on(mesh: Mesh) -> None:
    process = subprocess.Popen(
        command("submit", "x", "--capability", "nobody-has-it", "--wait"),
        env=mesh.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stderr is not None
    job = process.stderr.readline().split()[1]
    # The first event comes on the stream: the wait has begun.
    process.stderr.readline()
    os.kill(process.pid, signal.SIGINT)
    out, told = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert f"job {job} goes on" in told
    assert f"agent2389 watch {job}" in told
    assert "Traceback" not in told
    mesh.run("job", "cancel", job)


@pytest.mark.parametrize("route", [",", "writing,,editing"])
def test_a_route_with_empty_names_is_refused(mesh: Mesh, route: str) -> None:
    done = mesh.run("submit", "x", "--route", route, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "--route" in done.stderr


@pytest.mark.parametrize("verb", [("job", "show"), ("watch",)])
def test_an_empty_job_id_is_refused_with_the_way_to_find_one(mesh: Mesh, verb: tuple[str, ...]) -> None:
    for job in ("", " "):
        done = mesh.run(*verb, job, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert "the job id is empty" in done.stderr
        assert "agent2389 job list" in done.stderr


@pytest.mark.parametrize("topic", ["a/#", "a/+/b"])
def test_a_topic_with_wildcards_is_wrong_input(mesh: Mesh, topic: str) -> None:
    done = mesh.run("publish", topic, "x", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "without wildcards" in done.stderr
