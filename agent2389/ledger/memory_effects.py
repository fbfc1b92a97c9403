"""The journal of the in-memory ledger: begin, end, resume, escalate."""

from collections.abc import Sequence

import msgspec

from agent2389.errors import InputRefused, NotFound
from agent2389.ledger import memory_messages, memory_spend
from agent2389.ledger.journal import (
    Amounts,
    Begun,
    EffectAnswer,
    EffectEnd,
    EffectStart,
    Message,
    OwnLimits,
    Resumed,
    SpendRow,
    TranscriptEntry,
)
from agent2389.ledger.memory_agents import holds
from agent2389.ledger.memory_journal import EffectRecord, Place, plus
from agent2389.ledger.memory_owners import stop_task
from agent2389.ledger.memory_parts import Gathered, job_state, keep_result, note_task
from agent2389.ledger.memory_tables import Tables, TaskRecord, digest
from agent2389.ledger.memory_what_follows import ask_person, problem_of, queue_again
from agent2389.ledger.records import Fence, FileRef, TaskResult, Usage, Written
from agent2389.ledger.states import TaskState

MESSAGE_CHARACTERS = 500


class InDoubt(Exception):
    """An unsafe call may have happened."""


class MemoryJournal:
    """``ledger.journal.Journal`` without a database."""

    tables: Tables
    _tenant: str

    async def effect_begin(self, fence: Fence, starts: Sequence[EffectStart], own: OwnLimits) -> Begun:
        """Journal and reserve."""
        return begin(self.tables, self._tenant, fence, starts, own)

    async def effect_end(
        self,
        fence: Fence,
        ends: Sequence[EffectEnd],
        messages: Sequence[Message] = (),
        manifest: dict[str, FileRef] | None = None,
    ) -> str:
        """Done and settled."""
        return end(self.tables, self._tenant, fence, ends, messages, manifest)

    async def resume(self, fence: Fence) -> Resumed:
        """Where the last owner stood."""
        return resume(self.tables, self._tenant, fence)

    async def escalate_task(self, fence: Fence, reason: str, message: str, partial: str = "") -> Written:
        """The owner asks a person."""
        return escalate(self.tables, self._tenant, fence, reason, message, partial)

    async def resolve_effect(
        self, task_id: str, step: int, call: int, *, happened: bool, answer: str, actor: str
    ) -> Written:
        """A person's word on a call in doubt."""
        return resolve(self.tables, (self._tenant, task_id), (step, call), happened, answer, actor)

    async def transcript(self, job_id: str, skip: int = 0, limit: int = 200) -> Sequence[TranscriptEntry]:
        """The conversations of a job."""
        for task in self.tables.tasks_of(self._tenant, job_id):
            leave_in_doubt(self.tables, task)
        return memory_messages.transcript(self.tables, self._tenant, job_id, skip, limit)

    async def set_limit(self, period: str, unit: str, limit: float | None) -> None:
        """The tenant's limit."""
        memory_spend.set_limit(self.tables, self._tenant, period, unit, limit)

    async def spending(self) -> Sequence[SpendRow]:
        """What the tenant used."""
        return memory_spend.spending(self.tables, self._tenant)

    async def forget_messages(self, limit: int) -> int:
        """Delete messages without a conversation."""
        return memory_messages.forget(self.tables, limit)


def _judge(tables: Tables, tenant: str, fence: Fence, write: str) -> tuple[TaskRecord, str]:
    """The task and ``ok`` | ``cancel`` | ``fenced``; a refused write leaves an event."""
    task = tables.tasks.get((tenant, fence.task_id))
    if task is None:
        raise NotFound("there is no such task")
    leave_in_doubt(tables, task)
    if holds(tables, task, fence):
        return task, "ok" if task.stop_requested is None else "cancel"
    data = {"write": write, "epoch": fence.epoch, "current_epoch": task.epoch}
    note_task(tables, Gathered(), task, "task.fenced", data=data)
    return task, "fenced"


def leave_in_doubt(tables: Tables, task: TaskRecord) -> None:
    """What an earlier owner left open is in doubt and counts at what was reserved.

    Postgres does this when the owner loses the task; here whoever looks next does it, which
    nobody can tell apart: a reservation counts like use.
    """
    journal, key = tables.journal, (task.tenant, task.task_id)
    for place in sorted(journal.open.get(key, ())):
        effect = journal.effects[place]
        if effect.epoch != task.epoch or task.owner is None:
            # Time is the one thing that is known.
            took = (tables.now() - effect.started_at).total_seconds()
            lost = msgspec.structs.replace(effect.reserved, seconds=min(effect.reserved.seconds, took))
            memory_spend.settle(tables, effect, lost)
            effect.used, effect.reserved = plus(effect.used, lost), Amounts()
            effect.state, effect.ended_at = "in_doubt", tables.now()
            journal.open[key].discard(place)


