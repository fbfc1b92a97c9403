"""Somebody who trusts neither ledger nor agents: hears results and compares them with what must come out."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from agent2389.broker.port import Connection, Delivery
from agent2389.proving.script import Final, mistakes
from agent2389.wire.topics import MeshTopics

ASK_AT_ONCE = 16


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the accepted jobs. The lists hold job ids."""

    completed: int
    cancelled: int
    lost: tuple[str, ...]
    double: tuple[str, ...]
    wrong: dict[str, str]
    failed: dict[str, str]
    poisoned: int
    cost_usd: float
    most_cost_usd: float


class Witness:
    """Hears every payload on every result topic, for the whole run."""

    def __init__(self, connection: Connection, tenant: str = "default") -> None:
        self._connection = connection
        self._topics = MeshTopics(tenant)
        self._prefix = self._topics.result("")
        self._open: dict[str, set[str]] = {}
        self.payloads: dict[str, set[bytes]] = {}
        self.last_heard = time.monotonic()
        self.most_open = 0
        self._reconnects = 0

    async def listen(self) -> None:
        """Begin."""
        opened, _, results = self._topics.board_filters()
        await self._connection.subscribe(results, self._on_result)
        await self._connection.subscribe(opened, self._on_open, qos=0)

    def enter(self, job_id: str, payload: bytes) -> None:
        """A terminal payload, however it was learnt."""
        known = self.payloads.setdefault(job_id, set())
        if not known:
            self.last_heard = time.monotonic()
        known.add(payload)

    async def ask_for_missing(
        self, job_ids: Iterable[str], ask: Callable[[str], Awaitable[bytes | None]]
    ) -> None:
        """Get from the API what did not come over MQTT."""
        room = asyncio.Semaphore(ASK_AT_ONCE)

        async def one(job_id: str) -> None:
            async with room:
                payload = await ask(job_id)
            if payload is not None:
                self.enter(job_id, payload)

        await asyncio.gather(*(one(job_id) for job_id in job_ids if job_id not in self.payloads))

    def judge(
        self, accepted: Iterable[str], *, cancelled: set[str], unsure: set[str], poison: set[str]
    ) -> Verdict:
        """Compare with what must come out.

        A job may only end cancelled when somebody cancelled it, and then must (``unsure``: may);
        a poison job must fail.
        """
        lost, double, wrong, failed = [], [], dict[str, str](), dict[str, str]()
        costs = [0.0]
        ends = {"completed": 0, "cancelled": 0, "poisoned": 0}
        for job_id in accepted:
            payloads = self.payloads.get(job_id, set())
            if not payloads:
                lost.append(job_id)
                continue
            if len(payloads) > 1:
                double.append(job_id)
            final = msgspec.json.decode(next(iter(payloads)), type=Final)
            costs.append(final.usage.cost_usd or 0.0)
            if job_id in poison:
                ends["poisoned"] += 1
                if final.state != "failed":
                    wrong[job_id] = f"is poison and ended {final.state}"
            elif job_id not in unsure and (final.state == "cancelled") != (job_id in cancelled):
                wrong[job_id] = f"ended {final.state}" + (" after its cancel" if job_id in cancelled else "")
            elif final.state == "completed":
                ends["completed"] += 1
                if found := mistakes(job_id, final):
                    wrong[job_id] = "; ".join(found)
            elif final.state == "cancelled":
                ends["cancelled"] += 1
            else:
                failed[job_id] = str((final.error or {}).get("message", final.state))
        return Verdict(
            completed=ends["completed"],
            cancelled=ends["cancelled"],
            lost=tuple(lost),
            double=tuple(double),
            wrong=wrong,
            failed=failed,
            poisoned=ends["poisoned"],
            cost_usd=sum(costs),
            most_cost_usd=max(costs),
        )

    async def _on_result(self, delivery: Delivery) -> None:
        if delivery.payload:
            self.enter(delivery.topic.removeprefix(self._prefix), delivery.payload)

    async def _on_open(self, delivery: Delivery) -> None:
        if (reconnects := self._connection.state.reconnects) != self._reconnects:
            # What was cleared meanwhile was not heard; what still stands comes again.
            self._reconnects, self._open = reconnects, {}
        pool, task_id, _ = delivery.topic.rsplit("/", 3)[1:]
        topics = self._open.setdefault(pool, set())
        if delivery.payload:
            topics.add(task_id)
            self.most_open = max(self.most_open, len(topics))
        else:
            topics.discard(task_id)
