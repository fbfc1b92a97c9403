"""Our agents in a mixed fleet: every requirement holds, and work goes to and from agents of others."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent2389.proving.conformance.requirements import REQUIREMENTS
from agent2389.proving.conformance.run import CHECKS
from tests.support.mesh import PREFIX, Mesh, command, running_mesh
from tests.support.stand_in import REFERENCE
from tests.support.structure import ROOT

SUBJECT = """
toolkits = ["echo"]

[agent]
id = "subject"
description = "Is held against the protocol."
capabilities = ["conformance-subject"]

[llm]
provider = "openai"
model = "conformance"
base_url = "${LLM_BASE_URL:-http://127.0.0.1:9/v1}"
system_prompt = "You answer."
"""


STARTER = """
[agent]
id = "starter"
description = "Begins what others finish."
capabilities = ["starting"]

[llm]
provider = "rehearsal"
model = "rehearsal"
system_prompt = "You begin."

[routing]
strategy = "rules"

[[routing.rules]]
path = "$.answer"
to = "standing-in"
reason = "others finish it"
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("mesh")
    agents = folder / "agents"
    agents.mkdir()
    for name in ("writer", "editor"):
        shutil.copy(ROOT / "agents" / f"{name}.toml", agents)
    (agents / "starter.toml").write_text(STARTER)
    with running_mesh(folder / "data", agents=agents, AGENT2389_LOCAL_BROKER="mosquitto") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def theirs(mesh: Mesh) -> Iterator[str]:
    """Another implementation on the same broker, with the habits of the reference."""
    with stand_in(mesh, "theirs") as agent:
        yield agent


