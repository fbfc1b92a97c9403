"""Of many processes that refuse one message together, one tells the sender."""

import asyncio

from agent2389.ledger.postgres import PostgresLedger
from agent2389.ledger.records import Rejection
from tests.support.postgres import Databases


async def test_of_many_that_refuse_one_message_together_one_tells(databases: Databases) -> None:
    dsn = databases.login_dsn(await databases.new())
    ledgers = [await PostgresLedger.open(dsn) for _ in range(6)]
    try:
        for number in range(40):
            refusal = Rejection(topic=f"t/{number}", payload_sha256="0" * 64, size=1, code="invalid")
            told = await asyncio.gather(*(ledger.reject(refusal) for ledger in ledgers))
            assert told.count(True) == 1, number
    finally:
        for ledger in ledgers:
            await ledger.close()
