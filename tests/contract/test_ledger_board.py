"""What every ledger promises about topics whose sender was late or whose broker forgot."""

from collections.abc import Sequence

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
