"""A whole conformance run: every check in the order in which they can be made."""

import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from agent2389.broker.address import BrokerAddress
from agent2389.broker.port import Connection
from agent2389.proving.conformance import life, safety, tasks
from agent2389.proving.conformance.bench import Bench
from agent2389.proving.conformance.model import KitModel
from agent2389.proving.conformance.report import Finding, Judged, Report
from agent2389.proving.conformance.requirements import REQUIREMENTS
from agent2389.proving.conformance.subject import Subject
from agent2389.proving.conformance.tap import Tap

CHECKS = (tasks, life, safety)
"""Importing them filled the register."""

ORDER = (
    *("FR-005", "FR-002"),  # the first start
    *("FR-001", "FR-006", "FR-007", "FR-008", "FR-009", "FR-010", "FR-011", "FR-013", "FR-014"),
    *("NFR-003", "NFR-005", "RULE-001", "RULE-002", "FR-012"),
    *("FR-003", "FR-004"),  # the ends
    *("RULE-003", "NFR-001", "NFR-002", "NFR-004"),  # what was said in all, and a start at a wrong broker
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to test and how. ``start`` is the agent's command; ``timeout`` seconds are given to an answer."""

    agent_id: str
    broker: BrokerAddress
    strict: bool = True
    timeout: float = 30.0
    start: str | None = None
    environ: Mapping[str, str] = {}


async def run(
    plan: Plan,
    connect: Callable[[], Awaitable[Connection]],
    tell: Callable[[Judged], None] = lambda judged: None,
) -> Report:
    """Judge every requirement; ``tell`` hears each verdict at once.

    Raises ``NotFound`` when the agent does not become available and ``Unreachable`` without a broker.
    """
    async with contextlib.AsyncExitStack() as stack:
        bench = await _bench(plan, await connect(), stack)
        judged = []
        for id_ in ORDER:
            item = await _judge(bench, id_)
            tell(item)
            judged.append(item)
    return Report(
        agent=plan.agent_id,
        strict=plan.strict,
        started=plan.start is not None,
        requirements=tuple(sorted(judged, key=lambda item: item.id)),
    )


async def _judge(bench: Bench, id_: str) -> Judged:
    found = REQUIREMENTS[id_]
    begun = time.monotonic()
    finding: Finding = await found.check(bench)
    return Judged(
        id=id_,
        sentence=found.sentence,
        verdict=finding.verdict,
        evidence=finding.evidence,
        seconds=round(time.monotonic() - begun, 2),
    )


async def _bench(plan: Plan, connection: Connection, stack: contextlib.AsyncExitStack) -> Bench:
    if plan.start is None:
        bench = Bench(connection, plan.agent_id, strict=plan.strict, timeout=plan.timeout)
        await bench.open()
        stack.push_async_callback(bench.close)
        await bench.find()
        return bench
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agent2389-conformance-")))
    tap, model = Tap(plan.broker), KitModel()
    login = (plan.broker.username, plan.broker.password or "") if plan.broker.username else None
    subject = Subject(plan.start, folder, plan.environ, login=login)
    bench = Bench(
        connection,
        plan.agent_id,
        strict=plan.strict,
        timeout=plan.timeout,
        tap=tap,
        model=model,
        subject=subject,
    )
    await bench.open()
    stack.push_async_callback(bench.close)
    await stack.enter_async_context(tap.listening())
    await stack.enter_async_context(model.serving())
    stack.push_async_callback(subject.kill)
    return bench
