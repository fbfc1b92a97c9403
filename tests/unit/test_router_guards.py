"""Guards: loops, fan-out, announced hand-offs, verification; what a model says is storable."""

from typing import Any

import msgspec
import pytest

from agent2389.router.guards import Guarded
from agent2389.router.policy import Loops, Policy, Verify
from agent2389.router.port import Decision, Join, JoinPolicy, Outcome, Situation, Step, Target
from tests.support.routing import Scripted, answer, llm_router, situation


class Says:
    """A strategy that always says the same."""

    def __init__(self, *targets: str, join: Join | None = None) -> None:
        self._targets = tuple(Target(capability=name, slot=slot) for slot, name in enumerate(targets))
        self._join = join

    async def decide(self, situation: Situation) -> Decision:
        outcome = Outcome.HAND_OFF if self._targets else Outcome.DONE
        reason = f"hop {situation.hop}"
        return Decision(
            outcome=outcome, strategy="says", reason=reason, targets=self._targets, join=self._join
        )


def steps(*pairs: tuple[str, str]) -> tuple[Step, ...]:
    return tuple(
        Step(hop=hop, capability=name, agent_id=name[0], summary=text)
        for hop, (name, text) in enumerate(pairs, 1)
    )


async def guarded(policy: Policy, *targets: str, join: Join | None = None, **changes: Any) -> Decision:
    return await Guarded(Says(*targets, join=join), policy).decide(situation(**changes))


async def test_straight_back_is_flagged_allowed_or_refused() -> None:
    way: dict[str, Any] = {
        "steps": steps(("writing", "a draft")),
        "hop": 2,
        "own_capability": "judging",
        "answer": "no",
    }
    flagged = await guarded(Policy(), "writing", **way)
    assert (flagged.targets[0].name, flagged.flags) == ("writing", ("returned:writing",))
    refused = await guarded(Policy(loops=Loops(returns="refuse")), "writing", **way)
    assert (refused.outcome, refused.fallback) == (Outcome.ESCALATE, "outside_candidates")
    assert ("writing", "the work has just come from it") in {(i.capability, i.why) for i in refused.rejected}
    assert (await guarded(Policy(loops=Loops(returns="allow")), "writing", **way)).flags == ()


async def test_the_same_text_is_not_answered_twice() -> None:
    way: dict[str, Any] = {
        "steps": steps(("writing", "The road is closed."), ("judging", "Verdict: reject")),
        "hop": 3,
        "own_capability": "writing",
        "answer": "the road\nis  CLOSED.",
    }
    refused = await guarded(Policy(), "judging", **way)
    assert refused.fallback == "outside_candidates"
    assert "it has already answered this very text" in {item.why for item in refused.rejected}
    anew = await guarded(Policy(), "judging", **(way | {"answer": "The road is closed on Monday."}))
    assert anew.targets[0].name == "judging"
    own = await guarded(Policy(), "writing", **(way | {"own_capability": "judging"}))
    assert "this very text is its own" in {item.why for item in own.rejected}
    allowed = await guarded(Policy(loops=Loops(repeats="allow")), "judging", **way)
    assert allowed.targets[0].name == "judging"


@pytest.mark.parametrize(
    "text",
    [
        "I hand this over to the writer.",
        "Transferring to writing now.",
        "I will now pass the notes to `writing`.",
        "handing off to w",
        "Please route it to our writer!",
    ],
)
async def test_an_announced_hand_off_that_was_not_made_is_flagged(text: str) -> None:
    decision = await guarded(Policy(), answer=f"some notes\n\n{text}")
    assert (decision.outcome, decision.flags) == (Outcome.DONE, ("announced:writing",))
    made = await guarded(Policy(), "writing", answer=text)
    assert made.flags == ()
    elsewhere = await guarded(Policy(), "judging", answer=text)
    assert elsewhere.flags == ("announced:writing",)
    policy = Policy(loops=Loops(announced="escalate"))
    asked = await guarded(policy, answer=text)
    assert (asked.outcome, asked.fallback) == (Outcome.ESCALATE, "announced_hand_off")
    assert (await guarded(Policy(loops=Loops(announced="ignore")), answer=text)).flags == ()


