"""The verb that holds an implementation of the protocol against its requirements."""

import os

import msgspec

from agent2389.broker.port import Connection
from agent2389.cli import output
from agent2389.cli.named_broker import address_of, connected
from agent2389.errors import Agent2389Error
from agent2389.proving.conformance.report import Judged, Report, Verdict
from agent2389.proving.conformance.run import Plan, run
from agent2389.telemetry.logs import configure_logging

_SHOWN = {Verdict.PASS: "pass", Verdict.FAIL: "FAIL", Verdict.NOT_OBSERVED: "not observed"}


class NotConforming(Agent2389Error):
    """At least one requirement is broken."""

    exit_code = 1


async def conformance(
    broker: str | None, agent: str, *, strict: bool, start: str | None, timeout: float, as_json: bool
) -> None:
    """Judge every requirement; exit 1 when one fails."""
    configure_logging("critical")
    plan = Plan(
        agent_id=agent,
        broker=address_of(broker),
        strict=strict,
        timeout=timeout,
        start=start,
        environ=dict(os.environ),
    )
    async with connected(broker, "conformance") as connection:

        async def connect() -> Connection:
            return connection

        report = await run(plan, connect, _say if not as_json else lambda judged: None)
    if as_json:
        output.document(msgspec.to_builtins(report), conforms=not report.with_verdict(Verdict.FAIL))
    else:
        output.table(
            [(item.id, _SHOWN[item.verdict], item.sentence, item.evidence) for item in report.requirements],
            ("id", "verdict", "requirement", "evidence"),
        )
    _conclude(report)


def _say(judged: Judged) -> None:
    output.say(f"{judged.id:9} {_SHOWN[judged.verdict]:12} {judged.evidence}")


def _conclude(report: Report) -> None:
    failed, unseen = report.with_verdict(Verdict.FAIL), report.with_verdict(Verdict.NOT_OBSERVED)
    if unseen:
        output.say(f"not observed: {', '.join(unseen)}")
    if failed:
        raise NotConforming(
            f"{report.agent} breaks {', '.join(failed)}",
            hint="--lenient tolerates what the reference implementation is known to do"
            if report.strict
            else None,
        )
