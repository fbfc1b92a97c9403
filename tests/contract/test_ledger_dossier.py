"""The dossier of a job: written once, read in order, seen by nobody else, gone with its job."""

import asyncio
from typing import Any

import pytest

from agent2389.errors import InputRefused, LeaseLost, NotFound
from agent2389.ledger.dossier import NewCitation, RequirementChange
from agent2389.ledger.records import Fence
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger

SHA = "a" * 64


def citation(**changes: Any) -> NewCitation:
    fields: dict[str, Any] = {
        "kind": "document",
        "locator": "report.pdf",
        "sha256": SHA,
        "title": "Report",
        "claim": "It rained.",
        "quote": "rain fell",
        "place": "p. 2",
        "found": True,
    }
    return NewCitation(**(fields | changes))


@pytest.fixture
async def task(ledger: SteppedLedger) -> Fence:
    """A task that an agent works on."""
    return await a_task(ledger, "job-1")


async def a_task(ledger: SteppedLedger, job_id: str) -> Fence:
    await ledger.submit(new_job(job_id))
    claim = await claim_one(ledger, await join(ledger))
    return claim.fence


async def test_a_citation_is_kept_once_with_its_source(ledger: SteppedLedger, task: Fence) -> None:
    first = await ledger.dossier.cite(task, citation())
    again = await ledger.dossier.cite(task, citation(title="another title", found=False))
    other = await ledger.dossier.cite(task, citation(claim="It was cold."))
    web = await ledger.dossier.cite(
        task, citation(kind="web", locator="https://example.com/", sha256=None, found=None)
    )
    assert again == first
    assert (first.number, first.source, first.title, first.found) == (1, 1, "Report", True)
    assert (other.number, other.source) == (2, 1)
    assert (web.number, web.source, web.found) == (3, 2, None)
    sources = await ledger.dossier.sources("job-1")
    assert [(row.number, row.kind, row.citations) for row in sources] == [(1, "document", 2), (2, "web", 1)]
    assert await ledger.dossier.citations("job-1") == (first, other, web)
    assert await ledger.dossier.citations("job-1", source=1) == (first, other)
    assert await ledger.dossier.citations("job-1", limit=1) == (first,)
    assert await ledger.dossier.citation("job-1", 2) == other


async def test_a_full_dossier_still_knows_what_it_holds(
    ledger: SteppedLedger, task: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("postgres_dossier", "memory_dossier"):
        monkeypatch.setattr(f"agent2389.ledger.{module}.MOST_CITATIONS", 1)
        monkeypatch.setattr(f"agent2389.ledger.{module}.MOST_REQUIREMENTS", 1)
    kept = await ledger.dossier.cite(task, citation())
    assert await ledger.dossier.cite(task, citation()) == kept
    asked = await ledger.dossier.add_requirement(task, "It ends.")
    assert await ledger.dossier.add_requirement(task, "It ends.") == asked
    for other in ({"claim": "It was cold."}, {"locator": "another.pdf"}):
        with pytest.raises(InputRefused):
            await ledger.dossier.cite(task, citation(**other))
    with pytest.raises(InputRefused):
        await ledger.dossier.add_requirement(task, "It begins.")
    assert [row.number for row in await ledger.dossier.sources("job-1")] == [1]


async def test_another_content_of_a_file_is_another_source(ledger: SteppedLedger, task: Fence) -> None:
    await ledger.dossier.cite(task, citation())
    second = await ledger.dossier.cite(task, citation(sha256="b" * 64))
    assert second.source == 2


async def test_requirements_are_added_once_and_edited_as_they_were_read(
    ledger: SteppedLedger, task: Fence
) -> None:
    first = await ledger.dossier.add_requirement(task, "It has a title.")
    assert await ledger.dossier.add_requirement(task, "It has a title.", priority="could") == first
    await ledger.dossier.add_requirement(task, "It is short.", priority="should")
    assert (first.number, first.priority, first.status, first.version) == (1, "must", "open", 1)
    met = RequirementChange(status="met", note="see line 1")
    done = await ledger.dossier.edit_requirement(task, 1, 1, met)
    assert (done.verdict, done.requirement.status, done.requirement.version) == ("ok", "met", 2)
    repeated = await ledger.dossier.edit_requirement(task, 1, 1, met)
    assert (repeated.verdict, repeated.requirement) == ("already", done.requirement)
    late = await ledger.dossier.edit_requirement(task, 1, 1, RequirementChange(status="rejected"))
    assert (late.verdict, late.requirement) == ("stale", done.requirement)
    assert [row.number for row in await ledger.dossier.requirements("job-1", status="open")] == [2]
    assert [row.number for row in await ledger.dossier.requirements("job-1")] == [1, 2]
    assert await ledger.dossier.requirement("job-1", 1) == done.requirement


async def test_writers_at_the_same_time_get_different_numbers(ledger: SteppedLedger, task: Fence) -> None:
    made = await asyncio.gather(
        *(ledger.dossier.cite(task, citation(claim=f"claim {number % 5}")) for number in range(10))
    )
    assert sorted({row.number for row in made}) == [1, 2, 3, 4, 5]
    assert len(await ledger.dossier.citations("job-1")) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "rumour"},
        {"locator": ""},
        {"locator": "x" * 2049},
        {"claim": ""},
        {"claim": "x" * 4001},
        {"quote": "x" * 8001},
        {"place": "x" * 201},
        {"title": "x" * 501},
    ],
)
async def test_a_citation_outside_the_rules_is_refused(
    ledger: SteppedLedger, task: Fence, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputRefused):
        await ledger.dossier.cite(task, citation(**wrong))
    assert await ledger.dossier.sources("job-1") == ()


