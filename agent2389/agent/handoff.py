"""From an answer to what happens next: ask the router, fill in the finish."""

import time
from typing import Any

import msgspec

from agent2389.agent.loop import Answer
from agent2389.agent.parts import Observer
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import (
    Claim,
    FileRef,
    Finish,
    Json,
    NextTask,
    RouteDecision,
    TaskResult,
    Usage,
)
from agent2389.ledger.states import AgentState
from agent2389.router.port import Candidate, Decision, Outcome, Router, Situation, Step

MAX_INLINE_TEXT = 192 * 1024
CUT_TEXT = 4096


class HandOff:
    """Decides for one process; candidates come from the ledger, never from a model's words."""

    def __init__(self, ledger: Ledger, agent_id: str, observer: Observer) -> None:
        self._ledger = ledger
        self._agent_id = agent_id
        self._observer = observer

    async def decide(self, claim: Claim, answer: Answer, router: Router) -> tuple[Decision, float]:
        """The router's decision and how long it took in seconds."""
        started = time.monotonic()
        situation = Situation(
            instruction=claim.instruction or "",
            answer=answer.text,
            data=None,
            own_capability=claim.capability,
            agent_id=self._agent_id,
            hop=claim.hop,
            max_hops=claim.max_hops,
            steps=tuple(
                Step(hop=step.hop, capability=step.capability, agent_id=step.agent_id, summary=step.text)
                for step in claim.history
            ),
            candidates=await self._candidates(),
            next=claim.next,
            files=tuple(claim.manifest),
            strategy=_wish(claim),
        )
        decision = await router.decide(situation)
        self._observer.routed(decision.outcome, decision.strategy)
        return decision, time.monotonic() - started

    async def _candidates(self) -> tuple[Candidate, ...]:
        pools: dict[str, list[Any]] = {}
        for row in await self._ledger.agents():
            if row.role == "agent" and row.state is AgentState.RUNNING:
                for capability in row.capabilities:
                    pools.setdefault(capability, []).append(row)
        return tuple(
            Candidate(
                capability=capability,
                description=next((row.description for row in rows if row.description), ""),
                agents=tuple(sorted({row.agent_id for row in rows})),
                free_slots=sum(row.free_slots for row in rows),
                slots=sum(row.slots for row in rows),
            )
            for capability, rows in sorted(pools.items())
        )

    async def finish(
        self,
        claim: Claim,
        answer: Answer,
        decision: Decision,
        *,
        seconds: float,
        used: Usage,
        manifest: dict[str, FileRef],
    ) -> Finish:
        """The transaction to write. A text too large for a message becomes a file."""
        result, manifest = await self._result(answer.text, manifest)
        routing = Usage(
            input_tokens=decision.usage.input,
            output_tokens=decision.usage.output,
            model_calls=decision.model_calls,
            cost_usd=decision.cost_usd,
        )
        return Finish(
            result=result,
            usage=used + routing,
            decision=recorded(decision, seconds),
            next=tuple(
                NextTask(
                    slot=slot,
                    capability=target.capability,
                    agent=target.agent,
                    instruction=target.instruction or claim.instruction,
                    input=_next_input(answer.text),
                    next=target.next,
                    reason=decision.reason,
                )
                for slot, target in enumerate(decision.targets)
            )
            if decision.outcome is Outcome.HAND_OFF
            else (),
            manifest=manifest,
            rehearsal=answer.rehearsal or decision.rehearsal,
            escalate=decision.outcome is Outcome.ESCALATE,
        )

    async def _result(self, text: str, manifest: dict[str, FileRef]) -> tuple[TaskResult, dict[str, FileRef]]:
        content = text.encode()
        files = tuple(manifest.values())
        if len(content) <= MAX_INLINE_TEXT:
            return TaskResult(text=text, files=files), manifest
        digest = await self._ledger.put_blob(content, "text/plain")
        file = FileRef(digest, len(content), "text/plain", "answer.txt", text[:CUT_TEXT])
        return TaskResult(text=text[:CUT_TEXT], files=(*files, file)), {**manifest, "answer.txt": file}


def recorded(decision: Decision, seconds: float) -> RouteDecision:
    """A decision as the ledger keeps it."""
    chosen = [target.name for target in decision.targets]
    return RouteDecision(
        strategy=decision.strategy,
        outcome=decision.outcome,
        reason=decision.reason,
        chosen=", ".join(chosen) or None,
        candidates=tuple(msgspec.to_builtins(item) for item in decision.candidates),
        rejected=tuple({"capability": item.capability, "why": item.why} for item in decision.rejected),
        model=decision.model,
        fallback=decision.fallback,
        seconds=round(seconds, 6),
        targets=tuple(
            {"slot": item.slot, "capability": item.capability, "agent": item.agent}
            for item in decision.targets
        ),
        join=msgspec.to_builtins(decision.join) if decision.join else None,
        flags=decision.flags,
        prompt_sha256=decision.prompt_sha256,
        model_calls=decision.model_calls,
        model_seconds=decision.model_seconds,
        input_tokens=decision.usage.input,
        output_tokens=decision.usage.output,
        cost_usd=decision.cost_usd,
    )


def _wish(claim: Claim) -> str | None:
    """The strategy that the job asks for."""
    strategy = (claim.submission.get("routing") or {}).get("strategy")
    return strategy if isinstance(strategy, str) else None


def _next_input(text: str) -> Json:
    """FR-014 step 8: the answer is the next task's input."""
    return text if len(text.encode()) <= MAX_INLINE_TEXT else text[:CUT_TEXT]
