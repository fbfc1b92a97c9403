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
