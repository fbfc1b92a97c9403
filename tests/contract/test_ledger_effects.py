"""The journal on every ledger: what a crash may repeat, what a budget allows, what is kept."""

import asyncio
import json

import pytest

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger.journal import Amounts, Begun, EffectEnd, EffectStart, Message, OwnLimits
from agent2389.ledger.records import Budget, Claim, Failure, Fence, FileRef
from agent2389.ledger.states import TaskState
from tests.contract.conftest import SHORT_LEASE
from tests.support.jobs import claim_one, finish, join, new_job
from tests.support.stepped import SteppedLedger

NO_LIMITS = OwnLimits()


def model(step: int = 0, **reserve: float) -> EffectStart:
    return EffectStart(
        step=step,
        call=0,
        kind="model",
        name="some-model",
        repeat="pure",
        request_hash="h",
        reserve=Amounts(**reserve),  # type: ignore[arg-type]
    )


def tool(call: int = 1, step: int = 0, repeat: str = "pure", key: str | None = None) -> EffectStart:
    return EffectStart(
        step=step, call=call, kind="tool", name="send", repeat=repeat, request_hash="h", key=key
    )


def said(step: int, slot: int, text: str, role: str = "tool") -> Message:
    return Message(step=step, slot=slot, body=json.dumps({"role": role, "text": text}))


async def claimed(ledger: SteppedLedger, **job: object) -> tuple[Claim, str]:
    incarnation = await join(ledger)
    await ledger.submit(new_job(**job))  # type: ignore[arg-type]
    return await claim_one(ledger, incarnation), incarnation


async def begin(ledger: SteppedLedger, fence: Fence, *starts: EffectStart) -> Begun:
    return await ledger.effect_begin(fence, starts, NO_LIMITS)


def verdicts(begun: Begun) -> list[str]:
    return [begun.verdict, *(answer.verdict for answer in begun.answers)]


async def crash(ledger: SteppedLedger, incarnation: str) -> Claim:
    """The lease runs out, the reaper comes, somebody claims again."""
    await ledger.advance(SHORT_LEASE + 0.1)
    await ledger.reap()
    return await claim_one(ledger, incarnation)


async def try_again(ledger: SteppedLedger, claim: Claim, incarnation: str) -> Claim:
    """A recorded failure: a new generation."""
    await ledger.fail(claim.fence, Failure(code="llm_error", message="no", retryable=True))

    async def again() -> Claim | None:
        return next(iter(await ledger.claim_batch(incarnation, 1)), None)

    found: Claim = await ledger.until(again)
    return found


