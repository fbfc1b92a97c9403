"""The figures of a fault run: one line of JSON, and whether it passed."""

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent2389.ledger.inspection import Recovery
from agent2389.proving.endpoint import EndpointFigures
from agent2389.proving.fsck import Report
from agent2389.proving.plan import Plan
from agent2389.proving.rig import Kill, Tally
from agent2389.proving.script import BUDGET_USD, MODEL_RETRIES
from agent2389.proving.witness import Verdict

REAP_SECONDS = 5.0
SLACK_SECONDS = 1.0
SHOWN = 10
MOST_ASKED = (MODEL_RETRIES + 1) * 3
"""Tries of one call times attempts of a task."""
ROUNDING_USD = 1e-5
CONDEMNED = "died 3 times"
"""In the error of a job whose task met three crashes: the limit against jobs that kill agents."""


class Spread(msgspec.Struct, frozen=True):
    """Seconds: half, 99 %, and all were at most so much; ``count`` of them."""

    count: int
    p50: float
    p99: float
    most: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured. ``reasons`` is empty exactly when it passed."""

    passed: bool
    reasons: tuple[str, ...]
    faults: dict[str, float]
    seed: int
    accepted: int
    completed: int
    cancelled: int
    poisoned: int
    condemned: int
    failed: int
    lost: int
    double_results: int
    wrong_results: int
    repeats_of_producer: int
    seconds: float
    jobs_per_second: float
    agents: int
    slots: int
    lease_seconds: float
    strikes: dict[str, int]
    hits: dict[str, int]
    owned_tasks_hit: dict[str, int]
    restart: Spread | None
    restart_limit_seconds: float
    recovery_after_outage: dict[str, Spread]
    late_writes_refused: int
    late_writes_accepted: int
    claims: int
    crashes: int
    retries: int
    releases: int
    most_open_topics: int
    drain_codes: dict[str, int]
    crash_points: dict[str, int]
    unexpected_ends: int
    log_errors: dict[str, int]
    log_warnings: dict[str, int]
    violations: tuple[str, ...]
    settling: int
    not_checked: dict[str, str]
    model: EndpointFigures | None
    cost_usd: float
    most_cost_of_a_job_usd: float
    fsck_seconds: float
    machine: str
    at: str
    soak: dict[str, float] | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run leaves behind."""

    tally: Tally
    verdict: Verdict
    report: Report
    recoveries: Sequence[Recovery]
    events: dict[str, int]
    recovered: dict[str, list[float]]
    late_accepted: Sequence[str]
    unexpected: Sequence[str]
    logs: tuple[Counter[str], Counter[str]]
    accepted: int
    repeats: int
    refused: int
    most_open: int
    seconds: float
    hung: str | None
    soak: dict[str, float] | None
    model: EndpointFigures | None


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of some seconds; ``None`` of none."""
    if not values:
        return None
    ordered = sorted(values)
    at = [ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.99)]
    return Spread(len(ordered), round(at[0], 3), round(at[1], 3), round(ordered[-1], 3))


def restarts(kills: Sequence[Kill], recoveries: Sequence[Recovery]) -> list[float]:
    """Seconds from each kill to the next claim of each task that the killed process owned."""
    found = []
    for recovery in recoveries:
        times = [
            kill.at
            for kill in kills
            if kill.agent_id == recovery.agent_id and recovery.claimed_at <= kill.at <= recovery.noticed_at
        ]
        if times and recovery.claimed_again_at is not None:
            found.append(recovery.claimed_again_at - max(times))
    return found


def figures_of(plan: Plan, measured: Measured) -> Figures:
    """Put everything together and judge."""
    verdict, events, tally = measured.verdict, measured.events, measured.tally
    condemned = [job for job, message in verdict.failed.items() if CONDEMNED in message]
    restart = spread(restarts(tally.kills, measured.recoveries))
    limit = plan.lease + REAP_SECONDS + SLACK_SECONDS
    reasons = _reasons(plan, measured, len(verdict.failed) - len(condemned), restart, limit)
    return Figures(
        passed=not reasons,
        reasons=tuple(reasons),
        faults={fault.kind.code: fault.every for fault in plan.faults},
        seed=plan.seed,
        accepted=measured.accepted,
        completed=verdict.completed,
        cancelled=verdict.cancelled,
        poisoned=verdict.poisoned,
        condemned=len(condemned),
        failed=len(verdict.failed) - len(condemned),
        lost=len(verdict.lost),
        double_results=len(verdict.double),
        wrong_results=len(verdict.wrong),
        repeats_of_producer=measured.repeats,
        seconds=round(measured.seconds, 1),
        jobs_per_second=round(measured.accepted / measured.seconds, 1),
        agents=plan.agents,
        slots=plan.slots,
        lease_seconds=plan.lease,
        strikes=dict(tally.strikes),
        hits=dict(tally.hits),
        owned_tasks_hit=dict(tally.owned_tasks_hit),
        restart=restart,
        restart_limit_seconds=limit,
        recovery_after_outage={
            code: found
            for code, values in measured.recovered.items()
            if (found := spread(values)) is not None
        },
        late_writes_refused=events.get("task.fenced", 0),
        late_writes_accepted=len(measured.late_accepted),
        claims=events.get("task.claimed", 0),
        crashes=events.get("task.lease_expired", 0),
        retries=events.get("task.retry", 0),
        releases=events.get("task.released", 0),
        most_open_topics=measured.most_open,
        drain_codes={str(code): count for code, count in tally.drain_codes.items()},
        crash_points=dict(sorted(tally.crash_points.items())),
        unexpected_ends=len(measured.unexpected),
        log_errors=dict(measured.logs[0].most_common(SHOWN)),
        log_warnings=dict(measured.logs[1].most_common(SHOWN)),
        violations=tuple(
            f"{item.invariant} {item.subject} {item.message}" for item in measured.report.violations[:SHOWN]
        ),
        settling=len(measured.report.settling),
        not_checked=measured.report.not_checked,
        model=measured.model,
        cost_usd=round(verdict.cost_usd, 6),
        most_cost_of_a_job_usd=round(verdict.most_cost_usd, 6),
        fsck_seconds=measured.report.seconds,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        soak=measured.soak,
    )


def _reasons(plan: Plan, measured: Measured, failed: int, restart: Spread | None, limit: float) -> list[str]:
    """Why the run did not pass."""
    verdict, tally, events = measured.verdict, measured.tally, measured.events
    broken = sum(item.times for item in measured.report.violations)
    asked = measured.model.most_of_one_question if measured.model else 0
    billed = measured.model.billed_usd if measured.model else 0.0
    only_kills = {fault.kind.code for fault in plan.faults} <= {"F1", "F13"}
    checks = {
        f"hung: {measured.hung}": measured.hung is not None,
        f"{len(verdict.lost)} accepted jobs have no result: {verdict.lost[:SHOWN]}": bool(verdict.lost),
        f"{len(verdict.double)} jobs have two results: {verdict.double[:SHOWN]}": bool(verdict.double),
        f"{len(verdict.wrong)} results are wrong: {_few(verdict.wrong)}": bool(verdict.wrong),
        f"{failed} jobs failed: {_few(verdict.failed)}": failed > 0,
        f"{measured.refused} submissions were refused": measured.refused > 0,
        f"late writes were accepted: {list(measured.late_accepted)[:SHOWN]}": bool(measured.late_accepted),
        "no late write was seen": plan.has("F2") and not events.get("task.fenced"),
        f"fsck: {broken} violations": not measured.report.is_clean,
        f"processes ended by themselves: {list(measured.unexpected)[:3]}": bool(measured.unexpected),
        f"a killed task waited {restart.p99 if restart else 0} s (p99), more than {limit}": (
            only_kills and restart is not None and restart.p99 > limit
        ),
        f"the broker held {measured.most_open} open topics of one pool": measured.most_open > 100,
        f"agents drained with {dict(tally.drain_codes)}": set(tally.drain_codes) - {0} != set(),
        f"a job cost {verdict.most_cost_usd} USD, its budget was {BUDGET_USD}": (
            verdict.most_cost_usd > BUDGET_USD
        ),
        f"the jobs cost {verdict.cost_usd} USD, the endpoint billed {billed}": (
            {fault.kind.code for fault in plan.faults} == {"F15"}
            and abs(verdict.cost_usd - billed) > ROUNDING_USD * measured.accepted
        ),
        f"one question was asked {asked} times": asked > MOST_ASKED,
        "a rolling restart burnt attempts": (
            {fault.kind.code for fault in plan.faults} == {"F12"}
            and bool(events.get("task.retry", 0) + events.get("task.lease_expired", 0))
        ),
    }
    found = [reason for reason, broken in checks.items() if broken]
    for fault in plan.faults:
        code = fault.kind.code
        counted = tally.hits[code] if fault.kind.must_hit else tally.strikes[code]
        if counted < plan.least_hits and code != "F9":
            found.append(
                f"{code} hit {counted} times, at least {plan.least_hits} are needed to prove anything"
            )
    return found


def _few(named: dict[str, str]) -> str:
    return "; ".join(f"{job}: {why}" for job, why in list(named.items())[:3])


def read_logs(folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Errors and warnings of all processes, counted by event. What is no JSON line counts as an error."""
    errors, warnings = Counter[str](), Counter[str]()
    for path in sorted(folder.glob("*.log")):
        if path.stem in ("postgres", "broker"):
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            kind, name = _log_line(line)
            (errors if kind in ("error", "critical") else warnings)[name] += 1
    return errors, warnings


def _log_line(line: str) -> tuple[str, str]:
    try:
        entry: dict[str, Any] = json.loads(line)
        return str(entry.get("level", "info")), str(entry.get("event", ""))
    except (ValueError, AttributeError):
        # A kill may cut a line in two.
        return ("warning", "(cut line)") if line.startswith("{") else ("error", line[:120])
