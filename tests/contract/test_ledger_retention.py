"""What retention leaves of a job: on both ledgers under one steered clock."""

from datetime import timedelta

from agent2389.ledger.journal import Amounts, EffectEnd, EffectStart, OwnLimits
from agent2389.ledger.records import Budget
from tests.support.jobs import finish, join, new_job
from tests.support.twins import Twins

WHO = "r1-incarnation"
CALL = EffectStart(
    step=0, call=0, kind="model", name="m", repeat="pure", request_hash="h", reserve=Amounts(cost_usd=0.5)
)
LIMITS = OwnLimits(task=Budget(cost_usd=1.0))


def test_an_id_that_comes_again_after_its_tombstone_has_its_whole_budget(both: Twins) -> None:
    asked = new_job(budget=Budget(cost_usd=1.0))
    for _ in range(2):
        both.both("one", lambda ledger, of: join(ledger))
        again = both.both("one", lambda ledger, of: ledger.submit(asked))
        assert again.memory.verdict == "accepted"
        claimed = both.both("one", lambda ledger, of: ledger.claim_batch(WHO, 1))
        begun = both.both("one", lambda ledger, of: ledger.effect_begin(of(claimed)[0].fence, [CALL], LIMITS))
        assert begun.memory.verdict == "ok"
        paid = EffectEnd(step=0, call=0, used=Amounts(cost_usd=1.5))
        both.both("one", lambda ledger, of: ledger.effect_end(of(claimed)[0].fence, [paid]))
        both.both("one", lambda ledger, of: ledger.finish(of(claimed)[0].fence, finish(), "job-1"))
        both.both("one", lambda ledger, of: ledger.seal(1000))
        both.step(timedelta(days=8))
        both.both("one", lambda ledger, of: ledger.retire(7), unordered=True)
        assert both.both("one", lambda ledger, of: ledger.submit(asked)).memory.verdict == "duplicate"
        both.step(timedelta(days=31))
        both.both("one", lambda ledger, of: ledger.retire(7), unordered=True)
