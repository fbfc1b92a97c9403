"""Turning a checked submission into a job of the ledger, whatever door it came through."""

import hashlib
from typing import Any

from agent2389.errors import InputRefused
from agent2389.ledger.blobs import fits, preview, reference, stored_value
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Budget, FileRef, Json, NewJob, Submitted
from agent2389.tools.paths import NameRefused, parts_of
from agent2389.wire.canonical import content_hash
from agent2389.wire.envelope import Envelope
from agent2389.wire.names import new_uuid7, protocol_job_id
from agent2389.wire.receipts import Code
from agent2389.wire.submission import Received, file_content, read_submission
from agent2389.wire.topics import MeshTopics

RECENT_SECONDS = 60.0
"""A bare topic reuses a job of the same content accepted within this window."""
MAX_FILES = 64


async def accept_document(
    ledger: Ledger, payload: bytes, *, source: str = "http", job_id: str | None = None
) -> Submitted:
    """Submit a JSON document that came without a topic (HTTP, command line).

    Raises ``InputRefused`` with the receipt code.
    """
    received = read_submission(payload)
    return await accept(ledger, received, source=source, job_id=job_id)


async def accept(
    ledger: Ledger,
    received: Received,
    *,
    source: str,
    job_id: str | None = None,
    response_topic: str | None = None,
    correlation: bytes | None = None,
) -> Submitted:
    """Store inline files as blobs and submit. ``job_id`` is used when the document names none.

    Raises ``InputRefused``; the returned effects are the caller's to perform.
    """
    submission = received.submission
    reply_to = submission.reply_to or response_topic
    if reply_to is not None and not _is_reply_topic(reply_to, ledger.tenant):
        raise InputRefused(
            Code.REPLY_TOPIC, f"a reply topic must lie under {MeshTopics(ledger.tenant).replies()}"
        )
    files = await _store_files(ledger, received)
    input_, files = await _input(ledger, submission.input, files)
    named = received.job_id or job_id
    return await ledger.submit(
        NewJob(
            job_id=named or new_uuid7(),
            content_hash=received.content_hash,
            instruction=submission.instruction,
            input=input_,
            capability=received.capability,
            agent=submission.agent,
            priority=submission.priority,
            not_before=received.not_before,
            deadline=received.deadline,
            budget=Budget(
                cost_usd=submission.budget.cost_usd,
                tokens=submission.budget.tokens,
                tool_calls=submission.budget.tool_calls,
                seconds=submission.budget.seconds,
            ),
            max_hops=submission.routing.max_hops or 16,
            submission=_stored_document(received.document, files, input_),
            next=submission.next,
            files=files,
            source=source,
            conversation_id=submission.conversation_id,
            reply_to=reply_to,
            correlation=correlation.hex() if correlation else None,
            traceparent=submission.traceparent,
            recent_seconds=RECENT_SECONDS if received.bare and named is None else 0.0,
        )
    )


async def accept_envelope(ledger: Ledger, envelope: Envelope, agent_id: str) -> Submitted:
    """Submit a task of the 2389 protocol; the same envelope is the same job."""
    document = envelope.document
    context = document.get("context")
    routing_trace = document.get("routing_trace")
    input_, files = await _input(ledger, envelope.input, ())
    return await ledger.submit(
        NewJob(
            job_id=protocol_job_id(ledger.tenant, agent_id, envelope.task_id),
            content_hash=content_hash(document),
            instruction=envelope.instruction,
            input=input_,
            files=files,
            agent=agent_id,
            submission={
                "protocol": "v2" if envelope.version is not None else "v1",
                "context": context if isinstance(context, dict) else None,
                "routing_trace": routing_trace,
            },
            next=envelope.next,
            source="protocol",
            conversation_id=envelope.conversation_id,
            wire_task_id=envelope.task_id,
        )
    )


def _is_reply_topic(topic: str, tenant: str) -> bool:
    prefix = MeshTopics(tenant).replies()
    tail = topic.removeprefix(prefix)
    return topic.startswith(prefix) and 0 < len(tail) <= 256 and not set(tail) & set("+#\x00")


async def _store_files(ledger: Ledger, received: Received) -> tuple[FileRef, ...]:
    files = received.submission.files
    if len(files) > MAX_FILES:
        raise InputRefused(Code.INVALID, f"{len(files)} files are more than {MAX_FILES}")
    stored: list[FileRef] = []
    names: set[str] = set()
    for file in files:
        _check_file_name(file.name, names)
        content, digest = file_content(file)
        if content is None:
            if await ledger.missing_blobs([digest]):
                raise InputRefused(
                    Code.UNKNOWN_BLOB,
                    f"file {file.name[:64]!r}: no blob {digest[:12]}…",
                    hint=f"upload it first: PUT /api/v1/blobs/{digest}",
                )
            content = (await ledger.get_blob(digest)).content
        else:
            digest = await ledger.put_blob(content, file.media_type)
        stored.append(FileRef(digest, len(content), file.media_type, file.name, preview(content)))
    return tuple(stored)


def _check_file_name(name: str, seen: set[str]) -> None:
    """The rules of the workspace in which the files will be laid out, asked before the job is taken."""
    try:
        plain = len(name) <= 255 and "/".join(parts_of(name)) == name
    except NameRefused:
        plain = False
    if not plain:
        raise InputRefused(Code.INVALID, f"the file name {name[:64]!r} is not a plain relative name")
    if name in seen:
        raise InputRefused(Code.INVALID, f"two files are named {name[:64]!r}")
    if folder := next(
        (one for one in seen if one.startswith(f"{name}/") or name.startswith(f"{one}/")), None
    ):
        raise InputRefused(
            Code.INVALID, f"of the files {name[:64]!r} and {folder[:64]!r} one would be the other's folder"
        )
    seen.add(name)


async def _input(ledger: Ledger, value: Json, files: tuple[FileRef, ...]) -> tuple[Json, tuple[FileRef, ...]]:
    """The input as a task carries it: a large one is a file among the job's files."""
    if fits(value):
        return value, files
    file = await stored_value(ledger, value, "input", {known.name: known for known in files})
    more = () if any(known.name == file.name for known in files) else (file,)
    return reference(file), (*files, *more)


def _stored_document(document: dict[str, Any], files: tuple[FileRef, ...], input_: Json) -> dict[str, Any]:
    if not files:
        return document
    if "input" in document:
        document = {**document, "input": input_}
    references = [
        {"name": file.name, "media_type": file.media_type, "sha256": file.sha256, "size": file.size}
        for file in files
    ]
    return {**document, "files": references}


def payload_hash(payload: bytes) -> str:
    """SHA-256 of a refused message, for the evidence row."""
    return hashlib.sha256(payload).hexdigest()
