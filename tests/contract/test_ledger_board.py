"""What every ledger promises about topics whose sender was late or whose broker forgot."""

import json
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from agent2389.ledger.records import BoardMessage
from tests.support.jobs import new_job
from tests.support.stepped import SteppedLedger


async def shown(ledger: SteppedLedger, job_id: str) -> Sequence[BoardMessage]:
    """Submit and cancel: the board gets one result; leased by the caller."""
    await ledger.submit(new_job(job_id))
    await ledger.cancel(job_id, "me")
    rows = await ledger.lease_board(10)
    assert [(row.kind, row.key) for row in rows] == [("result", (job_id,))]
    return rows


async def test_what_was_on_its_way_to_a_broker_that_forgot_is_sent_again(ledger: SteppedLedger) -> None:
    rows = await shown(ledger, "job-1")
    await ledger.board_reset()
    await ledger.board_sent(rows)
    again = await ledger.lease_board(10)
    assert [(row.kind, row.payload) for row in again] == [("result", rows[0].payload)]


async def test_a_reset_gives_everything_to_whoever_sends_next(ledger: SteppedLedger) -> None:
    rows = await shown(ledger, "job-1")
    assert await ledger.lease_board(10) == ()
    await ledger.board_reset()
    assert [row.key for row in await ledger.lease_board(10)] == [rows[0].key]


async def test_a_topic_that_a_late_sender_set_again_is_cleared_once_more(ledger: SteppedLedger) -> None:
    late = msgspec.structs.replace((await shown(ledger, "job-1"))[0], key=("gone-1",), version=3)
    await ledger.board_sent([late])
    again = await ledger.lease_board(10)
    cleared = [row for row in again if row.key == ("gone-1",)]
    assert [(row.kind, row.payload, row.version) for row in cleared] == [("result", None, 4)]
    await ledger.board_sent(cleared)
    assert [row.key for row in await ledger.lease_board(10) if row.key == ("gone-1",)] == []


async def test_tasks_of_later_leave_their_places_to_those_of_now(ledger: SteppedLedger) -> None:
    later = ledger.time() + timedelta(minutes=30)
    for number in range(100):
        await ledger.submit(new_job(f"later-{number}", not_before=later))
    await ledger.submit(new_job("now"))
    await ledger.advance(0.3)
    await ledger.refresh_board()
    (shown,) = await ledger.lease_board(200)
    assert json.loads(shown.payload or "")["job_id"] == "now"
