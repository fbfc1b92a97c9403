"""A whole mesh in real processes, driven as its users drive it."""

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.mesh import PREFIX, Mesh, clean_environ, command, running_mesh
from tests.support.structure import ROOT

SLOW_AGENT = """
[agent]
id = "{name}"
description = "Works slowly."
capabilities = ["slow"]

[llm]
provider = "openai"
model = "slow-model"
base_url = "{url}"
max_retries = 0
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running_mesh(tmp_path_factory.mktemp("mesh") / "data") as mesh:
        yield mesh


def test_a_retained_document_job_takes_its_way_and_leaves_no_intake_message(mesh: Mesh) -> None:
    import base64

    content = (ROOT / "examples" / "bicycle-counters.pdf").read_bytes()
    job = {
        "instruction": "Read the document and write a one-page brief of it: gather the facts, draft the "
        "brief, edit it for clarity, and have it checked against the source.",
        "files": [
            {
                "name": "report.pdf",
                "media_type": "application/pdf",
                "content_base64": base64.b64encode(content).decode(),
            }
        ],
    }
    topic = f"{PREFIX}/jobs/research/doc-1"
    mesh.publish(topic, job, retain=True)
    assert mesh.heard(f"{PREFIX}/receipts/doc-1")["verdict"] == "accepted"
    result = mesh.heard(f"{PREFIX}/results/doc-1", 40)
    assert result["state"] == "completed"
    assert [hop["capability"] for hop in result["route"]] == ["research", "writing", "editing", "judging"]
    assert "Verdict: approve" in result["result"]["text"]
    assert "6,420 bicycles" in result["result"]["text"]
    assert result["rehearsal"] is True
    mesh.until(lambda: (topic, b"") in mesh.messages)
    trace = json.loads(mesh.run("trace", "doc-1", "--json").stdout)["data"]
    first = trace["hops"][0]
    assert first["decision"]["chosen"] == "writing"
    assert {item["capability"] for item in first["decision"]["rejected"]} == {
        "editing",
        "general",
        "judging",
        "research",
    }
    assert first["claim_ms"] < 5000


def test_a_repeat_is_a_duplicate_and_other_content_a_conflict(mesh: Mesh) -> None:
    topic = f"{PREFIX}/jobs/writing/same-1"
    mesh.publish(topic, {"instruction": "Write. The sun is warm today."})
    mesh.heard(f"{PREFIX}/results/same-1")
    time.sleep(2.1)  # a repeat within two seconds is a QoS 1 redelivery and gets no receipt
    mesh.publish(topic, {"instruction": "Write. The sun is warm today."})
    mesh.until(lambda: len(mesh.on(f"{PREFIX}/receipts/same-1")) == 2)
    mesh.publish(topic, {"instruction": "Write something else entirely."})
    mesh.until(lambda: len(mesh.on(f"{PREFIX}/receipts/same-1")) == 3)
    receipts = [json.loads(payload) for payload in mesh.on(f"{PREFIX}/receipts/same-1")]
    assert [receipt["verdict"] for receipt in receipts] == ["accepted", "duplicate", "conflict"]
    assert receipts[1]["state"] == "completed"


BAD = [
    (b"[" * 100_000, "too_deep"),
    (b'{"instruction": "a", "instruction": "b"}', "duplicate_key"),
    (b'{"instruction": 5}', "invalid"),
    (b'{"instruction": "x", "job_id": "other"}', "mismatch"),
    (b'{"instruction": "x", "deadline": "2020-01-01T00:00:00Z"}', "expired"),
    (b'{"instruction": "x", "reply_to": "somewhere/else"}', "reply_topic"),
    (b'{"instruction": "x", "files": [{"name": "a", "sha256": "' + b"0" * 64 + b'"}]}', "unknown_blob"),
    (b'{"instruction": "' + b"x" * 300_000 + b'"}', "too_large"),
    (b"{not json", "malformed"),
    (b"\xff\xfe", "malformed"),
]


@pytest.mark.parametrize(("payload", "code"), BAD, ids=[code + str(n) for n, (_, code) in enumerate(BAD)])
def test_bad_input_gets_its_receipt_and_the_next_job_runs(mesh: Mesh, payload: bytes, code: str) -> None:
    job_id = f"bad-{uuid.uuid4().hex[:8]}"
    mesh.publish(f"{PREFIX}/jobs/writing/{job_id}", payload)
    receipt = mesh.heard(f"{PREFIX}/receipts/{job_id}", 5)
    assert (receipt["verdict"], receipt["code"]) == ("rejected", code)
    assert receipt["message"]
    good = f"good-{job_id}"
    mesh.publish(f"{PREFIX}/jobs/writing/{good}", {"instruction": f"Write. The {good} sea is calm."})
    assert mesh.heard(f"{PREFIX}/results/{good}", 5)["state"] == "completed"


def test_plain_text_on_a_bare_topic_is_one_job_a_minute(mesh: Mesh) -> None:
    text = f"Write this: the lamp {uuid.uuid4().hex} burns all night."
    known = len(mesh.run("job", "list", "--limit", "200").stdout.splitlines())
    for _ in range(3):
        mesh.publish(f"{PREFIX}/jobs/writing", text)
    mesh.until(lambda: len(mesh.run("job", "list", "--limit", "200").stdout.splitlines()) == known + 1)


def test_nobody_for_a_capability_is_accepted_with_a_note_and_can_be_cancelled(mesh: Mesh) -> None:
    mesh.publish(f"{PREFIX}/jobs/nobody-does-this/lonely", {"instruction": "x"})
    assert mesh.heard(f"{PREFIX}/receipts/lonely")["note"] == "no_live_agent"
    mesh.until(lambda: any("/open/nobody-does-this/" in topic for topic, _ in mesh.messages))
    with urlopen(mesh.exported["AGENT2389_API"] + "/health") as response:
        health = json.load(response)
    assert (response.status, health["status"]) == (200, "degraded")
    assert health["fleet"]["pools_without_agents"] == ["nobody-does-this"]
    mesh.publish(f"{PREFIX}/cancel/lonely", "{}")
    assert mesh.heard(f"{PREFIX}/results/lonely")["state"] == "cancelled"
    mesh.until(lambda: len(mesh.on(f"{PREFIX}/receipts/lonely")) == 2)


def envelope(agent: str, **changes: object) -> dict[str, object]:
    return {
        "task_id": str(uuid.uuid4()),
        "conversation_id": f"talk-{uuid.uuid4().hex[:8]}",
        "topic": f"/control/agents/{agent}/input",
        "instruction": "Write a note. The harbour opens at six.",
        "input": {},
        "next": None,
    } | changes


def test_protocol_input_is_answered_on_its_conversation_once(mesh: Mesh) -> None:
    message = envelope("writer")
    for _ in range(3):
        mesh.publish("/control/agents/writer/input", message)
    topic = f"/conversations/{message['conversation_id']}/writer"
    answer = mesh.heard(topic)
    assert answer["task_id"] == message["task_id"]
    assert "harbour opens at six" in answer["response"]
    marker = envelope("writer")
    mesh.publish("/control/agents/writer/input", marker)
    mesh.heard(f"/conversations/{marker['conversation_id']}/writer")
    assert len(mesh.on(topic)) == 1


def test_a_protocol_chain_ends_at_its_last_agent(mesh: Mesh) -> None:
    link = {"topic": "/control/agents/editor/input", "instruction": "Edit it.", "input": None, "next": None}
    message = envelope("writer", next=link)
    mesh.publish("/control/agents/writer/input", message)
    answer = mesh.heard(f"/conversations/{message['conversation_id']}/editor")
    assert answer["task_id"] == message["task_id"]
    assert not mesh.on(f"/conversations/{message['conversation_id']}/writer")


def test_protocol_errors_have_their_codes(mesh: Mesh) -> None:
    deep: object = None
    for _ in range(16):
        deep = {"topic": "/control/agents/writer/input", "instruction": "x", "input": None, "next": deep}
    for changes, code in (({"next": deep}, "pipeline_depth_exceeded"), ({"task_id": 5}, "invalid_input")):
        message = envelope("writer", **changes)
        mesh.publish("/control/agents/writer/input", message)
        error = mesh.heard(f"/conversations/{message['conversation_id']}/writer")["error"]
        assert error["code"] == code


def test_status_is_retained_with_every_field_readers_expect(mesh: Mesh) -> None:
    status = mesh.heard("/control/agents/writer/status")
    assert status["status"] == "available"
    assert status["timestamp"].endswith("Z")
    expected = {"agent_id", "capabilities", "description", "health", "load", "last_updated", "handles"}
    assert expected | {"metadata", "incarnation", "mesh_id", "config_sha256", "slots"} <= set(status)


def test_http_tells_problems_by_name(mesh: Mesh) -> None:
    api = mesh.exported["AGENT2389_API"]
    token = {"Authorization": f"Bearer {mesh.exported['AGENT2389_TOKEN']}"}

    def status(path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        request = Request(api + path, data=body, headers={**token, **headers})
        try:
            with urlopen(request) as response:
                return response.status, ""
        except HTTPError as error:
            problem = json.load(error)
            assert error.headers["Content-Type"].startswith("application/problem+json")
            return error.code, problem["code"]

    json_type = {"Content-Type": "application/json"}
    assert status("/api/v1/jobs", b'{"instruction": "Say hello to all."}', **json_type) == (201, "")
    assert status("/api/v1/jobs", b"{", **json_type) == (400, "malformed")
    assert status("/api/v1/jobs", b"{}", **json_type) == (422, "invalid")
    assert status("/api/v1/jobs", b"x" * 300_000, **json_type) == (413, "too_large")
    assert status("/api/v1/jobs", b"{}", **{"Content-Type": "text/html"})[0] == 415
    assert status("/api/v1/jobs/nobody") == (404, "not_found")
    assert status("/api/v1/jobs?limit=0") == (422, "invalid")
    assert status("/nowhere")[0] == 404
    assert status("/api/v1/agents", b"{}")[0] == 405
    assert status("/api/v1/agents", Authorization="Bearer wrong") == (401, "unauthorized")
    assert status("/api/v1/openapi.json") == (200, "")
    assert status("/docs") == (200, "")
    for probe in ("/live", "/ready", "/startup", "/metrics", "/livez", "/readyz", "/healthz"):
        assert status(probe)[0] == 200


def test_a_given_route_and_exit_codes(mesh: Mesh) -> None:
    done = mesh.run(
        "submit", "Write. The moon is full tonight.", "--route", "writing,editing", "--wait", "--json"
    )
    payload = json.loads(done.stdout)["data"]
    assert [hop["capability"] for hop in payload["route"]] == ["writing", "editing"]
    waiting = mesh.run("submit", "x", "--capability", "no-such-pool").stdout.strip()
    assert mesh.run("result", waiting, check=False).returncode == 8
    assert mesh.run("result", "nothing-like-this", check=False).returncode == 5
    mesh.run("job", "cancel", waiting)
    assert mesh.run("result", waiting, check=False).returncode == 7
    assert mesh.run("--api", "http://127.0.0.1:9", "agent", "list", check=False).returncode == 9
    assert mesh.run("no-such-verb", check=False).returncode == 2
    second = subprocess.run(
        command("up", "--data", str(mesh.data)),
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 6
    assert str(mesh.process.pid) in second.stderr


def test_the_broker_may_be_away(tmp_path: Path) -> None:
    with running_mesh(tmp_path / "data") as mesh:
        pid = int((mesh.data / "broker" / "broker.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        done = mesh.run("submit", "Write. The stone is grey and old.", "--capability", "writing", "--wait")
        assert "stone is grey" in done.stdout
        with urlopen(mesh.exported["AGENT2389_API"] + "/ready") as response:
            assert response.status == 200


def test_another_agent_finishes_the_job_of_one_that_was_killed(tmp_path: Path) -> None:
    from tests.support.slow_model import SlowModel

    agents = tmp_path / "agents"
    agents.mkdir()
    with SlowModel() as model:
        for name in ("one", "two"):
            (agents / f"{name}.toml").write_text(SLOW_AGENT.format(name=name, url=model.url))
        with running_mesh(tmp_path / "data", agents=agents, OPENAI_API_KEY="test-key-of-nobody") as mesh:
            mesh.publish(f"{PREFIX}/jobs/slow/killed-1", {"instruction": "take your time"})
            mesh.until(lambda: model.calls == 1)

            def owner() -> str | None:
                claims = [body for topic, body in mesh.messages if "/claims/" in topic and body]
                return json.loads(claims[0])["agent_id"] if claims else None

            victim = mesh.until(owner)
            rows = json.loads(mesh.run("agent", "list", "--json").stdout)["data"]
            assert {row["agent_id"] for row in rows if row["tasks_running"]} == {victim}
            os.kill(_pid_of(mesh, victim), signal.SIGKILL)
            model.answer_at_once()
            result = mesh.heard(f"{PREFIX}/results/killed-1", 60)
            assert result["state"] == "completed"
            assert result["result"]["text"] == "answer 2"
            trace = json.loads(mesh.run("trace", "killed-1", "--json").stdout)["data"]
            assert [(hop["crashes"], hop["attempt"]) for hop in trace["hops"]] == [(1, 0)]
            assert len(mesh.on(f"{PREFIX}/results/killed-1")) == 1
            assert mesh.on(f"/control/agents/{victim}/status")


def _pid_of(mesh: Mesh, agent: str) -> int:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "run" in line and any(
            part.endswith(f"/{agent}.toml") and str(mesh.data.parent) in part for part in line
        ):
            return int(entry.name)
    raise AssertionError(f"no process of {agent}")


def test_a_stop_leaves_nothing_and_a_second_start_works(tmp_path: Path) -> None:
    for _ in range(2):
        with running_mesh(tmp_path / "data") as mesh:
            location = Path((mesh.data / "postgres.location").read_text().strip())
            postgres = int((location / "data" / "postmaster.pid").read_text().split()[0])
            broker = int((mesh.data / "broker" / "broker.pid").read_text())
            mesh.process.send_signal(signal.SIGINT)
            assert mesh.process.wait(40) in (0, 130)
            for pid in (postgres, broker):
                with pytest.raises(ProcessLookupError):
                    os.kill(pid, 0)
            assert not (mesh.data / "mesh.json").exists()