def begin(tables: Tables, tenant: str, fence: Fence, starts: Sequence[EffectStart], own: OwnLimits) -> Begun:
    """All of ``starts`` or none."""
    task, verdict = _judge(tables, tenant, fence, "effect_begin")
    if verdict != "ok":
        return Begun(verdict=verdict)
    journal = tables.journal
    before: dict[Place, EffectRecord | None] = {}
    accounts = {account: msgspec.structs.replace(row) for account, row in journal.spend.items()}
    answers: list[EffectAnswer] = []
    try:
        for item in starts:
            place = (tenant, task.task_id, task.generation, item.step, item.call)
            before[place] = journal.effects.get(place)
            answers.append(_begin_one(tables, task, item, own))
    except memory_spend.Refused as refused:
        begun = Begun(verdict="refused", refusal=refused.refusal)
    except InDoubt as doubt:
        begun = Begun(verdict="in_doubt", doubtful=str(doubt))
    else:
        open_calls = journal.open.setdefault((tenant, task.task_id), set())
        open_calls.update(place for place in before if journal.effects[place].state == "started")
        return Begun(verdict="ok", answers=tuple(answers))
    journal.spend = accounts
    for place, effect in before.items():
        if effect is None:
            journal.effects.pop(place, None)
        else:
            journal.effects[place] = effect
    return begun


def _begin_one(tables: Tables, task: TaskRecord, item: EffectStart, own: OwnLimits) -> EffectAnswer:
    place = (task.tenant, task.task_id, task.generation, item.step, item.call)
    known = tables.journal.effects.get(place)
    if known is not None and known.state == "done":
        return _answer(tables, task, known)
    if known is not None and known.state == "started":
        return EffectAnswer(verdict="fresh", repeated=known.tries > 1)
    if known is not None and known.state == "in_doubt" and known.repeat == "unsafe":
        raise InDoubt(known.name)
    twin = None if known or item.repeat not in ("keyed", "unsafe") else _twin(tables, task, item.key)
    if twin is not None and twin.state == "done":
        tables.journal.effects[place] = msgspec.structs.replace(
            _record(tables, task, item),
            state="done",
            failed=twin.failed,
            reused=True,
            response=twin.response,
            ended_at=tables.now(),
        )
        return _answer(tables, task, twin)
    if twin is not None and twin.repeat == "unsafe":
        raise InDoubt(twin.name)
    held = memory_spend.reserve(tables, task, own, item.kind, item.reserve)
    record = _record(tables, task, item)
    record.reserved, record.holds = item.reserve, held
    if known is not None:
        record.tries, record.used = known.tries + 1, known.used
    tables.journal.effects[place] = record
    return EffectAnswer(verdict="fresh", repeated=known is not None)


def _record(tables: Tables, task: TaskRecord, item: EffectStart) -> EffectRecord:
    return EffectRecord(
        job_id=task.job_id,
        kind=item.kind,
        name=item.name,
        repeat=item.repeat,
        request_hash=item.request_hash,
        key=item.key,
        epoch=task.epoch,
        agent_id=task.agent_id,
        started_at=tables.now(),
    )


