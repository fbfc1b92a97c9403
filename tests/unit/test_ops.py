"""The ops service's routes: what each answers, and how it says no."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent2389.ledger.records import NextTask
from tests.support.jobs import claim_one, finish, join
from tests.support.ops import Service, running_ops

JOB = {"instruction": "Say hello.", "capability": "research"}


@pytest.fixture
async def ops() -> AsyncIterator[Service]:
    async with running_ops() as service:
        yield service


async def submitted(ops: Service, **changes: Any) -> str:
    status, answer = await ops.post("/api/v1/jobs", JOB | changes)
    assert status == 201
    return str(answer["job_id"])


async def ended(ops: Service, job_id: str, agent: str = "r1") -> None:
    """Let an agent do the next task of ``job_id``."""
    incarnation = await join(ops.ledger, agent)
    claim = await claim_one(ops.ledger, incarnation)
    await ops.ledger.finish(claim.fence, finish("the answer"), job_id)


# probes ------------------------------------------------------------------------------


async def test_probes_tell_how_the_process_stands(ops: Service) -> None:
    for path in ("/live", "/livez"):
        status, body = await ops.get(path)
        assert (status, body["alive"]) == (200, True)
    for path in ("/ready", "/readyz"):
        status, body = await ops.get(path)
        assert (status, body["ready"], body["reasons"]) == (200, True, [])
    for path in ("/health", "/healthz"):
        status, body = await ops.get(path)
        assert (status, body["status"]) == (200, "healthy")
        assert set(body["checks"]["ledger"]) == {"status", "message", "required", "latency_ms", "last_check"}
        assert {"version", "state", "uptime_seconds", "fleet"} <= set(body)
    assert (await ops.get("/startup"))[1] == {"started": True}


async def test_verbose_probes_are_lines_for_people(ops: Service) -> None:
    for path, last in (("/livez", "livez"), ("/readyz", "readyz"), ("/healthz", "healthz")):
        response = await ops.client.get(path, params={"verbose": ""})
        assert (await response.text()).splitlines()[-1] == f"{last} check passed"


async def test_without_ledger_it_is_not_ready_and_says_why(ops: Service) -> None:
    ops.away = True
    status, body = await ops.get("/ready")
    assert (status, body["ready"]) == (503, False)
    assert body["reasons"] == ["ledger: the database does not answer"]
    status, body = await ops.get("/health")
    assert (status, body["status"]) == (503, "unhealthy")
    assert (await ops.get("/live"))[0] == 200
    response = await ops.client.post("/api/v1/jobs", json=JOB)
    assert response.status == 503
    assert response.headers["Retry-After"] == "2"
    assert (await response.json(content_type=None))["code"] == "unavailable"
    assert (await ops.client.get("/metrics")).status == 200


async def test_a_database_that_falls_silent_costs_health_its_fleet_and_not_its_shape(
    ops: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks remember for two seconds that the database answered; the fleet is asked of it all the same."""

    async def silent() -> None:
        await asyncio.Event().wait()

    assert (await ops.get("/health"))[0] == 200
    ops.frozen = True
    monkeypatch.setattr(ops.ledger, "agents", silent)
    started = time.monotonic()
    status, body = await ops.get("/health")
    assert (status, body["status"], body["checks"]["ledger"]["status"]) == (503, "unhealthy", "unhealthy")
    assert "fleet" not in body
    assert (await ops.client.get("/metrics")).status == 200
    assert time.monotonic() - started < 4


async def test_a_fleet_that_takes_long_is_left_out_of_health(
    ops: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ops.ledger, "agents", silent)
    status, body = await ops.get("/health")
    assert (status, body["status"], "fleet" in body) == (200, "healthy", False)


async def test_work_that_nobody_serves_degrades_health_and_shows_in_metrics(ops: Service) -> None:
    await submitted(ops, capability="nobody-does-this")
    status, body = await ops.get("/health")
    assert (status, body["status"]) == (200, "degraded")
    assert body["fleet"]["pools_without_agents"] == ["nobody-does-this"]
    text = await (await ops.client.get("/metrics")).text()
    assert 'agent2389_ledger_tasks{pool="nobody-does-this",state="queued"} 1.0' in text
    assert 'agent2389_jobs_submitted_total{source="http"} 1.0' in text


