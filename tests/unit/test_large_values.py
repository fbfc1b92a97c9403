"""Inputs and answers too large for a message: whole in a blob, named everywhere, cut nowhere."""

import json
import uuid
from pathlib import Path

import msgspec
import pytest

from agent2389.agent.files import Workspace
from agent2389.agent.handoff import HandOff
from agent2389.agent.loop import Answer, storable
from agent2389.agent.parts import Observer
from agent2389.agent.prompt import task_text
from agent2389.ledger.blobs import MAX_INLINE_BYTES, PREVIEW_BYTES, begun, fits, preview
from agent2389.ledger.records import Claim, FileRef, Finish, Usage
from agent2389.llm.messages import Reply
from agent2389.router.port import Decision, Outcome, Target
from agent2389.upkeep.accept import accept_document, accept_envelope
from agent2389.wire.envelope import read_envelope
from agent2389.wire.limits import MAX_MESSAGE_BYTES
from tests.support.jobs import claim_one, join, new_job
from tests.support.stepped import SteppedMemory

LARGE = "The harbour opens at six. " * 8000
DONE = Decision(outcome=Outcome.DONE, strategy="test", reason="complete")
ON = Decision(
    outcome=Outcome.HAND_OFF, strategy="test", reason="go on", targets=(Target(capability="writing"),)
)


async def finished(ledger: SteppedMemory, claim: Claim, text: str, decision: Decision = DONE) -> Finish:
    """Hand off ``text`` as the claim's answer, with the files that the claim had."""
    finish = await HandOff(ledger, "r1", Observer()).finish(
        claim,
        Answer(text, "model", rehearsal=False),
        decision,
        seconds=0.0,
        used=Usage(),
        manifest=dict(claim.manifest),
    )
    await ledger.finish(claim.fence, finish, claim.job_id)
    return finish


async def test_a_large_input_is_a_file_of_the_task(tmp_path: Path) -> None:
    ledger = SteppedMemory()
    body = json.dumps({"instruction": "Read.", "input": LARGE, "capability": "research"}).encode()
    assert MAX_INLINE_BYTES < len(body) <= MAX_MESSAGE_BYTES
    submitted = await accept_document(ledger, body)
    claim = await claim_one(ledger, await join(ledger))
    assert set(claim.input) == {"sha256", "size", "media_type", "name", "preview"}
    assert claim.input["name"] == "input.txt"
    assert len(claim.input["preview"]) <= PREVIEW_BYTES
    workspace = Workspace(tmp_path, ledger, "default", claim.fence.task_id)
    await workspace.lay_out(claim.manifest)
    assert (workspace.path / "input.txt").read_text() == LARGE
    text = task_text(claim)
    assert f"the file input.txt in the workspace ({len(LARGE)} bytes)" in text
    assert len(text) < 2 * PREVIEW_BYTES
    detail = await ledger.job(submitted.job_id)
    assert len(msgspec.json.encode(detail.submission)) < 3 * PREVIEW_BYTES
    again = await accept_document(ledger, body, job_id=submitted.job_id)
    assert again.verdict == "duplicate"


async def test_a_large_object_is_json_and_takes_no_name_of_another_file() -> None:
    ledger = SteppedMemory()
    body = {
        "instruction": "Read.",
        "input": {"rows": [LARGE[:200]] * 1000},
        "capability": "research",
        "files": [{"name": "input.json", "content_base64": "e30="}],
    }
    await accept_document(ledger, json.dumps(body).encode())
    claim = await claim_one(ledger, await join(ledger))
    assert claim.input["name"] == "input-2.json"
    assert set(claim.manifest) == {"input.json", "input-2.json"}
    stored = (await ledger.get_blob(claim.input["sha256"])).content
    assert json.loads(stored) == body["input"]


async def test_a_large_input_of_an_envelope_is_a_file_too() -> None:
    ledger = SteppedMemory()
    await join(ledger, "r1")
    document = {
        "task_id": str(uuid.uuid4()),
        "conversation_id": "talk",
        "topic": "/control/agents/r1/input",
        "instruction": "Read.",
        "input": LARGE,
    }
    await accept_envelope(ledger, read_envelope(document), "r1")
    claim = await claim_one(ledger, "r1-incarnation")
    assert claim.manifest[claim.input["name"]].size == len(LARGE)