@contextmanager
def stand_in(mesh: Mesh, agent: str) -> Iterator[str]:
    words = [sys.executable, "-m", "tests.support.stand_in", "--agent", agent]
    for deviation in REFERENCE:
        words += ["--fault", deviation]
    environ = {**os.environ, "MQTT_BROKER_URL": mesh.exported["MQTT_BROKER_URL"], "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env=environ)
    try:
        mesh.until(lambda: mesh.on(f"/control/agents/{agent}/status"))
        yield agent
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.timeout(300)
def test_our_agent_passes_every_requirement(mesh: Mesh, tmp_path: Path) -> None:
    assert CHECKS
    path = tmp_path / "subject.toml"
    path.write_text(SUBJECT)
    start = shlex.join([*command("run", str(path))])
    done = subprocess.run(
        command(
            "conformance", "--agent", "subject", "--start", start, "--timeout", "10", "--strict", "--json"
        ),
        env={**mesh.environ, "HEALTH_PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    verdicts = {item["id"]: item["verdict"] for item in document["data"]["requirements"]}
    assert verdicts == dict.fromkeys(REQUIREMENTS, "pass"), done.stdout + done.stderr
    assert document["meta"] == {"conforms": True}
    assert done.returncode == 0


def test_a_job_for_a_foreign_agent_comes_back_as_its_result(mesh: Mesh, theirs: str) -> None:
    job_id = f"foreign-{uuid.uuid4().hex[:8]}"
    job = {"instruction": "Say it.", "input": {"lamp": "green"}, "agent": theirs, "job_id": job_id}
    mesh.run("submit", "Say it.", "--agent", theirs, "--input", '{"lamp": "green"}', "--wait")
    mesh.publish(f"{PREFIX}/jobs/any/{job_id}", job)
    result = mesh.heard(f"{PREFIX}/results/{job_id}")
    assert result["state"] == "completed"
    assert [hop["agent_id"] for hop in result["route"]] == [theirs]
    assert "theirs: Say it." in result["result"]["text"]


def test_json_with_a_result_arrives_unwrapped_as_they_send_it(mesh: Mesh, theirs: str) -> None:
    done = mesh.run("submit", '{"result": "only this"}', "--agent", theirs, "--input", '""', "--wait")
    assert done.stdout.strip() == "only this"


def test_a_chain_goes_from_ours_to_theirs_and_back_to_ours(mesh: Mesh, theirs: str) -> None:
    back = {"topic": "/control/agents/editor/input", "instruction": "Edit it.", "input": None, "next": None}
    link = {"topic": f"//control/agents/{theirs}/input/", "instruction": "Add.", "input": None, "next": back}
    message = _envelope("writer", next=link)
    mesh.publish("/control/agents/writer/input", message)
    answer = mesh.heard(f"/conversations/{message['conversation_id']}/editor")
    assert answer["task_id"] == message["task_id"]
    assert "harbour" in answer["response"]
    sent = json.loads(mesh.on(f"/control/agents/{theirs}/input")[-1])
    assert sent["conversation_id"] == message["conversation_id"]
    assert (sent["instruction"], sent["next"]) == ("Add.", None)
    assert "harbour" in sent["input"]
    assert uuid.UUID(sent["task_id"]).version == 4


def test_theirs_hands_on_to_ours(mesh: Mesh, theirs: str) -> None:
    link = {
        "topic": "/control/agents/writer/input",
        "instruction": "Write a note.",
        "input": None,
        "next": None,
    }
    message = _envelope(theirs, next=link)
    mesh.publish(f"/control/agents/{theirs}/input", message)
    answer = mesh.heard(f"/conversations/{message['conversation_id']}/writer")
    assert answer["task_id"] == message["task_id"]
    assert "harbour opens at six" in answer["response"]


def test_a_rule_hands_on_to_what_only_theirs_can_do(mesh: Mesh, theirs: str) -> None:
    mesh.until(lambda: any(theirs.encode() in body for body in mesh.on(f"{PREFIX}/neighbours")))
    mesh.publish(f"{PREFIX}/jobs/starting/by-rule", {"instruction": "Begin. The lamp is green today."})
    result = mesh.heard(f"{PREFIX}/results/by-rule")
    assert [hop["agent_id"] for hop in result["route"]] == ["starter", theirs]
    assert result["state"] == "completed"


def test_a_task_waits_until_the_foreign_agent_is_there(mesh: Mesh) -> None:
    agent = f"later-{uuid.uuid4().hex[:6]}"
    job_id = f"wait-{agent}"
    mesh.publish(f"{PREFIX}/jobs/any/{job_id}", {"instruction": "Come.", "agent": agent})
    receipt = mesh.heard(f"{PREFIX}/receipts/{job_id}")
    assert receipt["note"] == "no_live_agent"
    assert not mesh.on(f"/control/agents/{agent}/input")
    with stand_in(mesh, agent):
        assert mesh.heard(f"{PREFIX}/results/{job_id}")["state"] == "completed"


def _envelope(agent: str, **changes: object) -> dict[str, object]:
    return {
        "task_id": str(uuid.uuid4()),
        "conversation_id": f"talk-{uuid.uuid4().hex[:8]}",
        "topic": f"/control/agents/{agent}/input",
        "instruction": "Write a note. The harbour opens at six.",
        "input": {},
        "next": None,
    } | changes


# the command line ------------------------------------------------------------------------


def test_submit_sends_a_message_over_the_protocol_and_waits_for_the_last_agent(
    mesh: Mesh, theirs: str
) -> None:
    words = ["submit", "--agent", "writer", "--message", "Write a note. The harbour opens at six."]
    done = mesh.run(*words, "--wait", "--json")
    answer = json.loads(done.stdout)["data"]
    assert (answer["agent_id"], answer["error"]) == ("writer", None)
    assert "harbour opens at six" in answer["response"]
    sent = [json.loads(payload) for payload in mesh.on("/control/agents/writer/input")][-1]
    assert sent["input"] == {"message": "Write a note. The harbour opens at six."}
    chained = mesh.run(*words, "--next-agent", f"{theirs},editor", "--wait")
    assert "harbour" in chained.stdout


def test_a_job_names_the_agents_that_continue(mesh: Mesh, theirs: str) -> None:
    words = ["submit", "Write. The wind is cold.", "--agent", "writer", "--next-agent", f"{theirs},editor"]
    payload = json.loads(mesh.run(*words, "--wait", "--json").stdout)["data"]
    assert [hop["agent_id"] for hop in payload["route"]] == ["writer", theirs, "editor"]
