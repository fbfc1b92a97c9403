"""A worker that comes back too late and tries every write an owner has."""

import asyncio
from collections.abc import Awaitable, Callable

from agent2389.errors import Agent2389Error, Unreachable
from agent2389.ledger.fleet import AgentRecord, Beat
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Claim, Failure, Finish, RouteDecision, TaskResult, Usage, Written
from agent2389.ledger.states import AgentState
from agent2389.wire.names import new_uuid7

MARGIN_SECONDS = 0.3


class LateWriter:
    """Claims like an agent, lets the lease pass and writes all the same. Every write must be refused."""

    def __init__(self, ledger: Ledger, lease: float, capability: str) -> None:
        self._ledger = ledger
        self._lease = lease
        self._capability = capability
        self.refused = 0
        self.accepted: list[str] = []

    async def strike(self) -> int:
        """One claim and the late writes; how many tasks were held."""
        incarnation = new_uuid7()
        try:
            await self._ledger.register(
                AgentRecord(
                    agent_id="late-writer", incarnation=incarnation, capabilities=(self._capability,), slots=1
                )
            )
            # Without a free slot nobody leaves a doorbell to it.
            await self._ledger.beat(Beat(incarnation=incarnation, state=AgentState.RUNNING, free_slots=0))
            claims = await self._ledger.claim_batch(incarnation, 1)
            await self._ledger.stopped(incarnation)
            await asyncio.sleep(self._lease + MARGIN_SECONDS)
            for claim in claims:
                await self._write_everything(claim)
        except Unreachable:
            return 0
        return len(claims)

    async def _write_everything(self, claim: Claim) -> None:
        ledger, fence = self._ledger, claim.fence
        usage, decision = Usage(), RouteDecision(strategy="late", outcome="done", reason="too late")
        finish = Finish(result=TaskResult(text="too late"), usage=usage, decision=decision)
        failure = Failure(code="internal_error", message="too late", retryable=False)
        writes: dict[str, Callable[[], Awaitable[Written]]] = {
            "checkpoint": lambda: ledger.checkpoint(fence, {}),
            "finish": lambda: ledger.finish(fence, finish, claim.job_id),
            "fail": lambda: ledger.fail(fence, failure),
            "release": lambda: ledger.release(fence, "late"),
            "stop": lambda: ledger.stop_task(fence, "late"),
        }
        for name, write in writes.items():
            try:
                verdict = (await write()).verdict
            except Unreachable:
                continue
            except Agent2389Error as error:
                verdict = f"{type(error).__name__}"
            if verdict == "fenced":
                self.refused += 1
            else:
                self.accepted.append(f"{name}: {verdict}")