async def test_a_requirement_outside_the_rules_is_refused(ledger: SteppedLedger, task: Fence) -> None:
    for text, priority in (("", "must"), ("x" * 4001, "must"), ("fine", "urgent")):
        with pytest.raises(InputRefused):
            await ledger.dossier.add_requirement(task, text, priority=priority)
    await ledger.dossier.add_requirement(task, "fine")
    with pytest.raises(InputRefused):
        await ledger.dossier.edit_requirement(task, 1, 1, RequirementChange(status="perhaps"))
    assert (await ledger.dossier.requirement("job-1", 1)).version == 1


async def test_what_is_not_there_is_not_found(ledger: SteppedLedger, task: Fence) -> None:
    for number in (0, 1, -1):
        with pytest.raises(NotFound):
            await ledger.dossier.citation("job-1", number)
        with pytest.raises(NotFound):
            await ledger.dossier.requirement("job-1", number)
        with pytest.raises(NotFound):
            await ledger.dossier.edit_requirement(task, number, 1, RequirementChange(status="met"))
    assert await ledger.dossier.sources("job-2") == ()


async def test_only_an_open_task_writes(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    claim = await claim_one(ledger, await join(ledger))
    await ledger.dossier.cite(claim.fence, citation())
    await ledger.finish(claim.fence, finish(), "job-1")
    for fence, refusal in ((claim.fence, LeaseLost), (Fence("no-such-task", 1, "x"), NotFound)):
        with pytest.raises(refusal):
            await ledger.dossier.cite(fence, citation(claim="too late"))
        with pytest.raises(refusal):
            await ledger.dossier.add_requirement(fence, "too late")
    assert len(await ledger.dossier.citations("job-1")) == 1, "it can still be read"


async def test_a_late_worker_writes_nothing_but_the_evidence(hasty: SteppedLedger) -> None:
    await hasty.submit(new_job())
    me = await join(hasty)
    late = (await claim_one(hasty, me)).fence
    await hasty.dossier.add_requirement(late, "It names its sources.")
    await hasty.advance(0.5)
    await hasty.reap()
    now = (await claim_one(hasty, me)).fence
    await hasty.dossier.cite(now, citation(claim="In time."))
    for write in (
        hasty.dossier.cite(late, citation()),
        hasty.dossier.add_requirement(late, "It is late."),
        hasty.dossier.edit_requirement(late, 1, 1, RequirementChange(status="met", note="so it seemed")),
        hasty.dossier.add_requirement(Fence(now.task_id, now.epoch, late.token), "It guesses."),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert [row.claim for row in await hasty.dossier.citations("job-1")] == ["In time."]
    assert [(row.text, row.version) for row in await hasty.dossier.requirements("job-1")] == [
        ("It names its sources.", 1)
    ]
    refused = [change for change in (await hasty.job("job-1")).changes if change.type == "task.fenced"]
    assert [(change.data["write"], change.data["evidence"]) for change in refused] == [
        ("cite", "It rained."),
        ("add_requirement", "It is late."),
        ("edit_requirement", "so it seemed"),
        ("add_requirement", "It guesses."),
    ]


async def test_a_dossier_leaves_with_its_job(ledger: SteppedLedger) -> None:
    await ledger.submit(new_job())
    claim = await claim_one(ledger, await join(ledger))
    await ledger.dossier.cite(claim.fence, citation())
    await ledger.dossier.add_requirement(claim.fence, "It ends.")
    await ledger.finish(claim.fence, finish(), "job-1")
    await ledger.seal(100)
    await ledger.advance(0.05)
    await ledger.retire(keep_days=0.0)
    with pytest.raises(NotFound):
        await ledger.job("job-1")
    assert await ledger.dossier.sources("job-1") == ()
    assert await ledger.dossier.citations("job-1") == ()
    assert await ledger.dossier.requirements("job-1") == ()


async def test_jobs_do_not_share_a_dossier(ledger: SteppedLedger, task: Fence) -> None:
    other = await a_task(ledger, "job-2")
    await ledger.dossier.cite(task, citation())
    made = await ledger.dossier.cite(other, citation())
    assert made.number == 1
    assert [row.task_id for row in await ledger.dossier.citations("job-2")] == [other.task_id]
