"""The broker's files: who gets a login, what stands in each file, what a second run keeps."""

import inspect
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent2389.broker import access
from agent2389.broker.access import RULES, Identity, Reach, Role, Scope, grants
from agent2389.broker.filters import matches
from agent2389.broker.identities import Wanted, identities
from agent2389.broker.mosquitto import Layout, render_acl, render_configuration, render_dynamic_security
from agent2389.broker.passwords import hash_password, new_password, read_hash, read_password_file
from agent2389.config.load import load_agent
from agent2389.config.model import AgentConfiguration
from agent2389.errors import ConfigurationError
from agent2389.wire import topics as wire_topics
from agent2389.wire.topics import MeshTopics
from tests.support.mesh import clean_environ
from tests.support.structure import ROOT

NO_TOPICS = ("everything", "presence_of", "replies")
AGENT = """
[agent]
id = "{id}"
capabilities = ["{capability}"]
{more}
"""


def agent(folder: Path, name: str, capability: str = "work", more: str = "") -> AgentConfiguration:
    return load_agent(file(folder, name, capability, more), environ={}).configuration


def file(folder: Path, name: str, capability: str = "work", more: str = "") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(AGENT.format(id=name, capability=capability, more=more))
    return path


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent2389", "broker", *arguments],
        cwd=cwd,
        env={**clean_environ(), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


# the table -----------------------------------------------------------------------------


def test_every_topic_of_the_mesh_has_a_rule() -> None:
    mesh = MeshTopics()
    made: set[str] = set()
    for name, method in inspect.getmembers(mesh, inspect.ismethod):
        parameters = inspect.signature(method).parameters.values()
        if name.startswith("_") or name in NO_TOPICS or name.endswith(("filter", "filters")):
            continue
        made.add(method(*(3 if parameter.annotation is int else "x1" for parameter in parameters)))
    made |= {
        wire_topics.protocol_input("x1"),
        wire_topics.protocol_status("x1"),
        *wire_topics.protocol_digests("x1"),
        wire_topics.conversation("c", "x1"),
        mesh.replies() + "mine",
    }
    filters = [item for rule in RULES for item in rule.filters(mesh, Scope())]
    assert len(made) > 18
    assert not {topic for topic in made if not any(matches(item, topic) for item in filters)}


def test_only_ops_and_operators_reach_what_steers() -> None:
    for rule in RULES:
        writers = {role for role in Role if rule.of(role).write is not Reach.NONE}
        if rule.kind in ("control/{agent_id}", "approvals/{approval_id}/answer"):
            assert writers == {Role.OPS, Role.OPERATOR}
        assert Role.MONITOR not in writers


def test_an_agent_speaks_as_itself_and_hears_its_own(tmp_path: Path) -> None:
    (found,) = [
        item for item in identities([agent(tmp_path, "r1", "research")], Wanted()) if item.login == "r1"
    ]
    mine = {grant.topic_filter: grant.word for grant in grants(found, foreign=("guest",))}
    assert mine["/control/agents/r1/input"] == "read"
    assert mine["/control/agents/guest/input"] == "write"
    assert mine["/control/agents/r1/status"] == "write"
    assert mine["agent2389/v1/default/wake/agent.r1"] == "read"
    assert mine["agent2389/v1/default/jobs/research/+"] == "readwrite"
    assert "/control/agents/+/input" not in mine


# who gets a login ------------------------------------------------------------------------


def test_tenants_have_logins_of_their_own(tmp_path: Path) -> None:
    files = [agent(tmp_path, "one"), agent(tmp_path, "two", more='tenant = "acme"')]
    made = {item.login: item for item in identities(files, Wanted())}
    assert set(made) == {
        *("ops", "producer", "monitor", "operator", "one"),
        *("acme.ops", "acme.producer", "acme.monitor", "acme.operator", "acme.two"),
    }
    assert all("/default/" not in grant.topic_filter for grant in grants(made["acme.ops"]))


def test_files_with_one_username_share_its_rights(tmp_path: Path) -> None:
    more = '[mqtt]\nusername = "crew"'
    files = [agent(tmp_path, "one", "a", more), agent(tmp_path, "two", "b", more)]
    (crew,) = [item for item in identities(files, Wanted()) if item.role is Role.AGENT]
    assert crew == Identity("crew", Role.AGENT, "default", Scope(("one", "two"), ("a", "b")))


def test_a_login_with_two_meanings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        identities([agent(tmp_path, "ops")], Wanted(foreign=("monitor",)))
    assert len(caught.value.problems) == 2
    assert "agent of tenant default" in caught.value.problems[0]
    assert caught.value.hint


def test_a_login_that_would_break_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not clear"):
        identities([agent(tmp_path, "one", more='[mqtt]\nusername = "a:b\\ntopic #"')], Wanted())
    with pytest.raises(ConfigurationError):
        identities([], Wanted(foreign=("+",)))


# the shipped files ---------------------------------------------------------------------


def test_the_shipped_rights_are_the_generators() -> None:
    made = render_acl(identities([], Wanted(shared=True)))
    for name in ("broker/acl.template", "k8s/base/acl"):
        told = f"run: agent2389 broker acl --shared > {name}"
        assert (ROOT / name).read_text(encoding="utf-8") == made, told


@pytest.mark.parametrize(
    ("name", "layout", "options"),
    [
        ("broker/mosquitto.prod.conf", Layout(), ""),
        ("k8s/base/mosquitto.conf", Layout(certificates=None, listener="1883"), "--plain"),
        ("fly/mosquitto.conf", Layout(certificates=None, listener="1883 ::"), "--plain --listener '1883 ::'"),
    ],
)
def test_the_shipped_configurations_are_the_generators(name: str, layout: Layout, options: str) -> None:
    told = f"run: agent2389 broker config --shared {options} --location /mosquitto/config --out FOLDER"
    assert (ROOT / name).read_text(encoding="utf-8") == render_configuration(layout), told


def test_dynamic_security_lets_nobody_do_anything_by_default(tmp_path: Path) -> None:
    made = identities([agent(tmp_path, "one")], Wanted())
    hashes = {item.login: hash_password("x") for item in made}
    document = json.loads(render_dynamic_security(made, hashes))
    assert document["defaultACLAccess"] == {
        "publishClientSend": False,
        "publishClientReceive": False,
        "subscribe": False,
        "unsubscribe": True,
    }
    assert {client["username"] for client in document["clients"]} == set(hashes)
    roles = {role["rolename"]: role["acls"] for role in document["roles"]}
    assert not [item for item in roles["monitor"] if item["acltype"] == "publishClientSend"]
    wide = [item["acltype"] for items in roles.values() for item in items if item["topic"] == "#"]
    assert wide == ["subscribePattern"] * 3  # looking over everything still reads only what it may


# passwords -----------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
def test_hashes_are_mosquittos_own(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text(f"ours:{hash_password('first one')}\n")
    subprocess.run(["mosquitto_passwd", "-b", path, "theirs", "second: ö one"], check=True)
    found = read_password_file(path.read_text())
    assert found["theirs"].matches("second: ö one")
    assert not found["theirs"].matches("second: o one")
    assert found["ours"].matches("first one")
    assert [len(found[name].salt) for name in ("ours", "theirs")] == [12, 12]
    assert str(read_hash(str(found["theirs"]))) == str(found["theirs"])


def test_two_hashes_of_one_password_differ() -> None:
    first, second = hash_password("same"), hash_password("same")
    assert str(first) != str(second)
    assert first.matches("same")
    assert second.matches("same")


def test_new_passwords_survive_urls_and_shells() -> None:
    made = {new_password() for _ in range(200)}
    assert len(made) == 200
    assert all(len(item) == 32 and item.replace("-", "").replace("_", "").isalnum() for item in made)


@pytest.mark.parametrize("line", ["ops:plain", "ops:$6$abc$def", "ops:$7$x$!!$", "ops", "ops:$7$101$a$b$c"])
def test_a_foreign_password_file_is_told_apart(line: str) -> None:
    with pytest.raises(ConfigurationError):
        read_password_file(line + "\n")


# the commands --------------------------------------------------------------------------


def test_acl_prints_what_the_folder_asks_for(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    file(tmp_path / "agents", "solo", "solving")
    done = run("acl", "--foreign", "guest", cwd=tmp_path, MQTT_USERNAME="not-the-agents")
    assert done.returncode == 0, done.stderr
    users = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("user ")]
    assert users == ["ops", "producer", "monitor", "operator", "solo", "guest"]
    assert "topic readwrite agent2389/v1/default/jobs/solving/+" in done.stdout
    document = json.loads(run("acl", "--json", cwd=tmp_path).stdout)["data"]
    assert {"topic": "agent2389/v1/default/mesh", "access": "read"} in document[-1]["grants"]


def test_config_writes_private_files_and_keeps_passwords(tmp_path: Path) -> None:
    source = str(file(tmp_path, "solo"))
    first = run("config", source, "--out", "broker", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    shown = {row["login"]: row["password"] for row in json.loads(first.stdout)["data"]}
    folder = tmp_path / "broker"
    assert {path.name for path in folder.iterdir()} == {"mosquitto.conf", "passwords", "acl", "data"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir() if path.is_file())
    text = (folder / "passwords").read_text()
    assert not [password for password in shown.values() if password in text]
    assert all(read_password_file(text)[login].matches(word) for login, word in shown.items())
    assert f"password_file {folder}/passwords" in (folder / "mosquitto.conf").read_text()

    file(tmp_path, "other")
    both = [source, str(tmp_path / "other.toml")]
    second = json.loads(run("config", *both, "--out", "broker", "--json", cwd=tmp_path).stdout)["data"]
    assert {row["login"] for row in second if row["password"]} == {"other"}
    assert (folder / "passwords").read_text().startswith(text)

    third = run("config", source, "--out", "broker", "--rotate", "ops", cwd=tmp_path)
    assert "removed: other" in third.stderr
    assert shown["ops"] not in third.stdout
    now = read_password_file((folder / "passwords").read_text())
    assert set(now) == set(shown)
    assert not now["ops"].matches(shown["ops"])
    assert now["solo"].matches(shown["solo"])


def test_passwords_from_the_environment_are_used_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    environ = {
        "AGENT2389_MQTT_PASSWORD_OPS": "from-a-variable",
        "AGENT2389_MQTT_PASSWORD_MY_AGENT_FILE": str(tmp_path / "secret"),
    }
    source = str(file(tmp_path, "my-agent"))
    first = run("config", source, "--out", "broker", cwd=tmp_path, **environ)
    assert first.returncode == 0, first.stderr
    assert "from-a" not in first.stdout + first.stderr
    text = (tmp_path / "broker" / "passwords").read_text()
    known = read_password_file(text)
    assert known["ops"].matches("from-a-variable")
    assert known["my-agent"].matches("from-a-file")
    run("config", source, "--out", "broker", cwd=tmp_path, **environ)
    assert (tmp_path / "broker" / "passwords").read_text() == text


def test_a_variable_of_two_logins_is_refused(tmp_path: Path) -> None:
    sources = [str(file(tmp_path, "a-b")), str(file(tmp_path, "a.b"))]
    done = run("config", *sources, "--out", "broker", cwd=tmp_path, AGENT2389_MQTT_PASSWORD_A_B="x")
    assert done.returncode == 3
    assert "a-b and of a.b" in done.stderr
    assert not (tmp_path / "broker").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("config", "--rotate", "nobody"), 5, "there is no login nobody"),
        (("acl", "missing.toml"), 3, "missing.toml"),
        (("acl", "empty"), 3, "holds no agent file"),
        (("config", "--out", "a-file"), 1, "a-file"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("")
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert told in done.stderr
    assert "hint:" in done.stderr


def test_the_table_is_not_wider_than_it_says() -> None:
    assert set(access.PURPOSES) == set(Role)
    assert [rule.kind for rule in RULES if rule.producer.write is Reach.ANY] == [
        "jobs/{capability}",
        "jobs/{capability}/{job_id}",
        "cancel/{job_id}",
        "/control/agents/{agent_id}/input",
    ]