async def test_a_call_is_journaled_and_done(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    assert verdicts(await begin(ledger, claim.fence, model())) == ["ok", "fresh"]
    used = Amounts(cost_usd=0.5, input_tokens=7, output_tokens=3, seconds=1.5)
    ended = await ledger.effect_end(
        claim.fence, [EffectEnd(step=0, call=0, used=used)], [said(0, 0, "hello", "assistant")]
    )
    assert ended == "ok"
    state = await ledger.resume(claim.fence)
    assert [(item.step, item.slot, json.loads(item.body)["text"]) for item in state.messages] == [
        (0, 0, "hello")
    ]
    (effect,) = state.effects
    assert (effect.state, effect.tries, effect.used) == ("done", 1, used)
    assert (state.used.input_tokens, state.used.cost_usd, state.used.model_calls) == (7, 0.5, 1)


async def test_both_writes_may_be_asked_again(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    for _ in range(2):
        assert verdicts(await begin(ledger, claim.fence, tool(repeat="unsafe", key="k"))) == ["ok", "fresh"]
    end = ([EffectEnd(step=0, call=1)], [said(0, 1, "sent")])
    assert await ledger.effect_end(claim.fence, *end) == "ok"
    assert await ledger.effect_end(claim.fence, *end) == "already"
    begun = await begin(ledger, claim.fence, tool(repeat="unsafe", key="k"))
    assert verdicts(begun) == ["ok", "done"]
    assert json.loads(begun.answers[0].response or "")["text"] == "sent"


async def test_a_call_that_never_began_does_not_end(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    with pytest.raises(InputRefused):
        await ledger.effect_end(claim.fence, [EffectEnd(step=3, call=0)])
    assert (await ledger.resume(claim.fence)).effects == ()


async def test_a_late_owner_is_fenced_out_of_the_journal(hasty: SteppedLedger) -> None:
    claim, incarnation = await claimed(hasty)
    await begin(hasty, claim.fence, model())
    await crash(hasty, incarnation)
    assert (await begin(hasty, claim.fence, model(1))).verdict == "fenced"
    assert await hasty.effect_end(claim.fence, [EffectEnd(step=0, call=0)], [said(0, 0, "late")]) == "fenced"
    assert (await hasty.resume(claim.fence)).verdict == "fenced"
    types = [change.type for _, change in await hasty.changes("job-1")]
    assert types.count("task.fenced") == 2


async def test_a_cancelled_task_begins_nothing(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    await begin(ledger, claim.fence, model())
    await ledger.cancel("job-1", "me")
    assert (await begin(ledger, claim.fence, model(1))).verdict == "cancel"
    assert await ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0)]) == "ok", "what was paid is kept"


@pytest.mark.parametrize("leave", ["crash", "release"])
async def test_a_new_owner_goes_on_from_the_last_step(hasty: SteppedLedger, leave: str) -> None:
    claim, incarnation = await claimed(hasty)
    file = FileRef("a" * 64, 1, "text/plain", "notes.txt")
    await begin(hasty, claim.fence, model())
    await hasty.effect_end(
        claim.fence, [EffectEnd(step=0, call=0)], [said(-1, 0, "do it", "user"), said(0, 0, "", "assistant")]
    )
    await begin(hasty, claim.fence, tool(1), tool(2))
    await hasty.effect_end(
        claim.fence, [EffectEnd(step=0, call=2)], [said(0, 2, "second")], {"notes.txt": file}
    )
    if leave == "release":
        await hasty.release(claim.fence, "drain")
        again = await claim_one(hasty, incarnation)
    else:
        again = await crash(hasty, incarnation)
    assert again.manifest == {"notes.txt": file}
    state = await hasty.resume(again.fence)
    assert [(item.step, item.slot) for item in state.messages] == [(-1, 0), (0, 0), (0, 2)]
    assert [(row.call, row.state) for row in state.effects] == [(0, "done"), (1, "in_doubt"), (2, "done")]
    begun = await begin(hasty, again.fence, tool(1), tool(2))
    assert verdicts(begun) == ["ok", "fresh", "done"]
    assert begun.answers[0].repeated


@pytest.mark.parametrize(
    ("repeat", "verdict"),
    [("pure", "ok"), ("idempotent", "ok"), ("keyed", "ok"), ("unsafe", "in_doubt")],
)
async def test_what_is_in_doubt(hasty: SteppedLedger, repeat: str, verdict: str) -> None:
    claim, incarnation = await claimed(hasty)
    key = "k" if repeat in ("keyed", "unsafe") else None
    await begin(hasty, claim.fence, tool(repeat=repeat, key=key))
    again = await crash(hasty, incarnation)
    begun = await begin(hasty, again.fence, model(1), tool(repeat=repeat, key=key))
    assert begun.verdict == verdict
    if verdict == "in_doubt":
        assert begun.doubtful == "send"
        assert [row.step for row in (await hasty.resume(again.fence)).effects] == [0], "all or nothing"


async def test_doubt_goes_to_a_person_and_their_word_counts(hasty: SteppedLedger) -> None:
    claim, incarnation = await claimed(hasty)
    await begin(hasty, claim.fence, tool(repeat="unsafe", key="k"))
    again = await crash(hasty, incarnation)
    written = await hasty.escalate_task(again.fence, "in_doubt", "send may have happened", "so far")
    assert (written.verdict, written.task_state) == ("ok", TaskState.ESCALATED)
    assert written.effects.changes[0].data["reason"] == "in_doubt"
    with pytest.raises(NotFound):
        await hasty.resolve_effect(claim.fence.task_id, 7, 1, happened=True, answer="", actor="me")
    told = await hasty.resolve_effect(
        claim.fence.task_id, 0, 1, happened=True, answer="it was sent", actor="me"
    )
    assert (told.task_state, len(told.effects.wakes)) == (TaskState.QUEUED, 1)
    third = await claim_one(hasty, incarnation)
    begun = await begin(hasty, third.fence, tool(repeat="unsafe", key="k"))
    assert json.loads(begun.answers[0].response or "")["text"] == "it was sent"


async def test_their_word_stands_in_the_conversation_of_the_call(hasty: SteppedLedger) -> None:
    claim, incarnation = await claimed(hasty)
    await begin(hasty, claim.fence, tool(step=3, repeat="unsafe", key="k"))
    again = await crash(hasty, incarnation)
    await hasty.escalate_task(again.fence, "in_doubt", "?")
    task_id = claim.fence.task_id
    await hasty.decide(task_id, "retry", job_id="job-1", actor="ann", words="Do it differently.")
    anew = await claim_one(hasty, incarnation)
    assert verdicts(await begin(hasty, anew.fence, tool(repeat="unsafe", key="k"))) == ["in_doubt"]
    await hasty.escalate_task(anew.fence, "in_doubt", "?")
    await hasty.resolve_effect(task_id, 3, 1, happened=True, answer="it was sent", actor="ann")
    last = await claim_one(hasty, incarnation)
    assert (await hasty.resume(last.fence)).messages == (), "the new conversation has not begun"
    begun = await begin(hasty, last.fence, tool(repeat="unsafe", key="k"))
    assert json.loads(begun.answers[0].response or "")["text"] == "it was sent"
    told = [row for row in await hasty.transcript("job-1") if row.body]
    assert [(row.generation, row.step) for row in told] == [(0, 3)]


async def test_what_did_not_happen_may_begin_again(hasty: SteppedLedger) -> None:
    claim, incarnation = await claimed(hasty)
    await begin(hasty, claim.fence, tool(repeat="unsafe", key="k"))
    again = await crash(hasty, incarnation)
    await hasty.escalate_task(again.fence, "in_doubt", "?")
    await hasty.resolve_effect(claim.fence.task_id, 0, 1, happened=False, answer="", actor="me")
    third = await claim_one(hasty, incarnation)
    assert verdicts(await begin(hasty, third.fence, tool(repeat="unsafe", key="k"))) == ["ok", "fresh"]


async def test_a_failure_opens_a_new_generation_that_repeats_no_sent_mail(ledger: SteppedLedger) -> None:
    claim, incarnation = await claimed(ledger)
    await begin(ledger, claim.fence, model())
    await ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0)], [said(0, 0, "x", "assistant")])
    await begin(ledger, claim.fence, tool(1, repeat="unsafe", key="mail"), tool(2, repeat="keyed", key="put"))
    await ledger.effect_end(
        claim.fence,
        [EffectEnd(step=0, call=1), EffectEnd(step=0, call=2, failed=True)],
        [said(0, 1, "mailed"), said(0, 2, "503")],
    )
    again = await try_again(ledger, claim, incarnation)
    assert (await ledger.resume(again.fence)).messages == ()
    assert verdicts(await begin(ledger, again.fence, model())) == ["ok", "fresh"], "models are asked anew"
    begun = await begin(
        ledger,
        again.fence,
        tool(3, 5, repeat="unsafe", key="mail"),
        tool(4, 5, repeat="unsafe", key="another mail"),
        tool(5, 5, repeat="keyed", key="put"),
    )
    assert verdicts(begun) == ["ok", "done", "fresh", "fresh"], "a keyed call that failed is made again"
    assert json.loads(begun.answers[0].response or "")["text"] == "mailed"


