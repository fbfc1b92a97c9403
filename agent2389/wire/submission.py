"""Job submissions: reading what producers send, filling in what the topic says."""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from agent2389.errors import InputRefused
from agent2389.wire.canonical import content_hash
from agent2389.wire.limits import check_size, read_json
from agent2389.wire.names import derived_uuid, is_capability, is_identifier, is_sha256
from agent2389.wire.receipts import Code
from agent2389.wire.route import check_route
from agent2389.wire.topics import JobTopic

DEFAULT_CAPABILITY: Final = "general"
MAX_FUTURE_DAYS: Final = 366
STRATEGIES: Final = ("none", "fixed", "rules", "llm", "gatekeeper", "hybrid")


class FileIn(msgspec.Struct, frozen=True):
    """A file of a submission: inline content or the hash of an uploaded blob."""

    name: str
    media_type: str = "application/octet-stream"
    content_base64: str | None = None
    sha256: str | None = None


class BudgetIn(msgspec.Struct, frozen=True):
    """Limits a producer asks for; the effective budget is the minimum of job, agent and tenant."""

    cost_usd: float | None = None
    tokens: int | None = None
    tool_calls: int | None = None
    seconds: float | None = None


class RoutingIn(msgspec.Struct, frozen=True):
    """How the job wants to be routed; ``strategy`` is one of ``STRATEGIES``."""

    strategy: str | None = None
    max_hops: int | None = None


class LlmIn(msgspec.Struct, frozen=True):
    """Which of the agent's listed endpoints to use; never a URL."""

    endpoint: str | None = None
    provider: str | None = None
    model: str | None = None


