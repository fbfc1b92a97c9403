"""Messages of the in-memory ledger: bodies once, places in a conversation."""

from collections.abc import Sequence
from datetime import timedelta

from agent2389.ledger.journal import Message, TranscriptEntry
from agent2389.ledger.memory_journal import MessagePlace
from agent2389.ledger.memory_tables import LONG_AGO, Tables, TaskRecord, digest

YOUNG = timedelta(hours=1)


def keep(
    tables: Tables, task: TaskRecord, messages: Sequence[Message], *, generation: int | None = None
) -> None:
    """Store what is new, in the current generation when none is named; a taken place stays as it is."""
    journal = tables.journal
    generation = task.generation if generation is None else generation
    for message in messages:
        sha256 = digest(message.body.encode())
        journal.messages.setdefault((task.tenant, sha256), message.body)
        # One that comes again is young again, so that retention does not take it in the same moment.
        stored_at = journal.stored_at.get((task.tenant, sha256), LONG_AGO)
        if stored_at < tables.now() - YOUNG / 2:
            journal.stored_at[task.tenant, sha256] = tables.now()
        place = (task.tenant, task.task_id, generation, message.step, message.slot)
        journal.transcript.setdefault(place, MessagePlace(message.kind, sha256, task.epoch, tables.now()))


def conversation(tables: Tables, task: TaskRecord) -> tuple[Message, ...]:
    """The messages of the task's current generation, in order."""
    journal = tables.journal
    return tuple(
        Message(step=place[3], slot=place[4], kind=row.kind, body=journal.messages[task.tenant, row.sha256])
        for place, row in sorted(journal.transcript.items(), key=lambda item: item[0])
        if place[:3] == (task.tenant, task.task_id, task.generation)
    )


def transcript(
    tables: Tables, tenant: str, job_id: str, skip: int, limit: int
) -> tuple[TranscriptEntry, ...]:
    """The conversations of a job with their calls, one page."""
    journal = tables.journal
    entries: list[TranscriptEntry] = []
    for task in tables.tasks_of(tenant, job_id):
        places = {
            place for place in (*journal.transcript, *journal.effects) if place[:2] == (tenant, task.task_id)
        }
        for place in sorted(places):
            row, effect = journal.transcript.get(place), journal.effects.get(place)
            moment = row.at if row else effect.started_at if effect else tables.now()
            entries.append(
                TranscriptEntry(
                    job_id=job_id,
                    task_id=task.task_id,
                    hop=task.hop,
                    capability=task.name,
                    generation=place[2],
                    step=place[3],
                    slot=place[4],
                    kind=row.kind if row else "note",
                    at=moment,
                    body=journal.messages[tenant, row.sha256] if row else None,
                    effect=effect.row(place) if effect else None,
                )
            )
    return tuple(entries[skip : skip + limit])


def forget(tables: Tables, limit: int) -> int:
    """Delete messages that no conversation holds any more and that are older than an hour."""
    journal = tables.journal
    held = {(place[0], row.sha256) for place, row in journal.transcript.items()}
    old = tables.now() - YOUNG
    gone = [key for key, at in journal.stored_at.items() if key not in held and at < old][:limit]
    for key in gone:
        del journal.messages[key], journal.stored_at[key]
    return len(gone)