async def test_info_names_role_version_and_mesh(ops: Service) -> None:
    status, body = await ops.get("/info")
    assert (status, body["role"], body["tenant"]) == (200, "ops", "default")
    assert body["mesh_id"] == await ops.ledger.mesh_id()


# jobs --------------------------------------------------------------------------------


async def test_a_submission_is_created_once(ops: Service) -> None:
    response = await ops.client.post("/api/v1/jobs", json=JOB | {"job_id": "mine"})
    assert response.status == 201
    assert response.headers["Location"] == "/api/v1/jobs/mine"
    assert await response.json() == {
        "job_id": "mine",
        "verdict": "accepted",
        "state": "queued",
        "note": "no_live_agent",
    }
    status, again = await ops.post("/api/v1/jobs", JOB | {"job_id": "mine"})
    assert (status, again["verdict"]) == (200, "duplicate")
    status, other = await ops.post("/api/v1/jobs", {"instruction": "Else.", "job_id": "mine"})
    assert (status, other["verdict"], other["code"]) == (409, "conflict", "conflict")
    assert [message.topic for message in ops.broker.published] == ["agent2389/v1/default/wake/research"]


async def test_an_idempotency_key_makes_one_job_of_repeats(ops: Service) -> None:
    first = (await ops.post("/api/v1/jobs", JOB, **{"Idempotency-Key": "k1"}))[1]
    status, again = await ops.post("/api/v1/jobs", JOB, **{"Idempotency-Key": "k1"})
    assert (status, again["job_id"], again["verdict"]) == (200, first["job_id"], "duplicate")
    status, other = await ops.post("/api/v1/jobs", JOB, **{"Idempotency-Key": "k2"})
    assert (status, other["job_id"] != first["job_id"]) == (201, True)
    assert (await ops.post("/api/v1/jobs", {"instruction": "Else."}, **{"Idempotency-Key": "k1"}))[0] == 409