async def test_doubt_survives_a_failure(hasty: SteppedLedger) -> None:
    claim, incarnation = await claimed(hasty)
    await begin(hasty, claim.fence, tool(repeat="unsafe", key="mail"))
    again = await try_again(hasty, claim, incarnation)
    begun = await begin(hasty, again.fence, tool(2, 4, repeat="unsafe", key="mail"))
    assert begun.verdict == "in_doubt"


async def test_a_model_call_that_failed_may_begin_again(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    await begin(ledger, claim.fence, model(0, input_tokens=100))
    await ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0, void=True)])
    state = await ledger.resume(claim.fence)
    assert (state.effects[0].state, state.used.input_tokens) == ("void", 0)
    assert verdicts(await begin(ledger, claim.fence, model())) == ["ok", "fresh"]


async def test_a_message_is_stored_once_and_keeps_its_place(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    same = [said(step, 0, "again and again") for step in range(5)]
    await ledger.effect_end(claim.fence, [], [*same, said(2, 0, "too late")])
    bodies = {item.body for item in (await ledger.resume(claim.fence)).messages}
    assert len(bodies) == 1
    entries = await ledger.transcript("job-1")
    assert [entry.step for entry in entries] == [0, 1, 2, 3, 4]
    assert [entry.step for entry in await ledger.transcript("job-1", 3, 1)] == [3]
    assert await ledger.forget_messages(100) == 0


async def test_the_transcript_tells_calls_and_notes(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    await begin(ledger, claim.fence, model())
    note = Message(step=0, slot=0, kind="note", body=json.dumps({"role": "assistant", "text": "to writing"}))
    await ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0)], [note])
    await begin(ledger, claim.fence, tool(1))
    await ledger.finish(claim.fence, finish(), "job-1")
    first, second = await ledger.transcript("job-1")
    assert (first.kind, first.hop, first.capability) == ("note", 1, "research")
    assert first.effect is not None
    assert first.effect.name == "some-model"
    assert (second.body, second.effect and second.effect.state) == (None, "in_doubt")
    assert await ledger.transcript("no-such-job") == ()


