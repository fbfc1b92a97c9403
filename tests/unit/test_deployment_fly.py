"""The Fly files: only keys that flyctl reads, and the settings that keep an agent alive there."""

import pytest

from agent2389.config.environment import VARIABLES
from tests.support.deployment import ROOT, Document, drain_seconds, placeholders, seconds, toml

FLY = ROOT / "fly"
APPS = ("agent", "broker", "ops")

# What flyctl's own configuration structures know; `*` stands for names that a person chooses.
PROBE = {
    "port",
    "type",
    "interval",
    "timeout",
    "grace_period",
    "method",
    "path",
    "protocol",
    "headers",
    "processes",
}
KEYS: dict[str, set[str]] = {
    "": {
        "app",
        "primary_region",
        "kill_signal",
        "kill_timeout",
        "swap_size_mb",
        "console_command",
        "experimental",
        "build",
        "deploy",
        "env",
        "processes",
        "mounts",
        "http_service",
        "services",
        "checks",
        "files",
        "host_dedication_id",
        "machine_config",
        "container",
        "machine_checks",
        "restart",
        "vm",
        "statics",
        "metrics",
    },
    "build": {
        "image",
        "dockerfile",
        "ignorefile",
        "build-target",
        "args",
        "builder",
        "buildpacks",
        "builtin",
        "settings",
    },
    "deploy": {
        "strategy",
        "max_unavailable",
        "wait_timeout",
        "seed_command",
        "release_command",
        "release_command_timeout",
        "release_command_vm",
    },
    "env": {"*"},
    "processes": {"*"},
    "files": {"guest_path", "local_path", "secret_name", "raw_value", "processes"},
    "mounts": {
        "source",
        "destination",
        "initial_size",
        "snapshot_retention",
        "processes",
        "auto_extend_size_threshold",
        "auto_extend_size_increment",
        "auto_extend_size_limit",
    },
    "http_service": {
        "internal_port",
        "force_https",
        "auto_stop_machines",
        "auto_start_machines",
        "min_machines_running",
        "processes",
        "concurrency",
        "tls_options",
        "http_options",
        "checks",
        "machine_checks",
    },
    "http_service.concurrency": {"type", "soft_limit", "hard_limit"},
    "checks": {"*"},
    "checks.*": PROBE,
    "metrics": {"port", "path", "https", "processes"},
    "restart": {"policy", "retries", "processes"},
    "vm": {
        "size",
        "memory",
        "memory_mb",
        "cpus",
        "cpu_kind",
        "gpus",
        "gpu_kind",
        "host_dedication_id",
        "processes",
    },
}


def _unknown(table: object, place: str = "") -> set[str]:
    """Paths of the keys that flyctl would refuse."""
    if isinstance(table, list):
        return {key for item in table for key in _unknown(item, place)}
    if not isinstance(table, dict):
        return set()
    known = KEYS.get(place, set())
    found = set()
    for key, value in table.items():
        path = f"{place}.{'*' if '*' in known else key}".lstrip(".")
        if key not in known and "*" not in known:
            found.add(path)
        elif isinstance(value, (dict, list)) and path in KEYS:
            found |= _unknown(value, path)
    return found


@pytest.fixture(scope="module", params=APPS)
def app(request: pytest.FixtureRequest) -> Document:
    return toml(FLY / f"{request.param}.toml")


def test_every_key_is_known(app: Document) -> None:
    assert not _unknown(app)


def test_an_unknown_key_is_found() -> None:
    broken = {"app": "a", "auto_stop": True, "checks": {"ready": {"prot": 1}}, "vm": [{"memroy": "1gb"}]}
    assert _unknown(broken) == {"auto_stop", "checks.*.prot", "vm.memroy"}


def test_an_app_stops_gently_and_starts_again(app: Document) -> None:
    assert app["kill_signal"] == "SIGTERM"
    assert seconds(app["kill_timeout"]) <= 300
    assert [restart["policy"] for restart in app["restart"]] == ["always"]
    assert app["checks"], "without a check a deploy is never gated"


def test_files_exist(app: Document) -> None:
    build = app["build"]
    if "dockerfile" in build:  # beside the file, unlike local_path, which is in the working folder
        assert (FLY / build["dockerfile"]).is_file()
    else:
        assert not build["image"].endswith(":latest")
        assert ":" in build["image"]
    for file in app.get("files", []):
        assert "raw_value" not in file
        if "local_path" in file:
            assert (ROOT / file["local_path"]).is_file(), file["local_path"]


def test_nothing_secret_is_written_down(app: Document) -> None:
    secrets = {variable.name for variable in VARIABLES if variable.secret}
    known = {variable.name for variable in VARIABLES} | placeholders()
    assert not secrets & set(app.get("env", {}))
    assert set(app.get("env", {})) <= known


@pytest.mark.parametrize("name", ["agent", "ops"])
def test_health_is_public_and_the_machine_never_sleeps(name: str) -> None:
    app = toml(FLY / f"{name}.toml")
    service = app["http_service"]
    assert "services" not in app
    assert service["auto_stop_machines"] == "off"
    assert service["min_machines_running"] == 1
    assert str(service["internal_port"]) == app["env"]["HEALTH_PORT"]
    assert app["env"]["AGENT2389_BIND"] == "::"
    assert {check["path"] for check in app["checks"].values()} == {"/ready"}
    assert {check["port"] for check in app["checks"].values()} == {service["internal_port"]}
    assert set(service["processes"]) == set(app["processes"])


def test_an_agent_may_drain() -> None:
    app = toml(FLY / "agent.toml")
    (file,) = app["files"]
    assert file["guest_path"] == app["env"]["CONFIG_PATH"] == "/app/config/agent.toml"
    assert "mounts" not in app
    assert placeholders() <= set(app["env"])
    assert seconds(app["kill_timeout"]) >= drain_seconds(toml(ROOT / file["local_path"])) + 25
    assert toml(ROOT / file["local_path"])["agent"]["id"] == app["app"]


def test_the_broker_is_private_and_asks_for_passwords() -> None:
    app = toml(FLY / "broker.toml")
    assert not {"http_service", "services"} & set(app)
    assert f"mqtt://{app['app']}.internal:1883" == toml(FLY / "agent.toml")["env"]["MQTT_BROKER_URL"]
    lines = (FLY / "mosquitto.conf").read_text(encoding="utf-8").splitlines()
    assert "allow_anonymous false" in lines
    assert "listener 1883 ::" in lines
    named = {line.split()[1] for line in lines if line.startswith(("password_file", "acl_file"))}
    assert named <= {file["guest_path"] for file in app["files"]}