class ToolkitsIn(msgspec.Struct, frozen=True):
    """Toolkits to add or remove within what the agent allows."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A submission as typed data; unknown fields stay in ``Received.document``."""

    instruction: str | None = None
    input: Any = None
    job_id: str | None = None
    capability: str | None = None
    agent: str | None = None
    files: tuple[FileIn, ...] = ()
    profile: str | None = None
    config_name: str | None = None
    priority: int = 5
    not_before: str | None = None
    deadline: str | None = None
    budget: BudgetIn = BudgetIn()
    routing: RoutingIn = RoutingIn()
    llm: LlmIn = LlmIn()
    toolkits: ToolkitsIn = ToolkitsIn()
    config_override: dict[str, Any] | None = None
    next: Any = None
    workflow: Any = None
    tags: tuple[str, ...] | dict[str, str] = ()
    conversation_id: str | None = None
    reply_to: str | None = None
    traceparent: str | None = None


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A submission that passed: typed, with the document as received and its content hash.

    ``bare`` is true for the one-line topic without a job id of its own.
    """

    submission: Submission
    document: dict[str, Any]
    content_hash: str
    capability: str | None
    job_id: str | None
    bare: bool
    not_before: datetime | None
    deadline: datetime | None


def parse_time(text: str, field: str) -> datetime:
    """Read RFC 3339; a zone is required. Raises ``InputRefused(invalid)``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputRefused(Code.INVALID, f"{field} is not an RFC 3339 time: {text[:40]!r}") from None
    if moment.tzinfo is None:
        raise InputRefused(Code.INVALID, f"{field} has no time zone; write it with Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InputRefused(Code.INVALID, f"{field} is out of range") from None


def file_content(file: FileIn) -> tuple[bytes | None, str]:
    """Inline bytes (or ``None`` for a reference) and the SHA-256. Raises ``InputRefused``."""
    if (file.content_base64 is None) == (file.sha256 is None):
        raise InputRefused(Code.INVALID, f"file {file.name[:64]!r} needs either content_base64 or sha256")
    if file.sha256 is not None:
        if not is_sha256(file.sha256):
            raise InputRefused(Code.INVALID, f"file {file.name[:64]!r}: sha256 is not 64 hexadecimal digits")
        return None, file.sha256
    try:
        content = base64.b64decode(file.content_base64 or "", validate=True)
    except binascii.Error:
        raise InputRefused(Code.INVALID, f"file {file.name[:64]!r}: content_base64 is not base64") from None
    return content, hashlib.sha256(content).hexdigest()


def read_document(payload: bytes, *, plain_text: bool) -> dict[str, Any]:
    """The JSON object in ``payload``; with ``plain_text`` anything else is taken as the instruction."""
    looks_like_json = payload.lstrip()[:1] in (b"{", b"[")
    if plain_text and not looks_like_json:
        try:
            text = payload.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputRefused(Code.MALFORMED, f"not UTF-8 at byte {error.start}") from None
        if not text or "\x00" in text:
            raise InputRefused(Code.MALFORMED, "the instruction is empty or contains U+0000")
        return {"instruction": text}
    document = read_json(payload)
    if not isinstance(document, dict):
        raise InputRefused(Code.INVALID, "a submission is a JSON object")
    return document


def read_submission(payload: bytes, topic: JobTopic | None = None, *, retained: bool = False) -> Received:
    """Read a submission from an intake topic, or from HTTP when ``topic`` is ``None``.

    Raises ``InputRefused`` with the receipt code, naming field and reason.
    """
    bare = topic is not None and topic.job_id is None
    check_size(payload)
    document = read_document(payload, plain_text=bare)
    try:
        submission = msgspec.convert(document, Submission)
    except msgspec.ValidationError as error:
        raise InputRefused(Code.INVALID, str(error)) from None
    job_id = _agreed("job_id", submission.job_id, topic.job_id if topic else None)
    capability = _capability(submission, topic)
    _check_fields(submission)
    hashed = {key: value for key, value in document.items() if key != "traceparent"}
    if capability is not None:
        hashed["capability"] = capability
    if job_id is not None:
        hashed["job_id"] = job_id
    digest = content_hash(hashed)
    if job_id is None and bare and retained and topic is not None:
        job_id = derived_uuid("bare", topic.capability, digest)
    return Received(
        submission=submission,
        document=document,
        content_hash=digest,
        capability=capability,
        job_id=job_id,
        bare=bare,
        not_before=parse_time(submission.not_before, "not_before") if submission.not_before else None,
        deadline=parse_time(submission.deadline, "deadline") if submission.deadline else None,
    )


def _agreed(field: str, said: str | None, topic: str | None) -> str | None:
    if said is not None and not is_identifier(said):
        raise InputRefused(Code.INVALID, f"{field} must match [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
    if said is not None and topic is not None and said != topic:
        raise InputRefused(Code.MISMATCH, f"{field} is {said!r} in the message and {topic!r} in the topic")
    return said or topic


def _capability(submission: Submission, topic: JobTopic | None) -> str | None:
    said = submission.capability.lower() if submission.capability is not None else None
    if said is not None and not is_capability(said):
        raise InputRefused(Code.INVALID, "capability must match [a-z0-9][a-z0-9_-]{0,63}")
    if said is not None and topic is not None and said != topic.capability:
        raise InputRefused(
            Code.MISMATCH, f"capability is {said!r} in the message and {topic.capability!r} in the topic"
        )
    if submission.agent is not None:
        if not is_identifier(submission.agent):
            raise InputRefused(Code.INVALID, "agent must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}")
        if said is not None:
            raise InputRefused(Code.INVALID, "name either an agent or a capability, not both")
        return None
    return said or (topic.capability if topic else DEFAULT_CAPABILITY)


def _check_fields(submission: Submission) -> None:
    if submission.instruction is not None and not submission.instruction.strip():
        raise InputRefused(Code.INVALID, "instruction is empty")
    if submission.instruction is None and submission.input is None:
        raise InputRefused(Code.INVALID, "a submission needs an instruction or an input")
    if not 0 <= submission.priority <= 9:
        raise InputRefused(Code.INVALID, "priority must be between 0 and 9 (9 is most urgent)")
    budget = submission.budget
    for name in ("cost_usd", "tokens", "tool_calls", "seconds"):
        value = getattr(budget, name)
        if value is not None and value < 0:
            raise InputRefused(Code.INVALID, f"budget.{name} is negative")
    strategy = submission.routing.strategy
    if strategy is not None and strategy not in STRATEGIES:
        raise InputRefused(Code.INVALID, f"routing.strategy must be one of {', '.join(STRATEGIES)}")
    hops = submission.routing.max_hops
    if hops is not None and not 1 <= hops <= 64:
        raise InputRefused(Code.INVALID, "routing.max_hops must be between 1 and 64")
    if submission.conversation_id is not None and not is_identifier(submission.conversation_id):
        raise InputRefused(Code.INVALID, "conversation_id must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    endpoint = submission.llm.endpoint
    if endpoint is not None and not is_identifier(endpoint):
        raise InputRefused(
            Code.INVALID, "llm.endpoint is the name of an endpoint that the agent lists, never a URL"
        )
    check_route(submission.next)
