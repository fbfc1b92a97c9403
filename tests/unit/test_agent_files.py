"""A task's files survive whatever interrupts its work."""

from pathlib import Path

import pytest

from agent2389.errors import Unreachable
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import FileRef
from tests.support.agent_house import ScriptedModel, house
from tests.support.jobs import claim_one


async def test_a_ledger_that_goes_while_files_are_laid_out_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder holds some of them then: stored as it is, it would take the others away."""
    ledger = MemoryLedger()
    files = {}
    for name in ("a.txt", "b.txt"):
        content = name.encode()
        files[name] = FileRef(await ledger.put_blob(content, "text/plain"), len(content), "text/plain", name)
    get_blob, asked = ledger.get_blob, []

    async def away(sha256: str) -> object:
        asked.append(sha256)
        if len(asked) == 2:
            raise Unreachable("ledger", "the database does not answer")
        return await get_blob(sha256)

    job = {"instruction": "read", "files": tuple(files.values())}
    async with house(tmp_path, ScriptedModel("read"), ledger=ledger, job=job) as agent:
        with monkeypatch.context() as broken:
            broken.setattr(ledger, "get_blob", away)
            assert await agent.work() == "released"
        claim = await claim_one(ledger, agent.incarnation)
        assert set(claim.manifest) == {"a.txt", "b.txt"}
        assert claim.attempt == 0
        assert await agent.work(claim) == "completed"