@pytest.mark.parametrize("text", ["The writer of the report is unknown.", "We walk to writing class.", ""])
async def test_other_sentences_announce_nothing(text: str) -> None:
    assert (await guarded(Policy(), answer=text)).flags == ()


async def test_fan_out_has_its_limit() -> None:
    join = Join(policy=JoinPolicy.ALL, needed=2)
    decision = await guarded(Policy(), "writing", "judging", join=join)
    assert len(decision.targets) == 2
    decision = await guarded(Policy(max_fan_out=1), "writing", "judging", join=join)
    assert (decision.targets, decision.join, decision.fallback) == ((), None, "fan_out_limit")
    decision = await guarded(Policy(), "writing", "judging", join=Join(policy=JoinPolicy.K_OF_N, needed=3))
    assert decision.fallback == "impossible_join"
    stranger = Join(policy=JoinPolicy.ALL, needed=2, then=Target(capability="dancing"))
    decision = await guarded(Policy(), "writing", "judging", join=stranger)
    assert decision.fallback == "outside_candidates"


async def test_a_model_may_fan_out() -> None:
    text = answer(next=None, parallel=[0, 1, 1], join="k_of_n", needed=2, then=0, scores=[0.5, 0.9])
    decision = await llm_router(Scripted(text)).decide(situation())
    assert [(target.slot, target.name) for target in decision.targets] == [
        (0, "writing"),
        (1, "judging"),
        (2, "judging"),
    ]
    assert decision.join == Join(policy=JoinPolicy.K_OF_N, needed=2, then=Target(capability="writing"))
    assert [(item.capability, item.score) for item in decision.candidates] == [
        ("writing", 0.5),
        ("judging", 0.9),
    ]
    assert decision.prompt_sha256 is not None


async def test_without_fan_out_the_model_is_not_offered_it() -> None:
    model = Scripted(answer(next=0))
    await llm_router(model, Policy(max_fan_out=1)).decide(situation())
    schema = model.requests[0].schema
    assert schema is not None
    assert "parallel" not in schema.schema["properties"]


async def test_a_result_is_checked_before_the_job_ends() -> None:
    policy = Policy(verify=Verify(by="judging", of=("writing",)))
    unchecked = await guarded(policy, own_capability="writing", agent_id="w")
    assert (unchecked.outcome, unchecked.flags) == (Outcome.DONE, ("unverified",))
    assert unchecked.verify == Target(capability="judging")
    notes = await guarded(policy, own_capability="research")
    assert notes.outcome is Outcome.DONE
    approved = await guarded(
        policy, own_capability="judging", answer="Verdict: approve", steps=steps(("writing", "x")), hop=2
    )
    assert approved.outcome is Outcome.DONE


async def test_a_refused_result_goes_back_or_to_a_person() -> None:
    policy = Policy(verify=Verify(by="judging"))
    way: dict[str, Any] = {
        "own_capability": "judging",
        "agent_id": "j",
        "answer": "Verdict: REJECT\n\nno",
        "hop": 2,
    }
    back = await guarded(policy, steps=steps(("writing", "x")), **way)
    assert (back.targets[0].name, "refused" in back.flags) == ("writing", True)
    worn = steps(("writing", "x"), ("judging", "Verdict: reject"), ("writing", "y"))
    asked = await guarded(policy, steps=worn, **(way | {"hop": 4}))
    assert asked.outcome is Outcome.ESCALATE
    done = Policy(verify=Verify(by="judging", on_reject="done"))
    assert (await guarded(done, steps=steps(("writing", "x")), **way)).outcome is Outcome.DONE


async def test_a_missing_judge_is_a_persons_matter() -> None:
    asked = await guarded(Policy(verify=Verify(by="dancing")))
    assert (asked.outcome, asked.flags) == (Outcome.ESCALATE, ("unverified",))
    done = await guarded(Policy(verify=Verify(by="dancing", without_judge="done")))
    assert (done.outcome, done.flags) == (Outcome.DONE, ("unverified",))


async def test_what_a_model_says_can_be_stored() -> None:
    reason = "a\u0000b\ud800c\n\u202ed" + "x" * 5000
    decision = await llm_router(Scripted(answer(next=0, reason=reason))).decide(situation())
    assert decision.reason.startswith("a\ufffdb?c d")
    assert len(decision.reason) == 500
    assert b"\\u0000" not in msgspec.json.encode(decision)
