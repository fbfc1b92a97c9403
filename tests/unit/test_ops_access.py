"""Who may call the ops service: tokens, loopback, pages of other origins."""

import pytest

from agent2389.insight.probes import PROBES
from tests.support.ops import running_ops

TOKEN, MANAGER = "token-of-the-mesh", "token-of-the-manager"
GUARDED = ("/info", "/api/v1/jobs", "/api/v1/agents", "/api/v1/pools", "/api/agent-services")


async def test_probes_and_documents_need_no_token_anywhere() -> None:
    async with running_ops(token=TOKEN, token_required=True) as ops:
        for path in (*PROBES, "/docs", "/api/v1/openapi.json"):
            assert (await ops.client.get(path)).status == 200, path


async def test_off_loopback_everything_else_needs_the_token() -> None:
    async with running_ops(token=TOKEN, token_required=True) as ops:
        for path in GUARDED:
            status, problem = await ops.get(path)
            assert (status, problem["code"]) == (401, "unauthorized")
            response = await ops.client.get(path)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert (await ops.get(path, Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert (await ops.post("/api/v1/jobs", {"instruction": "x"}))[0] == 401
        assert (await ops.ledger.jobs()) == ()


async def test_off_loopback_without_a_token_nobody_gets_in() -> None:
    async with running_ops(token_required=True) as ops:
        for given in ("", "Bearer ", "Bearer None", "Bearer x"):
            assert (await ops.get("/info", **({"Authorization": given} if given else {})))[0] == 401


@pytest.mark.parametrize("given", ["Bearer wrong", TOKEN[:-1], "Bearer", f"Basic {TOKEN}", TOKEN, "Bearer é"])
async def test_wrong_credentials_are_refused_even_on_loopback(given: str) -> None:
    async with running_ops(token=TOKEN) as ops:
        assert (await ops.get("/info"))[0] == 200
        status, problem = await ops.get("/info", Authorization=given)
        assert (status, "token is wrong" in problem["detail"]) == (401, True)


async def test_a_missing_token_is_asked_for() -> None:
    async with running_ops(token=TOKEN, token_required=True) as ops:
        assert "token is required" in (await ops.get("/info"))[1]["detail"]


async def test_the_scheme_is_read_without_regard_to_case() -> None:
    async with running_ops(token=TOKEN, token_required=True) as ops:
        assert (await ops.get("/info", Authorization=f"bearer {TOKEN}"))[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost", "file://"]
)
async def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    async with running_ops(token=TOKEN) as ops:
        status, problem = await ops.post("/api/v1/jobs", {"instruction": "x"}, Origin=origin)
        assert (status, problem["code"]) == (401, "unauthorized")
        allowed = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
        assert (await ops.post("/api/v1/jobs", {"instruction": "x"}, **allowed))[0] == 201


async def test_the_own_page_is_served() -> None:
    async with running_ops(token=TOKEN) as ops:
        own = str(ops.client.make_url("/")).rstrip("/")
        assert (await ops.get("/info", Origin=own))[0] == 200


async def test_a_name_that_was_rebound_to_loopback_is_refused() -> None:
    async with running_ops(token=TOKEN) as ops:
        assert (await ops.get("/info", Host="evil.example"))[0] == 401
        assert (await ops.get("/info", Host="localhost"))[0] == 200


async def test_the_manager_token_opens_its_own_door_only() -> None:
    async with running_ops(token=TOKEN, manager_token=MANAGER, token_required=True) as ops:
        manager = {"X-Manager-Token": MANAGER}
        assert (await ops.get("/api/agent-services", **manager))[0] == 200
        assert (await ops.post("/api/agent-services/register", {"id": "one"}, **manager))[0] == 201
        assert (await ops.get("/api/v1/jobs", **manager))[0] == 401
        assert (await ops.get("/api/agent-services", **{"X-Manager-Token": "x"}))[0] == 401
