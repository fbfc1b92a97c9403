"""An agent's own HTTP face: what its actions do, and how it says no."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent2389.ledger.states import AgentState
from tests.support.agent_face import Face, running_face
from tests.support.waiting import until


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Face]:
    async with running_face(tmp_path) as face:
        yield face


async def test_a_pause_lasts_until_somebody_resumes(agent: Face) -> None:
    """The ledger keeps it: otherwise its next answer to a beat set the agent running again."""
    assert await agent.act("pause") == (200, {"ok": True, "action": "pause", "status": "paused"})
    await agent.beaten()
    assert (await agent.get("/status"))[1]["status"] == "paused"
    status, body = await agent.get("/ready")
    assert (status, body["reasons"]) == (503, ["paused"])
    assert (await agent.client.post("/execute", json={"parameters": {}})).status == 409
    assert await agent.act("resume") == (200, {"ok": True, "action": "resume", "status": "running"})
    await agent.beaten()
    assert (await agent.get("/status"))[1]["status"] == "running"
    assert (await agent.get("/ready"))[0] == 200


async def test_what_was_paused_elsewhere_is_resumed_here(agent: Face) -> None:
    await agent.ledger.command("c1", "r1", "pause", "somebody")
    await until(lambda: agent.worker.state is AgentState.PAUSED)
    await agent.act("resume")
    await agent.beaten()
    assert agent.worker.state is AgentState.RUNNING


async def test_an_agent_that_leaves_is_neither_paused_nor_resumed(agent: Face) -> None:
    agent.worker.state = AgentState.DRAINING
    for action in ("pause", "resume"):
        assert (await agent.act(action))[0] == 409
    assert (await agent.ledger.agents())[0].state is not AgentState.PAUSED


async def test_stop_drains(agent: Face) -> None:
    assert (await agent.act("stop"))[0] == 200
    await until(lambda: agent.worker.state is AgentState.STOPPED)


REFUSED = {
    "no JSON": ("/action", b"{", 400, "malformed"),
    "an action that is none": ("/action", b'{"action": "dance"}', 400, "invalid"),
    "no parameters": ("/execute", b"{}", 400, "invalid"),
    "a coding that is none": ("/execute", b"{}", 400, "malformed"),
    "no such path": ("/nowhere", b"{}", 404, "not_found"),
    "no such method": ("/info", b"{}", 405, "method_not_allowed"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_every_error_is_a_problem(agent: Face, name: str) -> None:
    path, body, status, code = REFUSED[name]
    coding = {"Content-Encoding": "gzip"} if "coding" in name else {}
    response = await agent.client.post(path, data=body, headers=coding)
    assert (response.status, response.content_type) == (status, "application/problem+json")
    problem = await response.json(content_type=None)
    assert (problem["status"], problem["code"]) == (status, code)
    assert response.headers["X-Request-Id"] == problem["request_id"]


async def test_a_paused_agent_says_in_a_problem_why_it_executes_nothing(agent: Face) -> None:
    await agent.act("pause")
    response = await agent.client.post("/execute", json={"parameters": {}})
    problem = await response.json(content_type=None)
    assert (response.status, problem["code"], problem["detail"]) == (409, "conflict", "the agent is paused")


async def test_a_result_that_does_not_come_in_time_is_a_problem(
    agent: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.wiring.agent.EXECUTE_SECONDS", 0.0)
    response = await agent.client.post("/execute", json={"parameters": {}})
    problem = await response.json(content_type=None)
    assert (response.status, problem["code"]) == (504, "gateway_timeout")
    assert problem["detail"] == "no result in time"


async def test_with_a_token_only_the_probes_are_open(tmp_path: Path) -> None:
    async with running_face(tmp_path, health={"token": "of-the-agent"}) as agent:
        for given, told in (({}, "required"), ({"Authorization": "Bearer other"}, "wrong")):
            response = await agent.client.get("/info", headers=given)
            problem = await response.json(content_type=None)
            assert (response.status, problem["code"]) == (401, "unauthorized")
            assert told in problem["detail"]
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await agent.client.get("/health")).status == 200
        own = {"Authorization": "Bearer of-the-agent"}
        assert (await agent.client.get("/info", headers=own)).status == 200