def _twin(tables: Tables, task: TaskRecord, key: str | None) -> EffectRecord | None:
    """The same call of an earlier generation; a keyed one that failed may simply be made again."""
    found = [
        (place[2:4], effect)
        for place, effect in tables.journal.effects.items()
        if place[:2] == (task.tenant, task.task_id)
        and effect.key == key
        and effect.state != "void"
        and not effect.reused
        and not (effect.repeat == "keyed" and effect.failed)
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def _answer(tables: Tables, task: TaskRecord, effect: EffectRecord) -> EffectAnswer:
    body = tables.journal.messages[task.tenant, effect.response] if effect.response else None
    return EffectAnswer(verdict="done", failed=effect.failed, response=body)


def end(
    tables: Tables,
    tenant: str,
    fence: Fence,
    ends: Sequence[EffectEnd],
    messages: Sequence[Message],
    manifest: dict[str, FileRef] | None,
) -> str:
    """Done, settled, messages and workspace together."""
    task, verdict = _judge(tables, tenant, fence, "effect_end")
    if verdict == "fenced":
        return "fenced"
    places = [(tenant, task.task_id, task.generation, item.step, item.call) for item in ends]
    open_calls = [_open(tables, place, fence) for place in places]
    if None in open_calls:
        return "already"
    memory_messages.keep(tables, task, messages)
    for place, item, effect in zip(places, ends, open_calls, strict=True):
        assert effect is not None
        _end_one(tables, place, item, effect)
    if manifest is not None:
        tables.workspaces[tenant, task.task_id] = dict(manifest)
    return "ok"


def _open(tables: Tables, place: Place, fence: Fence) -> EffectRecord | None:
    """The begun call at ``place``; ``None`` when this owner ended it before."""
    effect = tables.journal.effects.get(place)
    if effect is not None and effect.state in ("done", "void") and effect.epoch == fence.epoch:
        return None
    if effect is None or effect.state != "started":
        raise InputRefused("invalid", "a call ends that did not begin")
    return effect


def _end_one(tables: Tables, place: Place, item: EffectEnd, effect: EffectRecord) -> None:
    memory_spend.settle(tables, effect, item.used)
    effect.state, effect.failed = "void" if item.void else "done", item.failed
    effect.used, effect.reserved = plus(effect.used, item.used), Amounts()
    effect.ended_at = tables.now()
    tables.journal.open[place[:2]].discard(place)
    message = tables.journal.transcript.get(place)
    effect.response = message.sha256 if message else None


def resume(tables: Tables, tenant: str, fence: Fence) -> Resumed:
    """Conversation and calls of the current generation."""
    task = tables.tasks.get((tenant, fence.task_id))
    if task is None:
        raise NotFound("there is no such task")
    if not holds(tables, task, fence):
        return Resumed(verdict="fenced")
    leave_in_doubt(tables, task)
    return Resumed(
        verdict="ok" if task.stop_requested is None else "cancel",
        messages=memory_messages.conversation(tables, task),
        effects=tuple(
            effect.row(place)
            for place, effect in sorted(tables.journal.effects.items(), key=lambda item: item[0])
            if place[:3] == (tenant, task.task_id, task.generation)
        ),
    )


def escalate(tables: Tables, tenant: str, fence: Fence, reason: str, message: str, partial: str) -> Written:
    """The owner asks a person: lease given up, journal and partial answer kept."""
    task, verdict = _judge(tables, tenant, fence, "escalate")
    gathered = Gathered()
    if verdict == "cancel":
        return stop_task(tables, tenant, fence, partial)
    if verdict == "ok":
        if partial:
            keep_result(tables, task, TaskResult(text=partial), standing="proposed", usage=Usage())
        problem = problem_of("internal_error", message)
        ask_person(tables, gathered, task, problem, data={"reason": reason}, agent_id=task.agent_id)
    return _written(tables, verdict, task, gathered)


def resolve(
    tables: Tables, key: tuple[str, str], at: tuple[int, int], happened: bool, answer: str, actor: str
) -> Written:
    """A person says what became of a call in doubt; with none left an escalated task waits again."""
    task = tables.tasks.get(key)
    doubtful = {place: row for place, row in _doubtful(tables, key).items() if place[3:] == at}
    if task is None or task.owner is not None or not doubtful:
        raise NotFound("there is no such call in doubt")
    place = max(doubtful)
    effect = doubtful[place]
    if happened:
        body = msgspec.json.encode({"role": "tool", "text": answer}).decode()
        message = Message(step=at[0], slot=at[1], body=body)
        memory_messages.keep(tables, task, (message,), generation=place[2])
        effect.response = digest(body.encode())
    effect.state = "done" if happened else "void"
    gathered = Gathered()
    data = {"actor": actor, "tool": effect.name, "happened": happened}
    note_task(tables, gathered, task, "effect.resolved", data=data)
    still = [row for row in _doubtful(tables, key).values() if row.repeat == "unsafe"]
    if task.state is TaskState.ESCALATED and not still:
        task.error = None
        queue_again(tables, gathered, task, "task.resumed", data={})
    return _written(tables, "ok", task, gathered)


def _doubtful(tables: Tables, key: tuple[str, str]) -> dict[Place, EffectRecord]:
    if key in tables.tasks:
        leave_in_doubt(tables, tables.tasks[key])
    return {
        place: row
        for place, row in tables.journal.effects.items()
        if place[:2] == key and row.state == "in_doubt"
    }


def _written(tables: Tables, verdict: str, task: TaskRecord, gathered: Gathered) -> Written:
    return Written(
        verdict=verdict,
        task_state=task.state,
        job_state=job_state(tables, tables.job_of(task)),
        effects=gathered.effects(),
    )
