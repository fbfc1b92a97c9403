"""What producers ask of the in-memory ledger: submit, reject, cancel."""

from datetime import timedelta

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger.memory_parts import (
    Gathered,
    deliver,
    job_state,
    note_job,
    note_task,
    pool_of,
    someone_lives,
    wake_of,
)
from agent2389.ledger.memory_tables import JobRecord, RejectRecord, Tables, TaskRecord
from agent2389.ledger.memory_what_follows import call_off
from agent2389.ledger.records import NewJob, Rejection, Submitted, Written
from agent2389.wire.names import task_id_of

DEFAULT_DEADLINE = timedelta(hours=1)
ONE_REJECT = timedelta(seconds=10)
SILENT_REPEAT_SECONDS = 2.0
"""A duplicate so soon is a repeat of the transport: no second receipt."""


def submit(tables: Tables, tenant: str, new: NewJob) -> Submitted:
    """T1 to T3. Raises ``InputRefused`` when the deadline passed before the arrival."""
    gathered = Gathered()
    known = _recent(tables, tenant, new) or tables.jobs.get((tenant, new.job_id))
    gone = tables.tombstones.get((tenant, new.job_id))
    if known is None and gone is not None:
        verdict = "duplicate" if gone.content_hash == new.content_hash else "conflict"
        age = (tables.now() - gone.at).total_seconds()
        return Submitted(job_id=new.job_id, verdict=verdict, state=gone.state, age_seconds=age)
    if known is None:
        job, verdict, age = _accept(tables, gathered, tenant, new), "accepted", 0.0
    else:
        job = known
        verdict = "duplicate" if job.new.content_hash == new.content_hash else "conflict"
        age = (tables.now() - job.created_at).total_seconds()
    remark = job.note if verdict == "accepted" else None
    if verdict != "duplicate" or age > SILENT_REPEAT_SECONDS:
        _send_receipts(tables, gathered, job, new, verdict=verdict, remark=remark)
    return Submitted(
        job_id=job.new.job_id,
        verdict=verdict,
        state=job_state(tables, job),
        note=remark,
        age_seconds=age,
        effects=gathered.effects(),
    )


def _recent(tables: Tables, tenant: str, new: NewJob) -> JobRecord | None:
    """The newest job of the same content within the sliding window, which slides on."""
    if new.recent_seconds <= 0:
        return None
    since = tables.now() - timedelta(seconds=new.recent_seconds)
    found = [
        job
        for job in tables.jobs.values()
        if (job.tenant, job.new.content_hash) == (tenant, new.content_hash) and job.last_seen > since
    ]
    newest = max(found, key=lambda job: job.seq, default=None)
    if newest is not None:
        newest.last_seen = tables.now()
    return newest


def _accept(tables: Tables, gathered: Gathered, tenant: str, new: NewJob) -> JobRecord:
    now = tables.now()
    starts = new.not_before or now
    deadline = new.deadline or max(starts, now) + DEFAULT_DEADLINE
    if deadline <= now:
        raise InputRefused("expired", "the deadline passed before the job arrived")
    if (new.capability is None) == (new.agent is None):
        raise InputRefused("invalid", "a job names a capability or an agent, one of them")
    pool = pool_of(new.capability, new.agent)
    job = JobRecord(
        tenant=tenant,
        new=new,
        seq=tables.number(),
        deadline=deadline,
        note=None if someone_lives(tables, tenant, pool) else "no_live_agent",
        created_at=now,
        last_seen=now,
    )
    task = TaskRecord(
        tenant=tenant,
        task_id=task_id_of(new.job_id, "", 0),
        job_id=new.job_id,
        seq=tables.number(),
        hop=1,
        pool=pool,
        capability=new.capability,
        bound_agent=new.agent,
        instruction=new.instruction,
        input=new.input,
        next=new.next,
        reason="submitted",
        priority=new.priority,
        run_after=starts,
        rung=starts <= now,
        deadline=deadline,
        wire_task_id=new.wire_task_id,
        queued_at=now,
    )
    tables.jobs[tenant, new.job_id] = job
    tables.tasks[tenant, task.task_id] = task
    tables.accepted.add((tenant, new.job_id))
    if new.files:
        tables.workspaces[tenant, task.task_id] = {file.name: file for file in new.files}
    if starts <= now:
        gathered.wakes.append(wake_of(task))
    note_task(tables, gathered, task, "job.accepted", data={"pool": pool, "source": new.source})
    return job


def _send_receipts(
    tables: Tables, gathered: Gathered, job: JobRecord, new: NewJob, *, verdict: str, remark: str | None
) -> None:
    """One to the job's receipt topic, one to the reply topic; HTTP answers itself, the protocol has none."""
    if {job.new.source, new.source} & {"http", "protocol"}:
        return
    body = {"job_id": job.new.job_id, "verdict": verdict}
    if verdict == "conflict":
        body |= {"code": "conflict", "message": "another job has this id; the first one stands"}
    if remark is not None:
        body["note"] = remark
    body["state"] = job_state(tables, job)
    deliver(tables, gathered, job.tenant, body, kind="receipt", job_id=job.new.job_id)
    if new.reply_to is not None:
        deliver(
            tables,
            gathered,
            job.tenant,
            body,
            kind="receipt",
            job_id=job.new.job_id,
            topic=new.reply_to,
            correlation=new.correlation,
        )


def reject(tables: Tables, tenant: str, rejection: Rejection) -> bool:
    """T4: keep the evidence; true for the first of its kind within ten seconds."""
    key = (tenant, rejection.topic, rejection.payload_sha256)
    row = tables.rejects.get(key)
    if row is None:
        tables.rejects[key] = RejectRecord(rejection=rejection, times=1, at=tables.now())
        return True
    row.times += 1
    if row.at >= tables.now() - ONE_REJECT:
        return False
    row.at = tables.now()
    return True


def cancel(tables: Tables, tenant: str, job_id: str, actor: str) -> Written:
    """T18, T19: what nobody owns ends now, what somebody owns at the owner's next beat."""
    job = tables.jobs.get((tenant, job_id))
    if job is None:
        raise NotFound("there is no such job")
    if job.ended is not None:
        return Written(verdict="already", job_state=job.ended)
    gathered = Gathered()
    note_job(tables, gathered, job, "job.cancel_requested", data={"actor": actor})
    # The task that joins goes first, so that the end of its branches moves nothing any more.
    tasks = tables.tasks_of(tenant, job_id)
    for task in sorted(tasks, key=lambda task: (task.join_needed is None, task.hop, task.task_id)):
        call_off(tables, gathered, task)
    return Written(verdict="ok", job_state=job_state(tables, job), effects=gathered.effects())
