"""Routing tests' situation, and models that answer what they are told."""

import json
from collections.abc import AsyncIterator
from typing import Any

from agent2389.config.model import RoutingSection
from agent2389.config.rules import Rule
from agent2389.errors import ModelFailed
from agent2389.llm.messages import Chunk, Reply, Request
from agent2389.llm.structured import parsed
from agent2389.router.build import build_router
from agent2389.router.policy import Policy
from agent2389.router.port import Candidate, Situation

CANDIDATES = (
    Candidate(capability="research", description="notes facts from documents", agents=("r",)),
    Candidate(capability="writing", description="turns notes into a draft", agents=("w",)),
    Candidate(capability="judging", description="checks texts and approves or rejects them", agents=("j",)),
)


class Scripted:
    """Answers with the given texts, one after the other."""

    name = "scripted"
    provider = "openai"

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)
        self.requests: list[Request] = []

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if not self._texts:
            raise ModelFailed("away")
        text = self._texts.pop(0)
        return Reply(text=text, structured=parsed(text), model=self.name, cost_usd=0.01)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(reply=await self.answer(request))

    async def verify(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to close."""


def situation(**changes: Any) -> Situation:
    fields: dict[str, Any] = {
        "instruction": "write a checked brief",
        "answer": "some notes",
        "own_capability": "research",
        "agent_id": "r",
        "hop": 1,
        "max_hops": 16,
        "steps": (),
        "candidates": CANDIDATES,
    }
    return Situation(**(fields | changes))


def answer(**changes: Any) -> str:
    return json.dumps({"complete": False, "next": 0, "reason": "why", "instruction": None} | changes)


def llm_router(model: Scripted, policy: Policy | None = None) -> Any:
    return build_router(RoutingSection(strategy="llm"), policy or Policy(prompt="decide"), lambda: model)


def rule(**form: Any) -> Rule:
    """A rule in any of its forms."""
    return Rule.model_validate(form)
