"""From an answer to what happens next: ask the router, fill in the finish."""

from collections.abc import Callable

import msgspec

from agent2389.agent.loop import Answer
from agent2389.agent.parts import Observer
from agent2389.ledger.blobs import fits, reference, stored, stored_value
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import (
    Claim,
    FileRef,
    Finish,
    Join,
    Json,
    NextTask,
    RouteDecision,
    TaskResult,
    Usage,
)
from agent2389.ledger.states import AgentState
from agent2389.ledger.views import AgentRow
from agent2389.router.port import Candidate, Decision, Outcome, Router, Situation, Step, Target
from agent2389.telemetry import surroundings
from agent2389.wire.mesh import Stranger
from agent2389.wire.names import derived_uuid

MAX_LISTED_BYTES = 24 * 1024
"""A result names its files up to this size; a longer list is itself a file."""


class HandOff:
    """Decides for one process; candidates come from the ledger, never from a model's words."""

    def __init__(
        self,
        ledger: Ledger,
        agent_id: str,
        observer: Observer,
        *,
        strangers: Callable[[], tuple[Stranger, ...]] = tuple,
    ) -> None:
        self._ledger = ledger
        self._agent_id = agent_id
        self._observer = observer
        self._strangers = strangers

    async def decide(self, claim: Claim, answer: Answer, router: Router) -> tuple[Decision, float]:
        """The router's decision and how long it took in seconds."""
        started = surroundings.elapsed()
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
        return decision, surroundings.elapsed() - started

    async def _pools(self) -> dict[str, list[AgentRow]]:
        pools: dict[str, list[AgentRow]] = {}
        for row in await self._ledger.agents():
            if row.role == "agent" and row.state is AgentState.RUNNING:
                for capability in row.capabilities:
                    pools.setdefault(capability, []).append(row)
        return pools

    async def _candidates(self) -> tuple[Candidate, ...]:
        """Our own pools; what only agents of others can do is a candidate too."""
        pools = await self._pools()
        others = self._of_others()
        foreign = tuple(
            Candidate(
                capability=capability,
                description=next((other.description for other in found if other.description), ""),
                agents=tuple(other.agent_id for other in found),
                free_slots=len(found),
                slots=len(found),
            )
            for capability, found in others.items()
            if capability not in pools
        )
        own = tuple(
            Candidate(
                capability=capability,
                description=next((row.description for row in rows if row.description), ""),
                agents=tuple(sorted({row.agent_id for row in rows})),
                free_slots=sum(row.free_slots for row in rows),
                slots=sum(row.slots for row in rows),
            )
            for capability, rows in sorted(pools.items())
        )
        return own + foreign

    def _of_others(self) -> dict[str, list[Stranger]]:
        found: dict[str, list[Stranger]] = {}
        for other in sorted(self._strangers(), key=lambda other: other.agent_id):
            for capability in other.capabilities:
                found.setdefault(capability, []).append(other)
        return found

    async def _bound(self, target: Target, task_id: str) -> Target:
        """A capability that only agents of others have becomes one of them: they claim nothing themselves."""
        others = self._of_others().get(target.capability or "", ())
        if not others or target.capability in await self._pools():
            return target
        chosen = min(others, key=lambda other: derived_uuid("stranger", task_id, other.agent_id))
        return msgspec.structs.replace(target, capability=None, agent=chosen.agent_id)

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
        result, input_, manifest = await self._result(answer.text, manifest)
        targets = [await self._bound(target, claim.fence.task_id) for target in decision.targets]
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
                    input=input_,
                    next=target.next,
                    reason=decision.reason,
                )
                for slot, target in enumerate(targets)
            )
            if decision.outcome is Outcome.HAND_OFF
            else (),
            manifest=manifest,
            rehearsal=answer.rehearsal or decision.rehearsal,
            escalate=decision.outcome is Outcome.ESCALATE,
            join=_join(claim, decision),
            verify=_judging(claim, decision.verify, input_) if decision.verify is not None else None,
        )

    async def finish_verdict(
        self, answer: Answer, verdict: str | None, *, used: Usage, manifest: dict[str, FileRef]
    ) -> Finish:
        """The end of a task that judges: nothing follows from it but its verdict."""
        result, _, manifest = await self._result(answer.text, manifest)
        reason = f"the judge says: {verdict}" if verdict else "the judge's answer holds no verdict"
        return Finish(
            result=result,
            usage=used,
            decision=RouteDecision(strategy="verdict", outcome=Outcome.DONE, reason=reason),
            manifest=manifest,
            rehearsal=answer.rehearsal,
            verdict=verdict,
        )

    async def _result(
        self, text: str, manifest: dict[str, FileRef]
    ) -> tuple[TaskResult, Json, dict[str, FileRef]]:
        """Result, next task's input (FR-014 step 8: the answer), manifest with what became a file."""
        if fits(text):
            return TaskResult(text=text, files=await self._listed(manifest)), text, manifest
        file = await stored_value(self._ledger, text, "answer", manifest)
        manifest = {**manifest, file.name: file}
        others = {name: known for name, known in manifest.items() if name != file.name}
        begun = f"{file.preview}\n[cut: all {file.size} bytes are the file {file.name}]"
        result = TaskResult(text=begun, files=(*await self._listed(others), file))
        return result, reference(file), manifest

    async def _listed(self, manifest: dict[str, FileRef]) -> tuple[FileRef, ...]:
        """Files as a result names them: without previews, which together would not fit a message."""
        files = tuple(msgspec.structs.replace(file, preview=None) for file in manifest.values())
        if len(encoded := msgspec.json.encode(files)) <= MAX_LISTED_BYTES:
            return files
        made = await stored(self._ledger, encoded, "application/json", "files.json")
        return (msgspec.structs.replace(made, preview=None),)


def _join(claim: Claim, decision: Decision) -> Join | None:
    """What becomes of the branches. Where some of them decide, somebody has to bring them together."""
    join = decision.join
    if join is None or len(decision.targets) < 2:
        return None
    then = join.then
    if then is None:
        if join.needed == len(decision.targets):
            return None
        then = Target(capability=claim.capability)
    task = NextTask(
        slot=len(decision.targets),
        capability=then.capability,
        agent=then.agent,
        instruction=then.instruction or claim.instruction,
        next=then.next,
        reason=f"joins {join.needed} of {len(decision.targets)} branches",
    )
    return Join(needed=join.needed, task=task)


def _judging(claim: Claim, judge: Target, result: Json) -> NextTask:
    return NextTask(
        capability=judge.capability,
        agent=judge.agent,
        instruction=f"Check whether the input is what this task asked for:\n\n{claim.instruction}",
        input=result,
        reason="the policy wants the result checked before it counts",
    )


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
