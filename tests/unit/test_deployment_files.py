"""Image and compose file: schema, lint, our rules, and every path they name."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent2389.config.environment import VARIABLES
from agent2389.wire.limits import MAX_MESSAGE_BYTES
from tests.support.deployment import (
    ROOT,
    Document,
    compose,
    data_files,
    drain_seconds,
    instructions,
    placeholders,
    seconds,
    toml,
)

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
DOCKERFILES = sorted({DOCKERFILE, *(ROOT / "broker").glob("Dockerfile*")})
TOOLS = Path(sys.executable).parent
HADOLINT = shutil.which("hadolint", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
AGENTS = ("researcher", "writer", "editor", "judge", "agent")
SHIPPED = {"researcher", "writer", "editor", "judge", "generalist"}
OURS = {*AGENTS, "ops", "migrate"}
ONE_SHOT = {"migrate", "logins"}


def _tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / name), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def services() -> dict[str, Document]:
    found: dict[str, Document] = compose()["services"]
    return found


# The image


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (no wheel for this platform)")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dockerfile_is_lint_free(path: Path) -> None:
    done = subprocess.run([str(HADOLINT), str(path)], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_image_runs_unprivileged_with_signals_intact() -> None:
    lines = instructions(DOCKERFILE)
    last = dict(lines)
    assert last["ENTRYPOINT"] == '["tini", "--", "agent2389"]'
    assert last["CMD"] == '["run"]'
    assert last["HEALTHCHECK"].endswith('CMD ["agent2389", "healthcheck"]')
    assert last["USER"] == "10001:10001"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert [word for word, _ in lines].count("FROM") == 2
    assert not re.search(r"\b(curl|wget|sudo)\b", DOCKERFILE.read_text(encoding="utf-8"))


def test_image_sets_what_the_platforms_rely_on() -> None:
    *_, environment = [rest for word, rest in instructions(DOCKERFILE) if word == "ENV"]
    values = dict(re.findall(r"(\w+)=(\S+)", environment))
    assert values["CONFIG_PATH"] == "/app/config/agent.toml"
    assert values["HEALTH_PORT"] == "8080"
    assert values["LOG_FORMAT"] == "json"
    assert values["AGENT2389_BIND"] == "0.0.0.0"
    foreign = {"PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert set(values) - foreign <= {variable.name for variable in VARIABLES}


def test_image_is_built_from_the_lock_file_and_nothing_unexpected() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for word, rest in instructions(DOCKERFILE)
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    syncs = [rest for word, rest in instructions(DOCKERFILE) if word == "RUN" and " sync " in rest]
    assert all("--frozen --no-dev" in sync for sync in syncs)
    assert "--no-editable" in syncs[-1]
    wanted = [set(re.findall(r"--extra (\w+)", sync)) for sync in syncs]
    assert wanted == [{"llm", "docs", "mcp", "s3", "graph"}] * 2
    assert wanted[0] <= set(toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"])


# Compose


def test_compose_file_is_valid() -> None:
    done = _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


def test_the_schema_check_sees_a_misspelt_key(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").replace("depends_on:", "depend_on:", 1)
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text, encoding="utf-8")
    assert _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", broken).returncode == 1


def test_services_wait_for_what_can_answer(services: dict[str, Document]) -> None:
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            awaited = services[other]
            assert not awaited.get("profiles"), f"{name} waits for {other}, which may not run"
            if wait["condition"] == "service_healthy":
                assert "test" in awaited["healthcheck"]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert other in ONE_SHOT
                assert awaited["restart"].startswith("on-failure")


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_are_hardened(services: dict[str, Document], name: str) -> None:
    service = services[name]
    assert service["image"] == "agent2389:0.1.0"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    if name not in ONE_SHOT:
        assert service["healthcheck"]["test"] == ["CMD", "agent2389", "healthcheck"]
        assert service["restart"] == "unless-stopped"


def test_the_image_version_is_the_package_version(services: dict[str, Document]) -> None:
    version = toml(ROOT / "pyproject.toml")["project"]["version"]
    assert services["ops"]["image"] == f"agent2389:{version}"


def test_every_service_is_bounded_and_pinned(services: dict[str, Document]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert "memory" in limits, name
        assert "cpus" not in limits, name
        _, _, tag = service["image"].partition(":")
        assert tag not in {"", "latest"}, name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_only_loopback_is_published(services: dict[str, Document]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"mqtt-broker": ["127.0.0.1:1883:1883"], "ops": ["127.0.0.1:2389:2389"]}


def test_optional_databases_are_profiles(services: dict[str, Document]) -> None:
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {"mongodb": ["mongo"], "neo4j": ["neo4j"]}


def test_the_generic_pool_is_sized_and_filled_by_variables() -> None:
    plain = compose()["services"]["agent"]
    assert plain["volumes"][0] == "./agents/generalist.toml:/app/config/agent.toml:ro"
    wide = compose(AGENT_REPLICAS="7", AGENT_CONFIG="./mine.toml")["services"]["agent"]
    assert wide["deploy"]["replicas"] == "7"
    assert wide["volumes"][0] == "./mine.toml:/app/config/agent.toml:ro"


def test_mounted_files_exist(services: dict[str, Document]) -> None:
    named = set(compose()["volumes"])
    mounted: set[str] = set()
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                mounted.add(source)
            else:
                assert source.startswith("/") or source in named
    assert {f"./agents/{agent}.toml" for agent in SHIPPED} <= mounted
    assert not [source for source in sorted(mounted) if not (ROOT / source).exists()]


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_may_drain(services: dict[str, Document], name: str) -> None:
    agent = toml(ROOT / services[name]["volumes"][0].split(":")[0])
    assert seconds(services[name]["stop_grace_period"]) >= drain_seconds(agent) + 25


def test_secrets_are_files(services: dict[str, Document]) -> None:
    secret = {variable.name for variable in VARIABLES if variable.secret}
    known = {variable.name for variable in VARIABLES} | {f"{name}_FILE" for name in secret} | placeholders()
    for name in OURS:
        environment = services[name]["environment"]
        assert not secret & set(environment), name
        assert set(environment) <= known, name
        files = {value for key, value in environment.items() if key.endswith("_FILE")}
        assert files == {f"/run/secrets/{item}" for item in services[name]["secrets"]}, name


@pytest.mark.parametrize("name", AGENTS)
def test_whatever_an_agent_file_asks_for_can_be_set(name: str) -> None:
    chosen = {"AGENT2389_LLM_PROVIDER": "openai", "AGENT2389_LLM_MODEL": "a-model"}
    environment = compose(**chosen)["services"][name]["environment"]
    assert placeholders() <= set(environment)
    assert {key: environment[key] for key in chosen} == chosen


def test_one_command_makes_every_secret(tmp_path: Path) -> None:
    script, folder = ROOT / "deploy" / "create-secrets.sh", tmp_path / "secrets"
    environ = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": "key-of-a-test"}
    subprocess.run([script, folder], check=True, env=environ, timeout=60)
    made = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    wanted = {Path(secret["file"]) for secret in compose()["secrets"].values()}
    assert {path.name for path in wanted} == set(made)
    assert {path.parent for path in wanted} == {Path("deploy/secrets")}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made["openai_api_key"] == "key-of-a-test"
    assert made["anthropic_api_key"] == ""
    passwords = [made[f"{role}_password"] for role in ("postgres", "agent", "operator")]
    assert len(set(passwords)) == 3
    assert all(len(password) == 48 for password in passwords)
    assert (
        made["agent_database_url"] == f"postgresql://mesh_agent:{made['agent_password']}@postgres:5432/mesh"
    )

    subprocess.run([script, folder], check=True, env=environ, timeout=60)
    assert made == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_made_secrets_never_enter_the_history() -> None:
    ignored = (ROOT / "deploy" / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/secrets/" in ignored


# All data files


def test_no_data_file_shares_a_subscription_or_holds_a_key() -> None:
    key = re.compile(r"sk-[A-Za-z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY")
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in data_files()}
    assert len(texts) > 20
    assert not [path for path, text in texts.items() if "$share" in text]
    assert not [path for path, text in texts.items() if key.search(text)]


def test_data_folders_hold_no_python() -> None:
    assert not [path for path in data_files() if path.suffix == ".py"]


def test_every_broker_file_keeps_its_promises() -> None:
    files = [
        ROOT / "deploy/mosquitto.compose.conf",
        ROOT / "k8s/base/mosquitto.conf",
        ROOT / "fly/mosquitto.conf",
    ]
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        settings = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line and line[0] != "#"}
        assert settings["persistence"] == "true", path
        assert "autosave_on_changes" not in settings, path
        # Above a message's own limit: what is a little too large gets an answer of the mesh, not silence.
        assert int(settings["message_size_limit"]) == 4 * MAX_MESSAGE_BYTES, path
        assert int(settings["max_queued_messages"]) > 1000, path
