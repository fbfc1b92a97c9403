"""The command line as people type it: files in, lines out, exit codes, no traceback."""

import functools
import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from agent2389.telemetry.children import free_port
from tests.support.mesh import clean_environ, command

GOOD = '[agent]\nid = "good"\n\n[llm]\nprovider = "rehearsal"\n'
MISTAKES = """[agent]
id = "no good"
capabilties = ["x"]

[llm]
provider = "opnai"
api_key = "sk-live-0123456789"

[budget]
max_iterations = 0
"""


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        env={**clean_environ(), **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def written(folder: Path, text: str, name: str = "agent.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# files -------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["basic", "routing", "tools"])
def test_a_new_agent_is_valid_and_stays_what_it_is(tmp_path: Path, template: str) -> None:
    made = run("new", "agent", "my-agent", "--template", template, cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "agents/my-agent.toml\n")
    path = tmp_path / "agents" / "my-agent.toml"
    assert tomllib.loads(path.read_text())["agent"]["id"] == "my-agent"
    checked = run("validate", str(path), "--json", cwd=tmp_path)
    assert checked.returncode == 0
    report = json.loads(checked.stdout)["data"][0]
    assert (report["ok"], report["problems"], report["warnings"]) == (True, [], [])
    again = run("new", "agent", "my-agent", "--template", template, cwd=tmp_path)
    assert again.returncode == 6
    assert "exists already" in again.stderr


@pytest.mark.parametrize("arguments", [("a/b",), ("x", "--template", "none"), ("../x",), ("",)])
def test_a_new_agent_needs_a_name_and_a_template(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run("new", "agent", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert list(tmp_path.iterdir()) == []


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, MISTAKES)
    good = written(tmp_path, GOOD, "good.toml")
    done = run("validate", str(path), str(good), "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    bad, fine = json.loads(done.stdout)["data"]
    assert (fine["ok"], bad["ok"]) == (True, False)
    text = "\n".join(bad["problems"])
    for expected in ("agent.id", 'did you mean "capabilities"', 'did you mean "openai"', "max_iterations"):
        assert expected in text
    for line in (2, 3, 6, 7, 10):
        assert f"agent.toml:{line}:" in text
    assert "sk-live" not in done.stdout
    for_people = run("validate", str(path), cwd=tmp_path)
    assert (for_people.returncode, for_people.stdout) == (3, "")
    assert for_people.stderr.count("error:") == len(bad["problems"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[agent\n", "agent.toml:1: not TOML"),
        ("", "[agent]"),
        ('agent = "x"\n', "must be a table"),
        ('[agent]\nid = "a"\nid = "b"\n', "not TOML"),
        ('[agent]\nid = "a"\nslots = 0\n', "agent.slots"),
        ('[agent]\nid = "a"\n[mqtt]\npassword = "hunter2-hunter2"\n', "must not stand in the file"),
        ('[agent]\nid = "a"\n[llm]\nmodel = "${NO_SUCH_NAME}"\n', "NO_SUCH_NAME is not set"),
    ],
)
def test_wrong_files_are_refused_with_their_reason(tmp_path: Path, text: str, expected: str) -> None:
    done = run("validate", str(written(tmp_path, text)), cwd=tmp_path)
    assert done.returncode == 3
    assert expected in done.stderr
    assert "hunter2" not in done.stderr


def test_a_wrong_file_is_refused_by_every_verb(tmp_path: Path) -> None:
    path = str(written(tmp_path, MISTAKES))
    for verb in (("run", path), ("config", "--show", "-c", path)):
        done = run(*verb, cwd=tmp_path)
        assert done.returncode == 3, verb
        assert "agent.id" in done.stderr


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'[agent]\nid = "\xe9"\n')
    for name, expected in (("nothing.toml", "No such file"), ("latin.toml", "not UTF-8"), (".", "directory")):
        done = run("validate", name, cwd=tmp_path)
        assert done.returncode == 3
        assert expected in done.stderr
    done = run("run", cwd=tmp_path)
    assert done.returncode == 3
    assert "CONFIG_PATH" in done.stderr
    assert "hint:" in done.stderr


def test_unknown_tools_are_a_warning_told_once(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + 'toolkits = ["no-such-kit"]\n[tools]\nno_such_tool = "builtin"\n')
    # `toolkits` stands in the table [llm] there: written wrongly, it is an error with its line.
    assert run("validate", str(path), cwd=tmp_path).returncode == 3
    path = written(tmp_path, 'toolkits = ["no-such-kit"]\n' + GOOD + '[tools]\nno_such_tool = "builtin"\n')
    done = run("validate", str(path), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("no_such_tool"), done.stderr.count("no-such-kit")) == (0, 1, 1)


# configuration -----------------------------------------------------------------------


def test_config_shows_values_with_origins_and_masks_secrets(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[agent]\nid = "a"\n[llm]\nprovider = "openai"\napi_key_env = "MY_KEY"\n[mqtt]\nusername = "me"\n',
    )
    done = run(
        *("config", "--show", "--json", "-c", str(path)),
        cwd=tmp_path,
        MY_KEY="sk-very-secret-0123",
        MQTT_PASSWORD="hunter2-hunter2",
        DATABASE_URL="postgresql://u:hunter3-hunter3@h/d",
        HEALTH_PORT="4711",
    )
    assert done.returncode == 0
    rows = json.loads(done.stdout)["data"]
    assert rows["agent.id"] == {"value": "a", "origin": f"{path}:2"}
    assert rows["health.port"] == {"value": 4711, "origin": "environment HEALTH_PORT"}
    assert rows["agent.slots"] == {"value": 4, "origin": "default"}
    assert rows["llm.api_key"]["value"] == "********"
    assert rows["mqtt.password"] == {"value": "********", "origin": "environment MQTT_PASSWORD"}
    assert rows["ledger.database_url"]["origin"] == "environment DATABASE_URL"
    assert "hunter" not in done.stdout
    assert "sk-very" not in done.stdout
    table = run("config", "--show", "-c", str(path), cwd=tmp_path, MY_KEY="sk-very-secret-0123")
    assert "sk-very" not in table.stdout
    assert "agent.slots" in table.stdout


def test_config_schema_is_a_json_schema_that_knows_every_table(tmp_path: Path) -> None:
    done = run("config", "--schema", cwd=tmp_path)
    schema = json.loads(done.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"agent", "mqtt", "llm", "tools", "budget", "routing", "ledger"} <= set(schema["properties"])
    assert not {"sha256", "path"} & set(schema["properties"])
    assert run("config", cwd=tmp_path).returncode == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "FILE", "config", "--show"),
        ("config", "--show", "-c", "FILE"),
        ("--config", "FILE", "config", "--show"),
        ("-c", "FILE", "validate"),
        ("validate", "--config", "FILE"),
    ],
)
def test_the_file_may_be_named_before_and_after_the_verb(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = written(tmp_path, GOOD, "elsewhere.toml")
    done = run(*(str(path) if item == "FILE" else item for item in arguments), cwd=tmp_path)
    assert (done.returncode, "good" in done.stdout or "ok" in done.stdout) == (0, True)


# online ------------------------------------------------------------------------------


def test_validate_online_names_each_thing_that_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, '[agent]\nid = "a"\n[llm]\nmodel = "gpt-4o-mini"\n')
    assert run("validate", str(path), cwd=tmp_path).returncode == 0
    nowhere = {
        "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}",
        "DATABASE_URL": f"postgresql://u:hunter2-hunter2@127.0.0.1:{free_port()}/d",
    }
    done = run("validate", str(path), "--online", "--json", cwd=tmp_path, **nowhere)
    assert done.returncode == 9
    broker, ledger, model = json.loads(done.stdout)["data"][0]["problems"]
    assert broker.startswith("broker: ")
    assert "MQTT_BROKER_URL" in broker
    assert ledger.startswith("ledger: ")
    assert "DATABASE_URL" in ledger
    assert model.startswith("model: environment variable OPENAI_API_KEY is not set")
    assert "hunter2" not in done.stdout + done.stderr


# ends --------------------------------------------------------------------------------


def test_usage_errors_are_two(tmp_path: Path) -> None:
    for arguments in (("no-such-verb",), ("submit",), ("job", "list", "--limit", "0"), ("run", "--nope")):
        assert run(*arguments, cwd=tmp_path).returncode == 2, arguments


def test_without_a_mesh_the_api_is_unreachable(tmp_path: Path) -> None:
    for arguments in (
        ("submit", "x"),
        ("job", "list"),
        ("job", "retry", "x"),
        ("result", "x"),
        ("agent", "list"),
        ("approval", "list"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (9, "")
        assert "agent2389 up" in done.stderr
    assert run("down", cwd=tmp_path).returncode == 5
    assert run("agent", "logs", "x", cwd=tmp_path).returncode == 5
    assert run("agent", "logs", "x", "--url", "http://127.0.0.1:9", cwd=tmp_path).returncode == 9
    assert run("up", "--print-env", cwd=tmp_path).returncode == 5
    assert run("healthcheck", cwd=tmp_path, HEALTH_PORT=str(free_port())).returncode == 5
    assert run("db", "status", cwd=tmp_path).returncode == 3


def test_version_and_help_are_data(tmp_path: Path) -> None:
    assert run("version", cwd=tmp_path).stdout.startswith("agent2389 ")
    for arguments in (("--help",), ("-h",), ("job", "--help"), ("run", "--help")):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage:" in done.stdout


def test_help_begins_with_the_verbs_of_every_day(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    verbs = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()]
    assert verbs[:8] == ["up", "down", "run", "ops", "submit", "watch", "trace", "result"]
    assert len(verbs) == len(set(verbs))
    for group, known in {
        "job": "list show cancel events retry clone escalate accept answer override assign explain transcript resolve",
        "approval": "list show approve reject",
        "agent": "list show pause resume drain stop restart logs",
        "pool": "list",
    }.items():
        told = run(group, "--help", cwd=tmp_path).stdout.partition("Commands:")[2]
        assert [line.split()[0] for line in told.splitlines() if line.strip()] == known.split()


def test_a_taken_port_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run("up", "--data", str(tmp_path / "data"), cwd=tmp_path, HEALTH_PORT=str(port))
        assert done.returncode == 3
        assert f"port {port} is taken" in done.stderr
        agent = written(tmp_path, GOOD)
        done = run("run", str(agent), cwd=tmp_path, HEALTH_PORT=str(port))
        assert done.returncode == 3
        assert str(port) in done.stderr


@pytest.mark.parametrize(
    ("environ", "code", "expected"),
    [
        ({"MQTT_BROKER_URL": "mqtt://127.0.0.1:PORT"}, 9, "cannot be reached"),
        ({"MQTT_BROKER_URL": "nonsense"}, 3, "must look like mqtt://"),
        ({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:PORT/d"}, 9, "does not answer"),
        ({"DATABASE_URL": "nonsense"}, 3, "DATABASE_URL"),
    ],
)
def test_a_mesh_on_servers_that_are_not_there_does_not_begin(
    tmp_path: Path, environ: dict[str, str], code: int, expected: str
) -> None:
    port = str(free_port())
    given = {name: value.replace("PORT", port) for name, value in environ.items()}
    done = run("up", "--data", "data", cwd=tmp_path, HEALTH_PORT="0", **given)
    assert (done.returncode, done.stdout) == (code, "")
    assert expected in done.stderr
    assert "hunter2" not in done.stderr
    location = tmp_path / "data" / "postgres.location"
    if location.exists():
        shutil.rmtree(location.read_text().strip(), ignore_errors=True)


def test_a_wrong_broker_address_is_told_before_the_ledger_comes(tmp_path: Path) -> None:
    away = {"DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/d", "HEALTH_PORT": "0"}
    for verb in (("run", str(written(tmp_path, GOOD))), ("ops",)):
        done = run(*verb, cwd=tmp_path, MQTT_BROKER_URL="nonsense", **away)
        assert done.returncode == 3, verb
        assert "must look like mqtt://" in done.stderr
    assert run("ops", cwd=tmp_path, HEALTH_PORT="0").returncode == 3


def test_run_without_a_key_says_which(tmp_path: Path) -> None:
    path = written(tmp_path, '[agent]\nid = "a"\n[llm]\nmodel = "claude-sonnet-4"\n')
    done = run("run", str(path), cwd=tmp_path)
    assert done.returncode == 3
    assert "ANTHROPIC_API_KEY" in done.stderr


@pytest.mark.parametrize("where", ["before", "after", "alone"])
def test_an_interrupted_agent_ends_without_a_traceback(tmp_path: Path, where: str) -> None:
    """Its ledger and broker are away, so it waits; Ctrl-C ends it in any case."""
    path = str(written(tmp_path, GOOD))
    arguments = {"before": ("-c", path, "run"), "after": ("run", "-c", path), "alone": ("run", path)}[where]
    port = free_port()
    process = subprocess.Popen(
        command(*arguments),
        env={
            **clean_environ(),
            "HEALTH_PORT": str(port),
            "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}",
            "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/d",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    answers = until_healthcheck(process, port, tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert answers
    assert process.returncode in (0, 130)
    assert out == ""
    assert "Traceback" not in err


def until_healthcheck(process: subprocess.Popen[str], port: int, cwd: Path) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if run("healthcheck", cwd=cwd, HEALTH_PORT=str(port)).returncode == 0:
            return run("healthcheck", "--path", "/ready", cwd=cwd, HEALTH_PORT=str(port)).returncode == 5
    return False


def test_an_interrupted_one_shot_verb_is_130(tmp_path: Path) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(20)
        process = subprocess.Popen(
            command("--api", f"http://127.0.0.1:{silent.getsockname()[1]}", "watch", "x"),
            env=clean_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            # A background job of a shell inherits that Ctrl-C is ignored.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        connection, _ = silent.accept()
        with connection:
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
