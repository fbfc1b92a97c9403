"""Mutants of the database: named rewrites of one guard, one transition or one rule of the reaper each.

``before`` stands in exactly one place of the file of migrations whose name begins with ``file``; a
mutant of ``transitions`` adds a pair of states to the generated table or takes one out.
"""

from collections.abc import Sequence

import msgspec

from agent2389.ledger.migrate import Migration
from agent2389.ledger.states import TaskState as State


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One wrong database. ``equivalent`` says why no test can tell it from the right one."""

    name: str
    file: str
    before: str = ""
    after: str = ""
    pair: tuple[State, State] | None = None
    equivalent: str = ""


class DoesNotFit(LookupError):
    """A mutant names text that the migrations do not hold in exactly one place."""


def mutated(migrations: Sequence[Migration], mutant: Mutant) -> tuple[Migration, ...]:
    """The migrations with the mutant in them. Raises ``DoesNotFit``."""
    if mutant.pair is not None:
        return tuple(migrations)
    fitting = [item for item in migrations if item.name.startswith(mutant.file)]
    if len(fitting) != 1 or fitting[0].text.count(mutant.before) != 1:
        raise DoesNotFit(f"{mutant.name}: {mutant.before!r} is not in exactly one place of {mutant.file}")
    return tuple(
        msgspec.structs.replace(item, text=item.text.replace(mutant.before, mutant.after))
        if item is fitting[0]
        else item
        for item in migrations
    )


def _tables(name: str, before: str, after: str = "") -> Mutant:
    return Mutant(name=name, file="0001", before=before, after=after)


def _guards(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0002", before=before, after=after)


def _parts(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0003", before=before, after=after)


def _producers(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0004", before=before, after=after)


def _claims(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0005", before=before, after=after)


def _beats(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0005", before=before, after=after)


def _owners(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0006", before=before, after=after)


def _reaper(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0007", before=before, after=after)


def _retention(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0007", before=before, after=after)


def _chain(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0013", before=before, after=after)


def _follows(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0010", before=before, after=after)


def _waiting(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0011", before=before, after=after)


def _people(name: str, before: str, after: str) -> Mutant:
    return Mutant(name=name, file="0012", before=before, after=after)


def _steps(name: str, before: State, after: State) -> Mutant:
    return Mutant(name=name, file="transitions", pair=(before, after))


MUTANTS: tuple[Mutant, ...] = (
    # what a row may hold
    _tables(
        "owner outside the owned states",
        "    CHECK ((state IN ('assigned', 'acked', 'in_progress')) = (owner_incarnation IS NOT NULL)),\n",
    ),
    _tables("lease without owner", "    CHECK ((owner_incarnation IS NULL) = (lease_until IS NULL)),\n"),
    _tables("token without owner", "    CHECK ((owner_incarnation IS NULL) = (token_hash IS NULL)),\n"),
    _tables("attempts beyond the limit", "    CHECK (attempt BETWEEN 0 AND max_attempts),\n"),
    _tables("crashes beyond the limit", "    CHECK (crashes BETWEEN 0 AND max_crashes),\n"),
    _tables("waiting for nothing", "    CHECK ((state = 'waiting') = (waiting IS NOT NULL)),\n"),
    _tables("held outside a verdict", "    CHECK (held IS NULL OR state IN ('completed', 'escalated')),\n"),
    _tables("two tasks in one slot", "    UNIQUE (tenant, job_id, parent_task, slot),\n"),
    _tables(
        "two current results", "CREATE UNIQUE INDEX results_one_current", "CREATE INDEX results_one_current"
    ),
    _tables("open job without tasks", "    CHECK ((state = 'open') = (open_tasks > 0))", "    CHECK (true)"),
    # what a row may become
    _guards("the epoch may fall", "IF NEW.epoch < OLD.epoch THEN", "IF false THEN"),
    _guards("a claim keeps the epoch", "AND NEW.epoch <= OLD.epoch THEN", "AND NEW.epoch < OLD.epoch THEN"),
    _guards(
        "ended tasks may change",
        "IF OLD.state IN ('verified', 'cancelled', 'dead', 'expired')\n        OR (OLD.state = 'completed' AND OLD.held IS NULL) THEN",
        "IF false THEN",
    ),
    _guards(
        "completed tasks may change",
        "\n        OR (OLD.state = 'completed' AND OLD.held IS NULL) THEN",
        " THEN",
    ),
    _guards("any transition", "IF NEW.state <> OLD.state AND NOT EXISTS (", "IF false AND NOT EXISTS ("),
    _guards(
        "tasks change their job",
        "NEW.job_id, NEW.pool, NEW.verifies, NEW.joins)",
        "OLD.job_id, NEW.pool, NEW.verifies, NEW.joins)",
    ),
    _guards(
        "tasks change their pool", "NEW.pool, NEW.verifies, NEW.joins)", "OLD.pool, NEW.verifies, NEW.joins)"
    ),
    _guards("tasks change their hop", "OR (NEW.hop <> OLD.hop AND OLD.state <> 'waiting') THEN", "THEN"),
    _guards("tasks are born in any state", "IF NOT (NEW.state = 'queued' OR", "IF NOT (true OR"),
    _guards(
        "tasks are born with an epoch",
        "OR NEW.epoch <> 0 OR NEW.attempt <> 0 THEN",
        "OR NEW.attempt <> 0 THEN",
    ),
    _guards("ended jobs may change", "IF OLD.state <> 'open' AND (NEW.state,", "IF false AND (NEW.state,"),
    _guards(
        "terminal payloads may change",
        "CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.job_results",
        "CREATE TRIGGER written_once BEFORE UPDATE OF tenant ON agent2389.job_results",
    ),
    _guards("sealed events may change", "IF OLD.number IS NOT NULL OR", "IF false OR"),
    _guards(
        "events may change",
        "NEW.type, NEW.at, NEW.agent_id, NEW.data)",
        "OLD.type, NEW.at, NEW.agent_id, NEW.data)",
    ),
    _guards("standing results may change", "IF OLD.standing <> 'proposed' OR (", "IF false OR ("),
    _guards(
        "payloads of results may change",
        "NEW.epoch, NEW.payload, NEW.token_hash)",
        "NEW.epoch, OLD.payload, NEW.token_hash)",
    ),
    _guards(
        "approvals are decided twice", "IF OLD.state <> 'pending' AND (OLD.state,", "IF false AND (OLD.state,"
    ),
    _guards(
        "withdrawn approvals are decided",
        "(OLD.state, NEW.state) <> ('withdrawn', 'pending')",
        "OLD.state <> 'withdrawn'",
    ),
    _guards(
        "arguments of approvals may change",
        "NEW.arguments, NEW.arguments_sha256)",
        "OLD.arguments, NEW.arguments_sha256)",
    ),
    _guards(
        "work leaves without a tombstone",
        "IF NOT EXISTS (SELECT FROM agent2389.tombstones",
        "IF false AND NOT EXISTS (SELECT FROM agent2389.tombstones",
    ),
    # the fence
    _owners("no epoch in the fence", "IF task.epoch = of_epoch AND task.token_hash", "IF task.token_hash"),
    _owners(
        "no token in the fence",
        "AND task.token_hash = sha256(convert_to(token, 'UTF8')) AND task.lease_until > clock_timestamp() THEN",
        "AND task.lease_until > clock_timestamp() THEN",
    ),
    _owners("no lease in the fence", "AND task.lease_until > clock_timestamp() THEN", "THEN"),
    _owners(
        "cancelled owners may finish",
        "CASE WHEN task.stop_requested IS NULL THEN 'ok' ELSE 'cancel' END",
        "'ok'",
    ),
    _owners("a repeat is fenced", "        verdict := 'already';", "        verdict := 'fenced';"),
    _owners(
        "anybody's result makes a repeat",
        "AND r.epoch = of_epoch AND r.token_hash = sha256(convert_to(token, 'UTF8')) AND r.standing",
        "AND r.epoch = of_epoch AND r.standing",
    ),
    _owners("one attempt more", "task.attempt + 1 < task.max_attempts", "task.attempt < task.max_attempts"),
    _owners("failures are never repeated", "(body ->> 'retryable')::boolean AND", "false AND"),
    _owners(
        "a release burns an attempt",
        "token_hash = NULL, run_after = clock_timestamp()\n",
        "token_hash = NULL, attempt = attempt + 1, run_after = clock_timestamp()\n",
    ),
    # claims and beats
    _beats(
        "a beat revives a lost lease",
        " AND lease_until > clock_timestamp()\n        RETURNING * INTO task;",
        "\n        RETURNING * INTO task;",
    ),
    _beats("a beat of another epoch", " AND epoch = (fence ->> 'epoch')::integer", ""),
    _beats(
        "a beat without its token",
        "            AND token_hash = sha256(convert_to(fence ->> 'token', 'UTF8')) AND",
        "            AND",
    ),
    _beats(
        "a beat that hides the cancel",
        "            WHEN task.stop_requested IS NOT NULL THEN task.stop_requested\n",
        "",
    ),
    _claims("paused agents claim", "AND incarnation = who AND state = 'running';", "AND incarnation = who;"),
    _claims(
        "claims before their time",
        "                    AND run_after <= clock_timestamp() AND deadline > clock_timestamp()\n                    AND not_agent",
        "                    AND deadline > clock_timestamp()\n                    AND not_agent",
    ),
    _claims(
        "claims after the deadline",
        "                    AND run_after <= clock_timestamp() AND deadline > clock_timestamp()\n                    AND not_agent",
        "                    AND run_after <= clock_timestamp()\n                    AND not_agent",
    ),
    _claims(
        "claims of other pools",
        "task_id = one_task AND pool = ANY (me.pools) AND state = 'queued'",
        "task_id = one_task AND state = 'queued'",
    ),
    _claims(
        "its own judge",
        "                    AND not_agent IS DISTINCT FROM me.agent_id\n                ORDER BY",
        "                ORDER BY",
    ),
    # the reaper
    _reaper("leases never end", "AND lease_until <= moment LIMIT most", "AND false LIMIT most"),
    _reaper(
        "deadlines never pass",
        "AND paused_at IS NULL AND deadline <= moment LIMIT most",
        "AND false LIMIT most",
    ),
    _reaper(
        "timers never end",
        "AND coalesce(waiting ->> 'for', 'timer') = 'timer' LIMIT most",
        "AND false LIMIT most",
    ),
    _reaper("nobody is missed", ":= moment - interval '15 minutes'", ":= moment - interval '15 days'"),
    _reaper(
        "a reaped cancel goes on",
        "    IF task.stop_requested = 'cancel' THEN\n        RETURN agent2389.end_task(task, 'cancelled'",
        "    IF false THEN\n        RETURN agent2389.end_task(task, 'cancelled'",
    ),
    _reaper(
        "reaped after the deadline",
        "ELSIF task.deadline <= clock_timestamp() OR task.stop_requested = 'expire' THEN",
        "ELSIF task.stop_requested = 'expire' THEN",
    ),
    _reaper(
        "one crash more", "task.crashes + 1 >= task.max_crashes THEN", "task.crashes >= task.max_crashes THEN"
    ),
    _reaper(
        "crashes are not counted",
        "    UPDATE agent2389.tasks SET crashes = crashes + 1 WHERE tenant",
        "    UPDATE agent2389.tasks SET crashes = crashes WHERE tenant",
    ),
    _reaper("one assignment more", "task.misses + 1 >= 3)", "task.misses >= 3)"),
    _reaper(
        "leases that live are reaped",
        "        IF task.lease_until <= moment THEN\n",
        "        IF true THEN\n",
    ),
    # retention and the sealed chain
    _retention("jobs are buried unsealed", "AND e.number IS NULL)", "AND false)"),
    _retention(
        "buried links leave nothing",
        "SELECT number, previous_hash, hash FROM gone WHERE hash IS NOT NULL;",
        "SELECT number, previous_hash, hash FROM gone WHERE false;",
    ),
    _retention("links are forgotten early", "(SELECT min(e.number) FROM", "(SELECT max(e.number) FROM"),
    _retention("the chain begins anew", "SET chain_begins = newest.hash", "SET chain_begins = chain_begins"),
    _chain(
        "a changed event verifies", "AND e.hash <> agent2389.link(", "AND false AND e.hash <> agent2389.link("
    ),
    _chain("a removed event is not missed", "WHERE previous_hash <> follows", "WHERE false"),
    _chain("the newest event is not missed", "WHERE m.sealed_hash <> coalesce(", "WHERE '' = coalesce("),
    # jobs, joins, verdicts, people
    _parts(
        "jobs end too early",
        "IF job.open_tasks - ended + born > 0 THEN",
        "IF job.open_tasks - ended + born > 1 THEN",
    ),
    _producers(
        "other content is a duplicate",
        "CASE WHEN known.content_hash = job ->> 'content_hash' THEN 'duplicate' ELSE 'conflict' END",
        "'duplicate'",
    ),
    _producers(
        "owned tasks are cancelled at once", "ELSIF task.owner_incarnation IS NULL THEN", "ELSIF true THEN"
    ),
    _follows(
        "joins go on too early",
        "IF meeting.join_done >= meeting.join_needed THEN",
        "IF meeting.join_done + 1 >= meeting.join_needed THEN",
    ),
    _follows(
        "joins wait for ever",
        "ELSIF meeting.join_total - meeting.join_failed < meeting.join_needed THEN",
        "ELSIF false THEN",
    ),
    Mutant(
        name="a verdict on what is over",
        file="0010",
        before="IF task.state <> 'completed' OR task.held IS NULL THEN",
        after="IF task.state <> 'completed' THEN",
        equivalent="whoever ends the wait for a verdict calls the judge off first, and a judge that was "
        "called off writes none; were one written, the guard of ended tasks would refuse it",
    ),
    _follows(
        "refused for ever",
        "        IF task.attempt + 1 < task.max_attempts THEN",
        "        IF task.attempt < task.max_attempts THEN",
    ),
    _waiting(
        "approved for other arguments",
        "ELSIF asked.arguments_sha256 <> of_arguments_sha256 THEN",
        "ELSIF false THEN",
    ),
    _waiting("an answer of an earlier attempt", "OR task.forwards - 1 <> of_attempt THEN", "THEN"),
    _people("a person is not asked", "    IF NOT (task.state = 'escalated' OR", "    IF NOT (true OR"),
    _people("open jobs are cloned", "ELSIF source.state = 'open' THEN", "ELSIF false THEN"),
    # the table of transitions
    _steps("dead tasks come back", State.DEAD, State.QUEUED),
    _steps("queued tasks complete", State.QUEUED, State.COMPLETED),
    _steps("no way to verified", State.COMPLETED, State.VERIFIED),
    _steps("no way out of waiting", State.WAITING, State.QUEUED),
)
