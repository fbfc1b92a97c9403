"""What people decide over HTTP: retries, clones, escalations, corrections, approvals, commands."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent2389.ledger.fleet import Beat
from agent2389.ledger.records import ApprovalRequest, Waiting
from agent2389.ledger.states import AgentState
from agent2389.ops import openapi, requests
from agent2389.wire.topics import MeshTopics
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.ops import Service, running_ops

TOPICS = MeshTopics()
JOB = "job-1"
ARGUMENTS = '{"path":"/"}'
SHA256 = hashlib.sha256(ARGUMENTS.encode()).hexdigest()
OTHER = hashlib.sha256(b"else").hexdigest()


@pytest.fixture
async def ops() -> AsyncIterator[Service]:
    async with running_ops() as service:
        yield service


async def completed(ops: Service) -> None:
    incarnation = await join(ops.ledger)
    await ops.ledger.submit(new_job())
    claim = await claim_one(ops.ledger, incarnation)
    await ops.ledger.finish(claim.fence, finish("wrong"), JOB)


async def escalated(ops: Service, job_id: str = JOB) -> str:
    """A job whose only task waits for a person with a draft; the task."""
    incarnation = await join(ops.ledger, "r1", "research", "writing")
    await ops.ledger.submit(new_job(job_id))
    claim = await claim_one(ops.ledger, incarnation)
    await ops.ledger.finish(claim.fence, finish("a draft", escalate=True), job_id)
    return claim.fence.task_id


async def asking(ops: Service) -> str:
    """A job that waits for an approval; its task."""
    incarnation = await join(ops.ledger)
    await ops.ledger.submit(new_job())
    claim = await claim_one(ops.ledger, incarnation)
    request = ApprovalRequest(
        approval_id="ask-1",
        tool="delete",
        arguments=ARGUMENTS,
        arguments_sha256=SHA256,
        question="May it be deleted?",
    )
    await ops.ledger.wait(claim.fence, Waiting(reason="approval", approvals=(request,)))
    return claim.fence.task_id


async def text_of(ops: Service, job_id: str) -> str:
    status, payload = await ops.get(f"/api/v1/jobs/{job_id}/result")
    assert (status, payload["state"]) == (200, "completed")
    return str(payload["result"]["text"])


async def actors(ops: Service, kind: str, job_id: str = JOB) -> list[str]:
    events = (await ops.get(f"/api/v1/jobs/{job_id}/events"))[1]["data"]
    return [event["data"]["actor"] for event in events if event["type"] == kind]


# retry and clone -----------------------------------------------------------------------


async def test_an_ended_job_is_tried_again_as_a_clone(ops: Service) -> None:
    await completed(ops)
    response = await ops.client.post(f"/api/v1/jobs/{JOB}/retry", json={"actor": "ann"})
    made = await response.json()
    assert (response.status, made["verdict"], made["state"]) == (201, "accepted", "queued")
    assert made["retry_of"] == JOB
    assert response.headers["Location"] == f"/api/v1/jobs/{made['job_id']}"
    assert await actors(ops, "job.accepted", made["job_id"]) == ["ann"]
    assert len(ops.broker.on(TOPICS.wake("research"))) == 1
    assert (await claim_one(ops.ledger, "r1-incarnation")).job_id == made["job_id"]


async def test_what_waits_for_a_person_is_tried_again_with_guidance(ops: Service) -> None:
    await escalated(ops)
    status, done = await ops.post(f"/api/v1/jobs/{JOB}/retry", {"words": "shorter", "actor": "ann"})
    assert (status, done["verdict"], done["state"], done["task_state"]) == (202, "ok", "running", "queued")
    assert (await claim_one(ops.ledger, "r1-incarnation")).feedback == "shorter"
    assert await actors(ops, "task.retry_by_person") == ["ann"]


async def test_a_retry_that_nobody_would_hear_is_refused(ops: Service) -> None:
    await completed(ops)
    status, problem = await ops.post(f"/api/v1/jobs/{JOB}/retry", {"words": "shorter"})
    assert (status, problem["code"]) == (422, "invalid")
    await ops.ledger.submit(new_job("job-2"))
    status, problem = await ops.post("/api/v1/jobs/job-2/retry")
    assert (status, problem["code"]) == (409, "conflict")
    assert "job escalate job-2" in problem["detail"]


async def test_a_clone_needs_an_ended_job_and_repeats_make_one(ops: Service) -> None:
    await ops.ledger.submit(new_job())
    assert (await ops.post(f"/api/v1/jobs/{JOB}/clone"))[0] == 409
    await ops.ledger.cancel(JOB, "ann")
    key = {"Idempotency-Key": "k1"}
    status, made = await ops.post(f"/api/v1/jobs/{JOB}/clone", b"", **key)
    assert (status, made["verdict"]) == (201, "accepted")
    status, again = await ops.post(f"/api/v1/jobs/{JOB}/clone", b"", **key)
    assert (status, again["verdict"], again["job_id"]) == (200, "duplicate", made["job_id"])
    status, other = await ops.post(f"/api/v1/jobs/{JOB}/clone")
    assert (status, other["job_id"] != made["job_id"]) == (201, True)


# escalate, decide, override ----------------------------------------------------------------


async def test_a_person_takes_a_job_and_answers_it(ops: Service) -> None:
    await ops.ledger.submit(new_job())
    status, done = await ops.post(f"/api/v1/jobs/{JOB}/escalate", {"actor": "ann", "reason": "let me see"})
    assert (status, done["state"]) == (202, "waiting")
    assert await actors(ops, "job.escalation_requested") == ["ann"]
    status, done = await ops.post(f"/api/v1/jobs/{JOB}/decide", {"action": "answer", "words": "mine"})
    assert (status, done["state"], done["task_state"]) == (202, "completed", "completed")
    assert await text_of(ops, JOB) == "mine"
    assert await actors(ops, "task.answer_by_person") == ["api"]


async def test_a_job_shows_what_it_asks(ops: Service) -> None:
    task = await escalated(ops)
    question = (await ops.get(f"/api/v1/jobs/{JOB}"))[1]["questions"][0]
    assert (question["task_id"], question["kind"], question["hop"]) == (task, "escalated", 1)
    assert question["draft"]["text"] == "a draft"
    await ops.ledger.decide(task, "retry", job_id=JOB, actor="ann")
    claim = await claim_one(ops.ledger, "r1-incarnation")
    await ops.ledger.wait(claim.fence, Waiting(reason="person", question="Which one?"))
    question = (await ops.get(f"/api/v1/jobs/{JOB}"))[1]["questions"][0]
    assert (question["kind"], question["why"]) == ("person", "Which one?")
    await ops.post(f"/api/v1/jobs/{JOB}/cancel", {"actor": "ann"})
    assert (await ops.get(f"/api/v1/jobs/{JOB}"))[1]["questions"] == []
    assert "ann" in await actors(ops, "job.cancel_requested")


async def test_only_tasks_of_the_job_are_taken(ops: Service) -> None:
    await ops.ledger.submit(new_job())
    await ops.ledger.submit(new_job("job-2"))
    task, other = [(await ops.ledger.job(job)).tasks[0].task_id for job in (JOB, "job-2")]
    status, problem = await ops.post(f"/api/v1/jobs/{JOB}/escalate", {"task_id": other})
    assert (status, problem["code"]) == (404, "not_found")
    assert (await ops.post(f"/api/v1/jobs/{JOB}/escalate", {"task_id": task[:13]}))[0] == 202
    status, problem = await ops.post("/api/v1/jobs/job-2/decide", {"action": "cancel", "task_id": task})
    assert (status, problem["code"]) == (404, "not_found")
    assert (await ops.ledger.job(JOB)).job.state == "waiting"
    await ops.ledger.cancel(JOB, "ann")
    status, done = await ops.post(f"/api/v1/jobs/{JOB}/escalate")
    assert (status, done["verdict"], done["state"]) == (200, "already", "cancelled")
    assert (await ops.post(f"/api/v1/jobs/{JOB}/escalate", {"task_id": task}))[0] == 409


async def test_an_accepted_draft_may_be_handed_on(ops: Service) -> None:
    await escalated(ops)
    onward = {"capability": "writing", "instruction": "Make it prose."}
    status, done = await ops.post(f"/api/v1/jobs/{JOB}/decide", {"action": "accept", "next": onward})
    assert (status, done["state"]) == (202, "running")
    claim = await claim_one(ops.ledger, "r1-incarnation")
    assert (claim.capability, claim.instruction) == ("writing", "Make it prose.")
    await ops.ledger.finish(claim.fence, finish("the end"), JOB)
    assert await text_of(ops, JOB) == "the end"


async def test_a_decision_may_hold_only_for_what_was_seen(ops: Service) -> None:
    task = await escalated(ops)
    response = await ops.client.get(f"/api/v1/jobs/{JOB}")
    seen = response.headers["ETag"]
    await ops.ledger.decide(task, "retry", job_id=JOB, actor="bob")
    claim = await claim_one(ops.ledger, "r1-incarnation")
    await ops.ledger.finish(claim.fence, finish("another draft", escalate=True), JOB)
    accept = {"action": "accept"}
    status, problem = await ops.post(f"/api/v1/jobs/{JOB}/decide", accept, **{"If-Match": seen})
    assert (status, problem["code"]) == (412, "precondition_failed")
    now = (await ops.client.get(f"/api/v1/jobs/{JOB}")).headers["ETag"]
    assert (await ops.post(f"/api/v1/jobs/{JOB}/decide", accept, **{"If-Match": f'"x", {now}'}))[0] == 202
    assert await text_of(ops, JOB) == "another draft"


async def test_decisions_that_cannot_be_are_conflicts(ops: Service) -> None:
    await ops.ledger.submit(new_job())
    task = (await ops.ledger.job(JOB)).tasks[0].task_id
    for body in ({"action": "accept"}, {"action": "accept", "task_id": task}):
        assert (await ops.post(f"/api/v1/jobs/{JOB}/decide", body))[0] == 409
    await ops.ledger.escalate(JOB, "ann", reason="x")
    status, problem = await ops.post(f"/api/v1/jobs/{JOB}/decide", {"action": "accept"})
    assert (status, "proposed no result" in problem["detail"]) == (409, True)
    status, problem = await ops.post(f"/api/v1/jobs/{JOB}/decide", {"action": "answer"})
    assert (status, problem["code"]) == (422, "invalid")


async def test_a_correction_makes_a_completed_clone(ops: Service) -> None:
    await completed(ops)
    key = {"Idempotency-Key": "k1"}
    status, made = await ops.post(f"/api/v1/jobs/{JOB}/override", {"text": "right"}, **key)
    assert (status, made["state"]) == (201, "completed")
    assert (await text_of(ops, JOB), await text_of(ops, made["job_id"])) == ("wrong", "right")
    status, again = await ops.post(f"/api/v1/jobs/{JOB}/override", {"text": "right"}, **key)
    assert (status, again["job_id"]) == (200, made["job_id"])
    status, other = await ops.post(f"/api/v1/jobs/{JOB}/override", {"text": "else"}, **key)
    assert (status, other["job_id"] != made["job_id"]) == (201, True)


async def test_an_override_answers_what_waits_and_nothing_else(ops: Service) -> None:
    await escalated(ops)
    assert (await ops.post(f"/api/v1/jobs/{JOB}/override", {"text": "mine"}))[0] == 202
    assert await text_of(ops, JOB) == "mine"
    await ops.ledger.submit(new_job("job-2"))
    assert (await ops.post("/api/v1/jobs/job-2/override", {"text": "mine"}))[0] == 409
    await ops.ledger.cancel("job-2", "ann")
    assert (await ops.post("/api/v1/jobs/job-2/override", {"text": "mine"}))[0] == 409


# approvals -----------------------------------------------------------------------------------


async def test_questions_are_listed_and_shown_with_their_hash(ops: Service) -> None:
    await asking(ops)
    status, page = await ops.get("/api/v1/approvals?state=pending")
    assert (status, [row["approval_id"] for row in page["data"]]) == (200, ["ask-1"])
    assert (await ops.get("/api/v1/approvals?state=rejected"))[1]["data"] == []
    response = await ops.client.get("/api/v1/approvals/ask")
    assert response.headers["ETag"] == f'"{SHA256}"'
    assert (await response.json())["arguments"] == ARGUMENTS
    for query in ("state=open", "limit=0", "limit=x"):
        assert (await ops.get(f"/api/v1/approvals?{query}"))[1]["code"] == "invalid"
    assert (await ops.get("/api/v1/approvals/none"))[1]["code"] == "not_found"


@pytest.mark.parametrize("how", ["body", "header", "both"])
async def test_an_approval_wakes_the_task(ops: Service, how: str) -> None:
    await asking(ops)
    body: dict[str, Any] = {"decision": "approve", "actor": "ann", "reason": "fine"}
    headers = {} if how == "body" else {"If-Match": f'"{SHA256}"'}
    body |= {} if how == "header" else {"arguments_sha256": SHA256}
    status, done = await ops.post("/api/v1/approvals/ask-1", body, **headers)
    assert (status, done) == (200, {"approval_id": "ask-1", "verdict": "ok", "state": "approved"})
    assert (await claim_one(ops.ledger, "r1-incarnation")).approvals == {f"delete:{SHA256}": "approved"}
    assert [row.actor for row in await ops.ledger.approvals(state="approved")] == ["ann"]
    assert (await ops.post("/api/v1/approvals/ask-1", body, **headers))[1]["verdict"] == "already"
    status, problem = await ops.post("/api/v1/approvals/ask-1", body | {"decision": "reject"}, **headers)
    assert (status, problem["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "tag", "status"),
    [
        ({"decision": "approve"}, None, 422),
        ({"decision": "approve", "arguments_sha256": OTHER}, None, 409),
        ({"decision": "approve"}, f'"{OTHER}"', 412),
        ({"decision": "approve"}, "*", 412),
        ({"decision": "approve"}, f'W/"{SHA256}"', 412),
        ({"decision": "approve", "arguments_sha256": SHA256}, f'"{OTHER}"', 412),
        ({"decision": "approve", "arguments_sha256": OTHER}, f'"{SHA256}"', 409),
        ({"decision": "maybe", "arguments_sha256": SHA256}, None, 422),
        ({"arguments_sha256": SHA256}, None, 422),
    ],
)
async def test_an_approval_counts_only_for_what_was_shown(
    ops: Service, body: dict[str, Any], tag: str | None, status: int
) -> None:
    await asking(ops)
    answered, problem = await ops.post("/api/v1/approvals/ask-1", body, **({"If-Match": tag} if tag else {}))
    assert (answered, problem["status"]) == (status, status)
    assert [row.state for row in await ops.ledger.approvals()] == ["pending"]


async def test_the_beginning_of_several_approvals_is_none(ops: Service) -> None:
    incarnation = await join(ops.ledger)
    await ops.ledger.submit(new_job())
    claim = await claim_one(ops.ledger, incarnation)
    asked = tuple(
        ApprovalRequest(
            approval_id=f"ask-{text}",
            tool="delete",
            arguments=text,
            arguments_sha256=hashlib.sha256(text.encode()).hexdigest(),
            question="?",
        )
        for text in ("1", "2")
    )
    await ops.ledger.wait(claim.fence, Waiting(reason="approval", approvals=asked))
    status, problem = await ops.get("/api/v1/approvals/ask")
    assert (status, "several" in problem["detail"]) == (422, True)
    assert (await ops.get("/api/v1/approvals/ask-2"))[0] == 200


# agents and tasks ------------------------------------------------------------------------------


async def wish(ops: Service, incarnation: str, state: AgentState = AgentState.RUNNING) -> str | None:
    return (await ops.ledger.beat(Beat(incarnation=incarnation, state=state, free_slots=4))).desired_state


async def test_an_agent_shows_its_incarnations(ops: Service) -> None:
    incarnation = await join(ops.ledger)
    status, body = await ops.get("/api/v1/agents/r1")
    assert (status, body["agent_id"]) == (200, "r1")
    assert [row["incarnation"] for row in body["incarnations"]] == [incarnation]
    assert (await ops.get("/api/v1/agents/ghost"))[0] == 404


@pytest.mark.parametrize(
    ("action", "wanted"),
    [("pause", "paused"), ("drain", "draining"), ("stop", "stopped"), ("restart", "restarting")],
)
async def test_a_command_is_kept_and_hinted(ops: Service, action: str, wanted: str) -> None:
    incarnation = await join(ops.ledger)
    status, body = await ops.post(f"/api/v1/agents/r1/{action}", {"actor": "ann"})
    assert (status, body["incarnations"]) == (200, [incarnation])
    assert await wish(ops, incarnation) == wanted
    hint = json.loads(ops.broker.on(TOPICS.control("r1"))[0])
    assert hint == {"action": action, "command_id": body["command_id"]}


async def test_a_pause_ends_with_resume(ops: Service) -> None:
    incarnation = await join(ops.ledger)
    await ops.post("/api/v1/agents/r1/pause")
    assert (await ops.post("/api/v1/agents/r1/resume"))[0] == 200
    assert await wish(ops, incarnation, AgentState.PAUSED) == "running"


async def test_a_command_may_name_one_process(ops: Service) -> None:
    incarnation = await join(ops.ledger)
    status, body = await ops.post("/api/v1/agents/r1/drain", {"incarnation": incarnation})
    assert (status, body["incarnations"]) == (200, [incarnation])
    hint = json.loads(ops.broker.on(TOPICS.control("r1"))[0])
    assert hint["incarnation"] == incarnation
    status, problem = await ops.post("/api/v1/agents/r1/drain", {"incarnation": "another"})
    assert (status, problem["code"]) == (404, "not_found")
    status, problem = await ops.post("/api/v1/agents/r1/pause", {"incarnation": incarnation})
    assert (status, problem["code"]) == (422, "invalid")


async def test_commands_reach_the_ledger_without_a_broker(ops: Service) -> None:
    incarnation = await join(ops.ledger)
    ops.broker.away = True
    assert (await ops.post("/api/v1/agents/r1/pause"))[0] == 200
    assert await wish(ops, incarnation) == "paused"


async def test_unknown_actions_and_agents_are_not_found(ops: Service) -> None:
    await join(ops.ledger)
    for path in ("/api/v1/agents/r1/explode", "/api/v1/agents/ghost/pause", "/api/v1/agents/a%2Fb/pause"):
        status, problem = await ops.post(path)
        assert (status, problem["code"]) == (404, "not_found"), path
    assert ops.broker.published == []


async def test_a_task_is_assigned_to_a_process_or_to_an_agent(ops: Service) -> None:
    one = await join(ops.ledger, "r1")
    await join(ops.ledger, "r2")
    await ops.ledger.submit(new_job())
    task = (await ops.ledger.job(JOB)).tasks[0].task_id
    for body in ({}, {"incarnation": one, "agent": "r1"}):
        assert (await ops.post(f"/api/v1/tasks/{task}/assign", body))[1]["code"] == "invalid"
    for body in ({"incarnation": "nobody"}, {"agent": "ghost"}):
        assert (await ops.post(f"/api/v1/tasks/{task}/assign", body))[0] == 404
    status, done = await ops.post(f"/api/v1/tasks/{task}/assign", {"agent": "r2", "actor": "ann"})
    assert (status, done["task_state"]) == (202, "assigned")
    assert len(ops.broker.on(TOPICS.wake("agent.r2"))) == 1
    assert (await ops.post(f"/api/v1/tasks/{task}/assign", {"incarnation": one}))[0] == 409
    assert await ops.ledger.claim(task, "r2-incarnation") is not None
    assert (await ops.post("/api/v1/tasks/no-such-task/assign", {"incarnation": one}))[0] == 409


# events ---------------------------------------------------------------------------------------


async def test_events_of_all_jobs_are_dense_and_go_on(ops: Service) -> None:
    for number in range(3):
        await ops.ledger.submit(new_job(f"job-{number}"))
    status, page = await ops.get("/api/v1/events?limit=2")
    assert (status, [event["number"] for event in page["data"]], page["next"]) == (200, [1, 2], 2)
    page = (await ops.get(f"/api/v1/events?after={page['next']}"))[1]
    assert [event["job_id"] for event in page["data"]] == ["job-2"]
    assert (await ops.get(f"/api/v1/events?after={page['next']}"))[1] == {"data": [], "next": 3}
    for query in ("after=-1", "after=x", "limit=501"):
        assert (await ops.get(f"/api/v1/events?{query}"))[0] == 422


# bad input --------------------------------------------------------------------------------------

DOORS = [
    f"/api/v1/jobs/{JOB}/cancel",
    f"/api/v1/jobs/{JOB}/retry",
    f"/api/v1/jobs/{JOB}/clone",
    f"/api/v1/jobs/{JOB}/escalate",
    f"/api/v1/jobs/{JOB}/override",
    f"/api/v1/jobs/{JOB}/decide",
    "/api/v1/approvals/ask-1",
    "/api/v1/agents/r1/pause",
    "/api/v1/tasks/some-task/assign",
]
BAD = [
    (b"{", 400),
    (b"[]", 422),
    (b'"x"', 422),
    (b'{"actor": 5}', 422),
    (b'{"actor": "a\\u0000b"}', 400),
    (b'{"actor": "' + b"a" * 65 + b'"}', 422),
    (b'{"surprise": 1}', 422),
    (b'{"actor": "a", "actor": "b"}', 400),
    (b"[" * 50_000, 400),
    (b"\xff", 400),
    (b'{"actor": "' + b"x" * 300_000 + b'"}', 413),
]


@pytest.mark.parametrize("path", DOORS)
async def test_bad_bodies_are_refused_at_every_door(ops: Service, path: str) -> None:
    await asking(ops)
    before = await ops.ledger.changes(JOB, 0)
    for body, status in BAD:
        answered, problem = await ops.post(path, body)
        assert answered == status, (body[:40], problem)
        assert 0 < len(problem["detail"]) < 500
    assert await ops.ledger.changes(JOB, 0) == before
    assert [row.state for row in await ops.ledger.approvals()] == ["pending"]


@pytest.mark.parametrize(
    ("door", "body"),
    [
        ("override", {}),
        ("override", {"text": ""}),
        ("override", {"text": 5}),
        ("decide", {}),
        ("decide", {"action": "explode"}),
        ("decide", {"action": "retry", "words": ["a"]}),
        ("decide", {"action": "accept", "next": "writing"}),
        ("decide", {"action": "accept", "next": {}}),
        ("decide", {"action": "accept", "next": {"capability": "a", "agent": "b"}}),
        ("decide", {"action": "accept", "next": {"capability": "A/B"}}),
        ("decide", {"action": "accept", "next": {"agent": "../x"}}),
        ("escalate", {"task_id": 5}),
        ("escalate", {"reason": "x" * 501}),
    ],
)
async def test_requests_that_say_nothing_sensible_change_nothing(
    ops: Service, door: str, body: dict[str, Any]
) -> None:
    await escalated(ops)
    status, problem = await ops.post(f"/api/v1/jobs/{JOB}/{door}", body)
    assert (status, problem["code"]) == (422, "invalid")
    assert (await ops.ledger.job(JOB)).job.state == "waiting"


@pytest.mark.parametrize("door", ["retry", "clone", "escalate", "override", "decide"])
async def test_a_job_that_is_not_there_is_not_found(ops: Service, door: str) -> None:
    body = {"override": {"text": "x"}, "decide": {"action": "retry"}}.get(door, {})
    status, problem = await ops.post(f"/api/v1/jobs/nothing/{door}", body)
    assert (status, problem["code"]) == (404, "not_found")


async def test_the_actor_may_stand_in_a_header(ops: Service) -> None:
    await ops.ledger.submit(new_job())
    await ops.post(f"/api/v1/jobs/{JOB}/escalate", b"", **{"X-Actor": "bob"})
    assert await actors(ops, "job.escalation_requested") == ["bob"]
    assert (await ops.post(f"/api/v1/jobs/{JOB}/retry", b"", **{"X-Actor": "b" * 65}))[0] == 422


# the description ----------------------------------------------------------------------------------


async def test_the_description_has_a_schema_for_every_body(ops: Service) -> None:
    document = (await ops.get("/api/v1/openapi.json"))[1]
    schemas = document["components"]["schemas"]
    described = 0
    for path, operations in document["paths"].items():
        if not path.startswith("/api/v1/") or "post" not in operations:
            continue
        reference = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert reference.rpartition("/")[2] in schemas
        described += 1
    assert described == len(openapi._BODIES) >= 10
    assert schemas["Decide"]["properties"]["action"]["enum"] == ["accept", "answer", "cancel", "retry"]
    assert schemas["Override"]["required"] == ["text"]
    assert schemas["Command"]["additionalProperties"] is False
    assert issubclass(requests.Decide, requests.ByPerson)


async def test_every_reference_of_the_description_leads_somewhere(ops: Service) -> None:
    document = (await ops.get("/api/v1/openapi.json"))[1]
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names
    assert names <= set(document["components"]["schemas"])
    for path in [*openapi._LISTS, *openapi._ONE, *openapi._QUERIES, *openapi._HEADERS]:
        assert path in document["paths"], path