# budgets -----------------------------------------------------------------------------


async def test_a_job_stops_at_its_budget(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger, budget=Budget(tokens=100))
    await begin(ledger, claim.fence, model(0, input_tokens=90, output_tokens=5))
    used = Amounts(input_tokens=60, output_tokens=39)
    await ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0, used=used)])
    assert (await begin(ledger, claim.fence, model(1, input_tokens=10))).verdict == "ok", "99 of 100"
    await ledger.effect_end(claim.fence, [EffectEnd(step=1, call=0, used=Amounts(input_tokens=10))])
    begun = await begin(ledger, claim.fence, model(2, input_tokens=1))
    assert begun.verdict == "refused"
    assert begun.refusal is not None
    told = begun.refusal
    assert (told.reason, told.scope, told.unit, told.limit, told.used) == (
        "exhausted",
        "job:job-1",
        "tokens",
        100,
        109,
    )
    assert (await begin(ledger, claim.fence, tool(1, 2))).verdict == "ok", "tools need no tokens"


@pytest.mark.parametrize(
    ("budget", "start", "allowed"),
    [
        (Budget(cost_usd=1.0), model(cost_usd=0.4), 3),
        (Budget(tool_calls=2), tool(), 2),
        (Budget(seconds=10), model(seconds=5.0), 2),
        (Budget(cost_usd=0.0), model(cost_usd=0.1), 0),
        (Budget(cost_usd=0.0), model(cost_usd=0.0), 5),
    ],
    ids=["money", "tool calls", "seconds", "nothing", "a free model"],
)
async def test_open_calls_count_as_reserved(
    ledger: SteppedLedger, budget: Budget, start: EffectStart, allowed: int
) -> None:
    import msgspec

    claim, _ = await claimed(ledger, budget=budget)
    starts = [msgspec.structs.replace(start, step=step) for step in range(5)]
    found = [(await begin(ledger, claim.fence, item)).verdict for item in starts]
    assert found == ["ok"] * allowed + ["refused"] * (5 - allowed)


async def test_an_unknown_price_is_refused_only_where_money_is_limited(ledger: SteppedLedger) -> None:
    claim, incarnation = await claimed(ledger)
    unknown = model(cost_usd=None)  # type: ignore[arg-type]
    assert (await begin(ledger, claim.fence, unknown)).verdict == "ok"
    await ledger.effect_end(claim.fence, [EffectEnd(step=0, call=0, used=Amounts(cost_usd=None))])
    assert (await ledger.resume(claim.fence)).used.cost_usd is None
    await ledger.submit(new_job("job-2", budget=Budget(cost_usd=5)))
    other = await claim_one(ledger, incarnation)
    begun = await begin(ledger, other.fence, unknown)
    assert begun.refusal is not None
    assert (begun.verdict, begun.refusal.reason) == ("refused", "price_unknown")


