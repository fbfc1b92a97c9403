"""Hundreds of hostile messages at one running mesh: each gets what it deserves, and good work goes on."""

import base64
import json
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent2389.wire.names import protocol_job_id
from tests.support.mesh import PREFIX, Mesh, running_mesh
from tests.support.structure import ROOT

FOLDER = ROOT / "tests" / "corpus" / "hostile"
UUID_IN_CORPUS = "11111111-1111-4111-8111-111111111111"
GOOD_AFTER = 25
"""After so many hostile messages a good task has to start within a second."""
START_SECONDS = 1.0


class Hostile(msgspec.Struct, frozen=True):
    """One message of the corpus under an id of its own."""

    name: str
    id: str
    topic: str
    payload: bytes
    expect: str


def read(file: str) -> list[Hostile]:
    lines = (FOLDER / file).read_text().splitlines()
    return [_hostile(json.loads(line), f"{file[0]}{number:03}") for number, line in enumerate(lines)]


def _hostile(entry: dict[str, Any], id_: str) -> Hostile:
    topic = entry["topic"].replace("ID", id_)
    payload = _bytes(entry["payload"])
    payload = payload.replace(b"-ID", b"-" + id_.encode()).replace(
        UUID_IN_CORPUS.encode(), str(uuid.uuid4()).encode()
    )
    return Hostile(
        entry["name"], id_, topic if topic[0] == "/" else f"{PREFIX}/{topic}", payload, entry["expect"]
    )


def _bytes(payload: Any) -> bytes:
    match payload:
        case str():
            return payload.encode()
        case {"base64": text}:
            return base64.b64decode(str(text))
        case {"times": [before, unit, count, after]}:
            return str(before + unit * count + after).encode()
        case _:
            raise AssertionError(payload)


JOBS, TASKS = read("jobs.jsonl"), read("tasks.jsonl")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("hostile")
    agents = folder / "agents"
    agents.mkdir()
    shutil.copy(ROOT / "agents" / "writer.toml", agents)
    with running_mesh(folder / "data", agents=agents, AGENT2389_LOCAL_BROKER="mosquitto") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def starts(mesh: Mesh) -> list[float]:
    """Sends everything; how long each good task in between took to start, in seconds."""
    seconds = []
    for number, hostile in enumerate([*JOBS, *TASKS], 1):
        mesh.publish(hostile.topic, hostile.payload)
        if number % GOOD_AFTER == 0:
            seconds.append(_start_of_a_good_task(mesh))
    seconds.append(_start_of_a_good_task(mesh))
    return seconds


def _start_of_a_good_task(mesh: Mesh) -> float:
    task_id, talk = str(uuid.uuid4()), f"good-{uuid.uuid4().hex[:8]}"
    envelope: dict[str, Any] = {
        "task_id": task_id,
        "conversation_id": talk,
        "topic": "/control/agents/writer/input",
        "instruction": "Write. The good harbour opens at six.",
        "input": {},
        "next": None,
    }
    known = len(mesh.messages)
    job_id = protocol_job_id("default", "writer", task_id)
    begun = time.monotonic()
    mesh.publish("/control/agents/writer/input", envelope)
    mesh.until(lambda: _is_taken(mesh.messages[known:], job_id))
    took = time.monotonic() - begun
    assert "harbour" in mesh.heard(f"/conversations/{talk}/writer")["response"]
    return took


def _is_taken(messages: list[tuple[str, bytes]], job_id: str) -> bool:
    rings = [
        json.loads(body)
        for topic, body in messages
        if topic == f"{PREFIX}/wake/agent.writer" and body[:1] == b"{"
    ]
    ours = {ring["task_id"] for ring in rings if ring.get("job_id") == job_id}
    return any(ring.get("taken") and ring.get("task_id") in ours for ring in rings)


def test_there_are_enough_of_them() -> None:
    assert len(JOBS) + len(TASKS) >= 400
    names = [hostile.name for hostile in JOBS] + [f"task {hostile.name}" for hostile in TASKS]
    assert len(set(names)) == len(names)


def test_good_tasks_start_within_a_second_all_the_while(starts: list[float]) -> None:
    assert len(starts) > 15
    assert max(starts) <= START_SECONDS, [round(value, 2) for value in starts]


def test_every_job_message_gets_its_receipt(mesh: Mesh, starts: list[float]) -> None:
    wrong = []
    for hostile in JOBS:
        kind, _, code = hostile.expect.partition(":")
        receipts = [json.loads(body) for body in mesh.on(f"{PREFIX}/receipts/{hostile.id}")]
        got = [(receipt["verdict"], receipt.get("code")) for receipt in receipts]
        wanted = {"receipt": [("rejected", code)], "accepted": [("accepted", None)]}.get(kind, [])
        if got != wanted:
            wrong.append((hostile.name, hostile.expect, got))
    assert wrong == []


def test_what_names_no_job_is_told_on_the_unknown_topic(mesh: Mesh, starts: list[float]) -> None:
    wanted = Counter(
        hostile.expect.partition(":")[2] for hostile in JOBS if hostile.expect.startswith("unknown:")
    )
    receipts = [json.loads(body) for body in mesh.on(f"{PREFIX}/receipts/unknown")]
    assert Counter(receipt["code"] for receipt in receipts) == wanted
    assert {receipt["verdict"] for receipt in receipts} == {"rejected"}


def test_strange_but_good_jobs_are_done(mesh: Mesh, starts: list[float]) -> None:
    good = [hostile for hostile in JOBS if hostile.expect == "accepted"]
    results = {hostile.name: mesh.heard(f"{PREFIX}/results/{hostile.id}") for hostile in good}
    assert {name: result["state"] for name, result in results.items()} == dict.fromkeys(results, "completed")


def test_every_task_message_gets_its_answer_or_none(mesh: Mesh, starts: list[float]) -> None:
    wrong = []
    for hostile in TASKS:
        kind, _, code = hostile.expect.partition(":")
        talk = f"/conversations/talk-{hostile.id}/writer"
        if kind == "response":
            mesh.heard(talk)
        answers = [json.loads(body) for body in mesh.on(talk)]
        got = [answer["error"]["code"] if "error" in answer else "response" for answer in answers]
        if got != {"error": [code], "response": ["response"]}.get(kind, []):
            wrong.append((hostile.name, hostile.expect, got))
    assert wrong == []


def test_the_agent_never_went_away(mesh: Mesh, starts: list[float]) -> None:
    statuses = [json.loads(body) for body in mesh.on("/control/agents/writer/status")]
    assert {status["status"] for status in statuses} == {"available"}
    assert len({status["incarnation"] for status in statuses}) == 1
    assert _no_traceback(mesh.data / "logs")


def _no_traceback(logs: Path) -> bool:
    return not [path.name for path in logs.glob("*.log") if "Traceback" in path.read_text(errors="replace")]
