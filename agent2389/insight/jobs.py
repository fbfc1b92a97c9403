"""Reading jobs the way people ask for them."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Usage
from agent2389.ledger.states import JOB_ENDED
from agent2389.ledger.views import JobDetail

FIRST_LOOK, SLOWEST_LOOK = 0.02, 0.5


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a trace; times in seconds, ``claim_ms`` from queued (or due) to claimed."""

    hop: int
    task_id: str
    capability: str
    agent_id: str | None
    state: str
    reason: str | None
    claim_ms: float | None
    seconds: float | None
    attempt: int
    crashes: int
    usage: Usage
    decision: dict[str, Any] | None
    error: dict[str, str] | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A job's way: who, why, how long, at what cost."""

    job_id: str
    state: str
    instruction: str | None
    seconds: float | None
    usage: Usage
    hops: tuple[Hop, ...]


async def resolve(ledger: Ledger, prefix: str) -> str:
    """The job id that ``prefix`` (or ``@last``) means.

    Raises ``NotFound``, or ``InputRefused`` when several jobs begin so.
    """
    found = await ledger.find_jobs(prefix)
    if not found:
        raise NotFound(f"there is no job {prefix}", hint="list them: agent2389 job list")
    if len(found) > 1 and found[0] != prefix:
        raise InputRefused(
            "invalid", f"{prefix} is the beginning of several jobs", hint="write more of the id"
        )
    return found[0]


def trace_of(detail: JobDetail) -> Trace:
    """The trace of a job as it stands."""
    job = detail.job
    hops = tuple(
        Hop(
            hop=task.hop,
            task_id=task.task_id,
            capability=task.capability,
            agent_id=task.agent_id,
            state=task.state,
            reason=task.reason,
            claim_ms=_milliseconds(max(task.queued_at, task.run_after), task.claimed_at),
            seconds=_seconds(task.claimed_at, task.finished_at),
            attempt=task.attempt,
            crashes=task.crashes,
            usage=task.usage,
            decision=msgspec.to_builtins(task.decision) if task.decision else None,
            error=task.error,
        )
        for task in detail.tasks
    )
    return Trace(
        job_id=job.job_id,
        state=job.state,
        instruction=job.instruction,
        seconds=_seconds(job.created_at, job.finished_at),
        usage=job.usage,
        hops=hops,
    )


async def wait_for_end(ledger: Ledger, job_id: str, seconds: float) -> JobDetail:
    """The job once it ended, or as it stands after ``seconds``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = FIRST_LOOK
    while True:
        detail = await ledger.job(job_id)
        if detail.job.state in JOB_ENDED or loop.time() + pause > deadline:
            return detail
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, SLOWEST_LOOK)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else round((end - begin).total_seconds(), 3)


def _milliseconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else round(max((end - begin).total_seconds(), 0) * 1000, 1)