async def test_a_crash_counts_what_was_reserved(hasty: SteppedLedger) -> None:
    claim, incarnation = await claimed(hasty, budget=Budget(cost_usd=1.0))
    await begin(hasty, claim.fence, model(0, cost_usd=0.6, input_tokens=10))
    again = await crash(hasty, incarnation)
    used = (await hasty.resume(again.fence)).used
    assert (used.cost_usd, used.input_tokens, used.model_calls) == (0.6, 10, 1)
    assert (await begin(hasty, again.fence, model(0, cost_usd=0.6))).verdict == "ok"
    begun = await begin(hasty, again.fence, model(1, cost_usd=0.1))
    assert begun.refusal is not None
    assert begun.refusal.used == pytest.approx(1.2)


async def test_every_scope_is_asked(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    for own, scope in (
        (OwnLimits(task=Budget(cost_usd=0.0)), f"task:{claim.fence.task_id}"),
        (OwnLimits(day=Budget(cost_usd=0.0)), "agent:r1"),
        (OwnLimits(month=Budget(cost_usd=0.0)), "agent:r1"),
    ):
        begun = await ledger.effect_begin(claim.fence, [model(cost_usd=0.1)], own)
        assert begun.refusal is not None
        assert begun.refusal.scope == scope
    for period in ("day", "month", "all"):
        await ledger.set_limit(period, "tokens", 10)
        assert (await begin(ledger, claim.fence, model(cost_usd=9))).verdict == "ok"
        begun = await begin(ledger, claim.fence, model(1, input_tokens=11), model(2, input_tokens=1))
        assert begun.refusal is not None
        assert (begun.refusal.scope, begun.refusal.unit) == ("tenant", "tokens")
        await ledger.set_limit(period, "tokens", None)
    assert (await begin(ledger, claim.fence, model(2, input_tokens=100))).verdict == "ok"


async def test_a_limit_set_late_knows_what_was_used(ledger: SteppedLedger) -> None:
    claim, _ = await claimed(ledger)
    await begin(ledger, claim.fence, model(0, input_tokens=50))
    await ledger.effect_end(
        claim.fence,
        [EffectEnd(step=0, call=0, used=Amounts(input_tokens=40, output_tokens=2, cost_usd=0.25))],
    )
    await ledger.set_limit("day", "tokens", 42)
    begun = await begin(ledger, claim.fence, model(1, input_tokens=1))
    assert begun.refusal is not None
    assert begun.refusal.used == 42
    rows = {(row.period, row.unit): row for row in await ledger.spending()}
    assert (rows["day", "tokens"].limit, rows["day", "tokens"].used) == (42, 42)
    assert (rows["month", "cost_usd"].limit, rows["month", "cost_usd"].used) == (None, 0.25)


async def test_fifty_tasks_on_one_budget_pass_it_by_one_reservation_at_most(ledger: SteppedLedger) -> None:
    incarnation = await join(ledger)
    for number in range(50):
        await ledger.submit(new_job(f"job-{number}"))
    await ledger.set_limit("day", "cost_usd", 1.0)
    claims = await ledger.claim_batch(incarnation, 50)
    assert len(claims) == 50
    spent: list[float] = []

    async def work(claim: Claim) -> None:
        for step in range(10):
            begun = await begin(ledger, claim.fence, model(step, cost_usd=0.04))
            if begun.verdict == "refused":
                return
            await asyncio.sleep(0)
            await ledger.effect_end(claim.fence, [EffectEnd(step=step, call=0, used=Amounts(cost_usd=0.04))])
            spent.append(0.04)

    await asyncio.gather(*(work(claim) for claim in claims))
    assert 1.0 <= sum(spent) <= 1.0 + 0.04 + 1e-9