async def test_what_only_looks_like_a_reference_is_shown_as_it_is() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job(input={"name": "a.txt", "sha256": "0" * 64, "size": 5}))
    claim = await claim_one(ledger, await join(ledger))
    assert '"sha256"' in task_text(claim)


async def test_an_input_that_fits_is_never_cut() -> None:
    ledger = SteppedMemory()
    rows = [[number] for number in range(20_000)]
    assert fits(rows)
    await ledger.submit(new_job(input=rows))
    claim = await claim_one(ledger, await join(ledger))
    assert "[19999]" in task_text(claim)


async def test_a_large_answer_goes_on_whole_and_keeps_its_name() -> None:
    ledger = SteppedMemory()
    first, second = await join(ledger, "r1"), await join(ledger, "w1", "writing")
    await ledger.submit(new_job())
    await finished(ledger, await claim_one(ledger, first), LARGE, ON)
    claim = await claim_one(ledger, second)
    assert claim.input["name"] == "answer.txt"
    assert (await ledger.get_blob(claim.input["sha256"])).content.decode() == LARGE
    await finished(ledger, claim, LARGE + "And closes at nine.")
    final = json.loads((await ledger.job("job-1")).final or "")
    names = [file["name"] for file in final["result"]["files"]]
    assert names == ["answer.txt", "answer-2.txt"]
    whole = final["result"]["files"][-1]
    assert final["result"]["text"].startswith(whole["preview"])
    assert final["result"]["text"].endswith(f"[cut: all {len(LARGE) + 19} bytes are the file answer-2.txt]")
    assert (await ledger.get_blob(whole["sha256"])).content.decode().endswith("nine.")


async def test_an_answer_that_is_a_file_already_is_that_file() -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    claim = await claim_one(ledger, await join(ledger))
    digest = await ledger.put_blob(LARGE.encode(), "text/markdown")
    manifest = {"report.md": FileRef(digest, len(LARGE), "text/markdown", "report.md")}
    finish = await finished(ledger, msgspec.structs.replace(claim, manifest=manifest), LARGE)
    assert [file.name for file in finish.result.files] == ["report.md"]
    assert list(finish.manifest) == ["report.md"]


@pytest.mark.parametrize("count", [64, 1000])
async def test_a_result_with_many_files_fits_a_message(count: int) -> None:
    ledger = SteppedMemory()
    await ledger.submit(new_job())
    claim = await claim_one(ledger, await join(ledger))
    manifest = {
        f"file-{number}": FileRef(f"{number:064x}", 9, "text/plain", f"file-{number}", "p" * PREVIEW_BYTES)
        for number in range(count)
    }
    text = "\n" * 90_000
    finish = await finished(ledger, msgspec.structs.replace(claim, manifest=manifest), text)
    final = (await ledger.job("job-1")).final or ""
    assert len(final.encode()) < MAX_MESSAGE_BYTES
    assert finish.result.text == text
    assert len(finish.manifest) == count
    if count == 1000:
        listed = await ledger.get_blob(finish.result.files[0].sha256)
        assert len(json.loads(listed.content)) == count
    else:
        assert len(finish.result.files) == count


def test_the_limit_counts_what_is_sent() -> None:
    assert fits("x" * (MAX_INLINE_BYTES - 2))
    assert not fits("x" * (MAX_INLINE_BYTES - 1))
    assert not fits("\n" * (MAX_INLINE_BYTES // 2)), "a line break is two characters of JSON"
    assert begun("short") == "short"
    assert len(begun("x" * MAX_INLINE_BYTES)) < MAX_INLINE_BYTES


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"text", "text"),
        (b"a\x00b", None),
        (b"\xff\xfe", None),
        (b"", ""),
        ("é".encode() * 4000, "é" * 2048),
        (b"x" + "é".encode() * 4000, "x" + "é" * 2047),
    ],
)
def test_previews_are_text_or_nothing(content: bytes, expected: str | None) -> None:
    assert preview(content) == expected


def test_an_answer_is_freed_from_what_no_document_may_hold() -> None:
    reply = storable(Reply(text="a\x00b\ud800c", model="m"))
    assert reply.text == "ab?c"
    fine = Reply(text="é", model="m")
    assert storable(fine) is fine
