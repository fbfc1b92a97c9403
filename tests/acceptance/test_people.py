"""People on a running mesh: pause, restart, escalate, answer, correct, approve, as they type it."""

import asyncio
import getpass
import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import ApprovalRequest, Waiting
from agent2389.ledger.states import AgentState
from agent2389.upkeep.accept import accept_document
from tests.support.mesh import PREFIX, Mesh, running_mesh

SOON = "20"
"""Seconds for a command to be obeyed; a beat comes every ten, the hint makes it one at once."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running_mesh(tmp_path_factory.mktemp("people") / "data") as mesh:
        yield mesh


def submitted(mesh: Mesh, text: str, capability: str) -> str:
    return mesh.run("submit", text, "--capability", capability).stdout.strip()


def asked(mesh: Mesh, path: str) -> Any:
    token = {"Authorization": f"Bearer {mesh.exported['AGENT2389_TOKEN']}"}
    with urlopen(Request(mesh.exported["AGENT2389_API"] + path, headers=token)) as response:
        return json.load(response)


def state(mesh: Mesh, job: str) -> str:
    return str(asked(mesh, f"/api/v1/jobs/{job}")["state"])


def incarnation(mesh: Mesh, agent: str) -> str | None:
    rows = asked(mesh, "/api/v1/agents")["data"]
    running = [row["incarnation"] for row in rows if row["agent_id"] == agent and row["state"] == "running"]
    return running[0] if running else None


# agents ----------------------------------------------------------------------------------


def test_a_paused_agent_lets_its_work_wait(mesh: Mesh) -> None:
    assert mesh.run("agent", "pause", "editor", "--wait", SOON).stdout.startswith("editor pause ")
    job = submitted(mesh, "Edit. The rose is red and it smells nice.", "editing")
    mesh.until(lambda: any("/open/editing/" in topic and body for topic, body in mesh.messages))
    assert state(mesh, job) == "queued"
    pools = json.loads(mesh.run("pool", "list", "--json").stdout)["data"]
    assert {row["pool"]: row["queued"] for row in pools}["editing"] == 1
    mesh.run("agent", "resume", "editor")
    assert mesh.heard(f"{PREFIX}/results/{job}")["state"] == "completed"


def test_a_pause_outlives_a_restart_and_a_restart_is_a_new_incarnation(mesh: Mesh) -> None:
    before = incarnation(mesh, "editor")
    done = mesh.run("agent", "restart", "editor", "--wait", SOON, "--json")
    answer = json.loads(done.stdout)["data"]
    assert (answer["action"], answer["incarnations"]) == ("restart", [before])
    after = incarnation(mesh, "editor")
    assert after not in (None, before)
    job = submitted(mesh, "Edit. The tulip is yellow and it smells nice.", "editing")
    assert mesh.heard(f"{PREFIX}/results/{job}")["state"] == "completed"
    assert "agent stopped" in mesh.run("agent", "logs", "editor", "--lines", "1000").stdout


def test_a_stopped_agent_stays_away(mesh: Mesh) -> None:
    assert mesh.run("agent", "stop", "generalist", "--wait", SOON).returncode == 0
    mesh.until(lambda: "generalist ended as it was told" in (mesh.data.parent / "up.log").read_text())
    assert incarnation(mesh, "generalist") is None
    assert "no process" in mesh.run("agent", "drain", "generalist", "--wait", "1").stderr


def test_commands_for_nobody_say_so(mesh: Mesh) -> None:
    assert mesh.run("agent", "pause", "ghost", check=False).returncode == 5
    assert mesh.run("agent", "drain", "editor", "--incarnation", "none", check=False).returncode == 5
    assert mesh.run("agent", "logs", "ghost", check=False).returncode == 5
    assert mesh.run("agent", "restart", "writer", "--wait", "0", check=False).returncode == 10
    mesh.until(lambda: incarnation(mesh, "writer") is not None)


# jobs -------------------------------------------------------------------------------------


def test_a_person_takes_a_job_and_answers_it(mesh: Mesh) -> None:
    job = submitted(mesh, "Translate it.", "nobody-translates")
    assert mesh.run("job", "answer", job, "x", check=False).returncode == 6
    assert mesh.run("job", "escalate", job, "--reason", "nobody can").stdout == f"{job} waiting\n"
    shown = mesh.run("job", "show", job).stdout
    assert f"agent2389 job answer|retry {job}" in shown
    assert "nobody can" in shown
    assert mesh.run("job", "accept", job, check=False).returncode == 6
    assert mesh.run("job", "answer", job, "Das Meer ist tief.").stdout == f"{job} completed\n"
    assert mesh.heard(f"{PREFIX}/results/{job}")["result"]["text"] == "Das Meer ist tief."
    events = [json.loads(line) for line in mesh.run("job", "events", job, "--jsonl").stdout.splitlines()]
    acts = {event["type"]: event["data"].get("actor") for event in events}
    assert acts["job.escalation_requested"] == acts["task.answer_by_person"] == getpass.getuser()
    assert "task.completed" in mesh.run("job", "events", job, "--follow").stdout


def test_an_answer_may_hand_on_to_an_agent(mesh: Mesh) -> None:
    job = submitted(mesh, "Gather what is known.", "nobody-gathers")
    mesh.run("job", "escalate", job)
    mesh.run("job", "answer", job, "The bridge is 90 metres long and grey.", "--next", "writing")
    result = mesh.heard(f"{PREFIX}/results/{job}")
    assert result["state"] == "completed"
    assert [hop["capability"] for hop in result["route"]] == ["nobody-gathers", "writing"]


def test_a_result_is_corrected_in_a_clone_and_a_job_runs_again(mesh: Mesh) -> None:
    job = submitted(mesh, "Write. The lake is calm and wide.", "writing")
    first = mesh.heard(f"{PREFIX}/results/{job}")["result"]["text"]
    corrected = mesh.run("job", "override", job, "The lake is wild.").stdout.split()[0]
    assert mesh.heard(f"{PREFIX}/results/{corrected}")["result"]["text"] == "The lake is wild."
    assert mesh.run("result", job).stdout.strip() == first.strip()
    again = json.loads(mesh.run("job", "retry", job, "--json").stdout)["data"]
    assert (again["verdict"], again["retry_of"]) == ("accepted", job)
    assert mesh.heard(f"{PREFIX}/results/{again['job_id']}")["result"]["text"] == first
    assert mesh.run("job", "clone", job).stdout.split()[1] == "queued"


async def _enter(dsn: str, agent: str, capability: str) -> None:
    """An agent of our own, there for thirty seconds, that claims nothing by itself."""
    ledger = await PostgresLedger.open(dsn)
    try:
        me = str(uuid.uuid4())
        await ledger.register(AgentRecord(agent_id=agent, incarnation=me, capabilities=(capability,)))
        await ledger.beat(Beat(incarnation=me, state=AgentState.RUNNING, free_slots=1))
    finally:
        await ledger.close()


def test_a_job_is_assigned(mesh: Mesh) -> None:
    job = submitted(mesh, "Wait for it.", "patience")
    asyncio.run(_enter(mesh.exported["DATABASE_URL"], "patient", "patience"))
    done = mesh.run("job", "assign", job, "patient", "--json")
    assert json.loads(done.stdout)["data"]["task_state"] == "assigned"
    assert mesh.run("job", "assign", job, "patient", check=False).returncode == 6
    mesh.run("job", "cancel", job)


def test_work_is_assigned_only_to_who_can_take_it(mesh: Mesh) -> None:
    mesh.run("agent", "pause", "editor", "--wait", SOON)
    job = submitted(mesh, "Edit. The stork is back.", "editing")
    assert mesh.run("job", "assign", job, "editor", check=False).returncode == 5
    assert mesh.run("job", "assign", job, "nobody", check=False).returncode == 5
    mesh.run("agent", "resume", "editor", "--wait", SOON)
    assert mesh.heard(f"{PREFIX}/results/{job}")["state"] == "completed"


# approvals -----------------------------------------------------------------------------------


async def _ask(dsn: str, approvals: dict[str, str]) -> str:
    """A worker of our own takes a job and asks whether its tool may run; the job."""
    ledger = await PostgresLedger.open(dsn)
    try:
        me, capability = str(uuid.uuid4()), f"careful-{uuid.uuid4().hex[:6]}"
        await ledger.register(AgentRecord(agent_id="careful", incarnation=me, capabilities=(capability,)))
        await ledger.beat(Beat(incarnation=me, state=AgentState.RUNNING, free_slots=1))
        document = {"instruction": "Delete it.", "capability": capability}
        made = await accept_document(ledger, json.dumps(document).encode())
        claim = (await ledger.claim_batch(me, 1))[0]
        requests = tuple(
            ApprovalRequest(
                approval_id=name,
                tool="delete_file",
                arguments=arguments,
                arguments_sha256=hashlib.sha256(arguments.encode()).hexdigest(),
                question="May it be deleted?",
            )
            for name, arguments in approvals.items()
        )
        await ledger.wait(claim.fence, Waiting(reason="approval", approvals=requests))
        return made.job_id
    finally:
        await ledger.close()


def test_a_person_approves_by_mqtt_and_by_hand(mesh: Mesh) -> None:
    one, two = (f"ask-{uuid.uuid4().hex[:8]}" for _ in range(2))
    wanted = {one: '{"path":"a.txt"}', two: '{"path":"b.txt"}'}
    job = asyncio.run(_ask(mesh.exported["DATABASE_URL"], wanted))
    assert state(mesh, job) == "waiting"
    pending = json.loads(mesh.run("approval", "list", "--json").stdout)["data"]
    assert {row["approval_id"] for row in pending} == {one, two}
    board = mesh.heard(f"{PREFIX}/approvals/{one}")
    answer = {"decision": "approved", "arguments_sha256": "0" * 64, "actor": "ann", "nonce": "1"}
    mesh.publish(f"{PREFIX}/approvals/{one}/answer", answer)
    mesh.publish(
        f"{PREFIX}/approvals/{one}/answer", {**answer, "arguments_sha256": board["arguments_sha256"]}
    )
    mesh.until(lambda: (f"{PREFIX}/approvals/{one}", b"") in mesh.messages)
    shown = json.loads(mesh.run("approval", "show", one, "--json").stdout)["data"]
    assert (shown["state"], shown["actor"]) == ("approved", "ann")
    wrong = mesh.run("approval", "approve", two, "--sha256", "0" * 64, check=False)
    assert wrong.returncode == 6
    done = mesh.run("approval", "reject", two[:10], "--reason", "not that one")
    assert done.stdout == f"{two} rejected\n"
    assert "b.txt" in done.stderr
    shown = json.loads(mesh.run("approval", "show", two, "--json").stdout)["data"]
    assert (shown["state"], shown["actor"], shown["reason"]) == (
        "rejected",
        getpass.getuser(),
        "not that one",
    )
    assert mesh.run("approval", "approve", two, check=False).returncode == 6
    assert mesh.run("approval", "list").stdout == ""
    assert state(mesh, job) == "running"
    mesh.run("job", "cancel", job)
