"""No reply of a routing model or gatekeeper routes out of the list, and each leaves its reason."""

import json
from typing import Any

import pytest

from agent2389.config.model import Gatekeeper, RoutingSection
from agent2389.router.build import build_router
from agent2389.router.policy import Policy
from agent2389.router.port import Outcome
from tests.support.gatekeeper import gatekeeper
from tests.support.routing import Scripted, llm_router, situation
from tests.support.structure import ROOT

FOLDER = ROOT / "tests" / "corpus" / "router_replies"


def replies(*names: str) -> list[Any]:
    found = []
    for name in names:
        for entry in json.loads((FOLDER / f"{name}.json").read_text())["replies"]:
            text = entry["reply"]
            if "repeat" in entry:
                unit, times = entry["repeat"]
                text = text.replace("{{TIMES}}", unit * times)
            found.append(pytest.param(text, entry["fallback"], id=f"{name}: {entry['name']}"))
    return found


MODEL = replies("not_an_object", "wrong_types", "out_of_list", "too_much", "prose")
GATEKEEPER = replies("gatekeeper")


def test_there_are_enough() -> None:
    assert len(MODEL) >= 120


@pytest.mark.parametrize(("text", "why"), MODEL)
async def test_a_model_never_leaves_the_list(text: str, why: str) -> None:
    model = Scripted(text, text)
    decision = await llm_router(model).decide(situation())
    assert (decision.outcome, decision.targets, decision.join) == (Outcome.ESCALATE, (), None)
    assert why in (decision.fallback or "")
    assert len(model.requests) == 2, "there is one repair try"
    assert model.requests[1].turns[-1].text.endswith("Answer again with the JSON object only.")


@pytest.mark.parametrize(("text", "why"), GATEKEEPER)
async def test_a_gatekeeper_never_leaves_the_list(text: str, why: str) -> None:
    async with gatekeeper((200, text)) as service:
        routing = RoutingSection(strategy="gatekeeper", gatekeeper=Gatekeeper(url=service.url))
        decision = await build_router(routing, Policy(), Scripted).decide(situation())
    assert (decision.outcome, decision.targets) == (Outcome.ESCALATE, ())
    assert why in (decision.fallback or "")
    assert service.asked