async def test_the_list_goes_on_from_its_cursor(ops: Service) -> None:
    names = [await submitted(ops, job_id=f"job-{number}") for number in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        query = "/api/v1/jobs?limit=2" + (f"&cursor={cursor}" if cursor else "")
        status, page = await ops.get(query)
        assert status == 200
        seen += [row["job_id"] for row in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(reversed(names))
    await ops.post("/api/v1/jobs/job-3/cancel")
    status, page = await ops.get("/api/v1/jobs?state=cancelled")
    assert [row["job_id"] for row in page["data"]] == ["job-3"]


@pytest.mark.parametrize("cursor", ["nobody", "job", "@last", "%00", "x" * 300])
async def test_a_cursor_that_names_no_job_is_no_end_of_the_list(ops: Service, cursor: str) -> None:
    await submitted(ops, job_id="job-1")
    status, problem = await ops.get(f"/api/v1/jobs?cursor={cursor}")
    assert (status, problem["code"]) == (422, "invalid")
    status, page = await ops.get("/api/v1/jobs?cursor=job-1")
    assert (status, page) == (200, {"data": [], "next_cursor": None})


async def test_an_empty_cursor_is_none(ops: Service) -> None:
    await submitted(ops, job_id="job-1")
    status, page = await ops.get("/api/v1/jobs?cursor=")
    assert (status, [row["job_id"] for row in page["data"]]) == (200, ["job-1"])


async def test_a_job_shows_itself_its_trace_and_its_result(ops: Service) -> None:
    job_id = await submitted(ops, job_id="shown-1")
    status, running = await ops.get(f"/api/v1/jobs/{job_id}/result")
    assert (status, running) == (202, {"job_id": job_id, "state": "queued"})
    await ended(ops, job_id)
    status, detail = await ops.get("/api/v1/jobs/shown")
    assert (status, detail["state"], detail["submission"]["instruction"]) == (200, "completed", "Say hello.")
    assert detail["tasks"][0]["agent_id"] == "r1"
    status, trace = await ops.get("/api/v1/jobs/@last/trace")
    assert (status, [hop["agent_id"] for hop in trace["hops"]]) == (200, ["r1"])
    status, final = await ops.get(f"/api/v1/jobs/{job_id}/result")
    assert (status, final["result"]["text"], final["state"]) == (200, "the answer", "completed")


async def test_waiting_for_a_result_ends_with_it(ops: Service) -> None:
    job_id = await submitted(ops)
    waiting = asyncio.create_task(ops.get(f"/api/v1/jobs/{job_id}/result?wait=10"))
    await ended(ops, job_id)
    status, final = await waiting
    assert (status, final["state"]) == (200, "completed")


async def test_events_come_as_a_list_and_as_a_stream(ops: Service) -> None:
    job_id = await submitted(ops)
    await ended(ops, job_id)
    status, body = await ops.get(f"/api/v1/jobs/{job_id}/events")
    kinds = [event["type"] for event in body["data"]]
    assert (status, kinds[0], kinds[-1]) == (200, "job.accepted", "job.completed")
    later = (await ops.get(f"/api/v1/jobs/{job_id}/events?after={body['data'][0]['number']}"))[1]["data"]
    assert [event["type"] for event in later] == kinds[1:]
    response = await ops.client.get(f"/api/v1/jobs/{job_id}/events", params={"stream": "1"})
    assert response.content_type == "text/event-stream"
    lines = [line[6:] for line in (await response.text()).splitlines() if line.startswith("data: ")]
    assert [json.loads(line)["type"] for line in lines] == kinds


async def test_a_stream_goes_on_where_its_client_lost_it(ops: Service) -> None:
    job_id = await submitted(ops)
    await ended(ops, job_id)
    path = f"/api/v1/jobs/{job_id}/events"
    numbers = [event["number"] for event in (await ops.get(path))[1]["data"]]

    async def streamed(query: str = "", **headers: str) -> list[int]:
        response = await ops.client.get(path + query, headers={"Accept": "text/event-stream", **headers})
        assert response.content_type == "text/event-stream"
        return [int(line[4:]) for line in (await response.text()).splitlines() if line.startswith("id: ")]

    assert await streamed() == numbers
    assert await streamed(**{"Last-Event-ID": str(numbers[1])}) == numbers[2:]
    assert await streamed("?stream=1", **{"Last-Event-ID": str(numbers[-1])}) == []
    assert await streamed(f"?after={numbers[0]}", **{"Last-Event-ID": str(numbers[1])}) == numbers[1:]
    status, problem = await ops.get(path, **{"Last-Event-ID": "the last"})
    assert (status, problem["code"]) == (422, "invalid")
    listed = await ops.client.get(path, headers={"Accept": "application/json, text/event-stream"})
    assert listed.content_type == "application/json"


async def test_cancelling_is_answered_twice_alike(ops: Service) -> None:
    job_id = await submitted(ops)
    status, body = await ops.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (status, body) == (202, {"job_id": job_id, "verdict": "ok", "state": "cancelled"})
    status, body = await ops.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (status, body["verdict"], body["state"]) == (200, "already", "cancelled")


async def test_an_ambiguous_beginning_is_refused_and_an_exact_id_is_not(ops: Service) -> None:
    await submitted(ops, job_id="twin")
    await submitted(ops, job_id="twin-2")
    assert (await ops.get("/api/v1/jobs/twi"))[0] == 422
    assert (await ops.get("/api/v1/jobs/twin"))[1]["job_id"] == "twin"


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=x", "limit=-1", "limit=1e3", "limit=²", "state=sleeping"),
        "limit=99999999999999999999",
    ],
)
async def test_bad_lists_are_refused(ops: Service, query: str) -> None:
    status, body = await ops.get(f"/api/v1/jobs?{query}")
    assert (status, body["code"]) == (422, "invalid")


@pytest.mark.parametrize("wait", ["-1", "121", "x", "NaN", "Infinity", "[]", "null", "{}", ""])
async def test_bad_waits_are_refused(ops: Service, wait: str) -> None:
    job_id = await submitted(ops)
    status, body = await ops.get(f"/api/v1/jobs/{job_id}/result?wait={wait}")
    assert (status, body["code"]) == (422, "invalid")


async def test_what_does_not_exist_is_not_found(ops: Service) -> None:
    for tail in ("", "/result", "/trace", "/events"):
        assert (await ops.get(f"/api/v1/jobs/nobody{tail}"))[1]["code"] == "not_found"
    assert (await ops.post("/api/v1/jobs/nobody/cancel"))[0] == 404
    assert (await ops.get("/nowhere"))[0] == 404
    assert (await ops.get(f"/api/v1/blobs/{'0' * 64}"))[0] == 404
    response = await ops.client.delete("/api/v1/jobs")
    assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD,POST")


async def test_an_unexpected_failure_is_a_problem_without_a_trace(
    ops: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret in a traceback")

    monkeypatch.setattr(ops.ledger, "jobs", broken)
    status, body = await ops.get("/api/v1/jobs")
    assert (status, body["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(body)


# fleet -------------------------------------------------------------------------------


async def test_agents_and_pools(ops: Service) -> None:
    await join(ops.ledger, "r1", "research", "writing")
    await submitted(ops)
    status, agents = await ops.get("/api/v1/agents")
    assert (status, [row["agent_id"] for row in agents["data"]]) == (200, ["r1"])
    status, pools = await ops.get("/api/v1/pools")
    rows = {row["pool"]: (row["agents"], row["queued"]) for row in pools["data"]}
    assert (status, rows) == (200, {"research": (1, 1), "writing": (1, 0)})


async def test_services_register_and_beat(ops: Service) -> None:
    await join(ops.ledger)
    entry = {"id": "old-agent", "serviceUrl": "http://127.0.0.1:9", "metadata": {"kind": "demo"}}
    assert (await ops.post("/api/agent-services/heartbeat", {"id": "old-agent"}))[0] == 404
    assert (await ops.post("/api/agent-services/register", entry))[0] == 201
    assert (await ops.post("/api/agent-services/heartbeat", {"id": "old-agent", "status": "busy"}))[0] == 200
    status, body = await ops.get("/api/agent-services")
    assert status == 200
    assert {row["id"]: (row["status"], row["source"]) for row in body["services"]} == {
        "r1": ("running", "ledger"),
        "old-agent": ("busy", "http"),
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"id": 5}', b'{"id": "a b"}', b'{"id": "../x"}'])
async def test_bad_registrations_are_refused(ops: Service, body: bytes) -> None:
    for verb in ("register", "heartbeat"):
        status, problem = await ops.post(f"/api/agent-services/{verb}", body)
        assert status in (400, 422)
        assert problem["code"] in ("malformed", "invalid")


# blobs -------------------------------------------------------------------------------


async def test_a_blob_comes_back_as_a_download(ops: Service) -> None:
    content = b"<script>alert(1)</script>"
    digest = hashlib.sha256(content).hexdigest()
    path = f"/api/v1/blobs/{digest}"
    response = await ops.client.put(path, data=content, headers={"Content-Type": "text/html"})
    assert (response.status, await response.json()) == (201, {"sha256": digest, "size": len(content)})
    response = await ops.client.get(path)
    assert await response.read() == content
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"].startswith("attachment")


async def test_blobs_that_are_not_what_they_say_are_refused(ops: Service) -> None:
    digest = hashlib.sha256(b"one").hexdigest()
    for path, content, code in (
        (f"/api/v1/blobs/{digest}", b"two", "mismatch"),
        (f"/api/v1/blobs/{digest.upper()}", b"one", "invalid"),
        ("/api/v1/blobs/short", b"one", "invalid"),
    ):
        response = await ops.client.put(path, data=content)
        assert (response.status, (await response.json(content_type=None))["code"]) == (422, code)
    assert (await ops.get("/api/v1/blobs/short"))[0] == 422
    big = {"Content-Length": str(33 * 1024 * 1024)}
    response = await ops.client.put(f"/api/v1/blobs/{digest}", data=b"one", headers=big)
    assert (response.status, (await response.json(content_type=None))["code"]) == (413, "too_large")


# documents ---------------------------------------------------------------------------


async def test_the_description_names_every_route(ops: Service) -> None:
    status, document = await ops.get("/api/v1/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    for route in ops.client.app.router.resources():
        if route.canonical not in ("/api/v1/openapi.json", "/docs"):
            assert route.canonical in document["paths"]
    page = await ops.client.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "/api/v1/jobs/{job}/trace" in await page.text()


async def test_a_hand_off_shows_as_two_hops(ops: Service) -> None:
    job_id = await submitted(ops)
    first = await join(ops.ledger, "r1")
    second = await join(ops.ledger, "w1", "writing")
    claim = await claim_one(ops.ledger, first)
    await ops.ledger.finish(claim.fence, finish("notes", NextTask(capability="writing")), job_id)
    claim = await claim_one(ops.ledger, second)
    await ops.ledger.finish(claim.fence, finish("text"), job_id)
    trace = (await ops.get(f"/api/v1/jobs/{job_id}/trace"))[1]
    assert [(hop["hop"], hop["capability"]) for hop in trace["hops"]] == [(1, "research"), (2, "writing")]
    assert trace["usage"]["cost_usd"] == 0.5
