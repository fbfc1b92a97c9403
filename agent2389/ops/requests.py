"""What people send to the API, as structs: read strictly, and shown by the OpenAPI document."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.insight.bodies import body_bytes
from agent2389.ledger.records import NextTask
from agent2389.wire.limits import read_json
from agent2389.wire.names import is_capability, is_identifier
from agent2389.wire.receipts import Code

MAX_ACTOR = 64
DECISIONS = {"approve": "approved", "approved": "approved", "reject": "rejected", "rejected": "rejected"}

Reason = Annotated[str, msgspec.Meta(max_length=500)]
Body = TypeVar("Body", bound="ByPerson")


class ByPerson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who acts, for the record; what the caller may do, its token decides."""

    actor: Annotated[str, msgspec.Meta(max_length=MAX_ACTOR)] | None = None


class Retry(ByPerson, frozen=True):
    """``words`` guide the next attempt of a job that waits for a person."""

    words: str | None = None


class Cancel(ByPerson, frozen=True):
    """The job ends without a result."""


class Clone(ByPerson, frozen=True):
    """An ended job again as a new one."""


class Escalate(ByPerson, frozen=True):
    """Every open task, or the one with ``task_id``, goes to a person."""

    task_id: str | None = None
    reason: Reason | None = None


class Override(ByPerson, frozen=True):
    """``text`` is the result."""

    text: Annotated[str, msgspec.Meta(min_length=1)]


class Resolve(ByPerson, frozen=True):
    """What became of the call ``call`` of ``step`` in doubt, and what it answered if it ``happened``."""

    task_id: str
    step: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    call: Annotated[int, msgspec.Meta(ge=0, le=32767)]
    happened: bool
    answer: Annotated[str, msgspec.Meta(max_length=100_000)] = "done"


class SetLimit(ByPerson, frozen=True):
    """The most of ``unit`` that the tenant may use in a ``period`` (UTC); ``None``: no limit."""

    period: Literal["day", "month", "all"]
    unit: Literal["cost_usd", "tokens", "tool_calls", "seconds"]
    limit: Annotated[float, msgspec.Meta(ge=0, le=1e15)] | None


class Onward(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who goes on after a decision: a ``capability`` or an ``agent``, one of them."""

    capability: str | None = None
    agent: str | None = None
    instruction: str | None = None
    input: Any = None

    def as_task(self) -> NextTask:
        """The next task. Raises ``InputRefused``."""
        if (self.capability is None) == (self.agent is None):
            raise InputRefused(Code.INVALID, "next names a capability or an agent, one of them")
        named = is_identifier(self.agent or "") if self.capability is None else is_capability(self.capability)
        if not named:
            raise InputRefused(Code.INVALID, "next names something that is no capability and no agent id")
        return NextTask(
            capability=self.capability,
            agent=self.agent,
            instruction=self.instruction,
            input=self.input,
            reason="a person decided",
        )


class Decide(ByPerson, frozen=True):
    """A decision about a task that waits: ``words`` guide a retry or are the answer; ``next`` hands on."""

    action: Literal["retry", "accept", "answer", "cancel"]
    task_id: str | None = None
    words: str | None = None
    next: Onward | None = None


class DecideApproval(ByPerson, frozen=True):
    """A decision about exactly the arguments with this hash (which ``If-Match`` may carry instead)."""

    decision: Literal["approve", "approved", "reject", "rejected"]
    arguments_sha256: str | None = None
    reason: Reason = ""


class Command(ByPerson, frozen=True):
    """Without ``incarnation`` every process of the agent id is meant."""

    incarnation: str | None = None


class Assign(ByPerson, frozen=True):
    """Who shall do it: an ``incarnation``, or the process of ``agent`` with the most free slots."""

    incarnation: str | None = None
    agent: str | None = None


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """The body as ``kind``; an absent one is an empty object. Raises ``InputRefused``."""
    payload = await body_bytes(request)
    document = read_json(payload) if payload else {}
    if not isinstance(document, dict):
        raise InputRefused(Code.INVALID, "send a JSON object")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InputRefused(Code.INVALID, str(error)) from None


def actor_of(request: web.Request, body: ByPerson) -> str:
    """Who acts: of the body, else the header ``X-Actor``, else ``api``. Raises ``InputRefused``."""
    actor = body.actor or request.headers.get("X-Actor") or "api"
    if len(actor) > MAX_ACTOR or not actor.isprintable():
        raise InputRefused(Code.INVALID, f"actor must be at most {MAX_ACTOR} printable characters")
    return actor


def wanted_tags(request: web.Request) -> frozenset[str] | None:
    """The entity tags of ``If-Match``; ``None`` without the header. A weak one never matches (RFC 9110)."""
    header = request.headers.get("If-Match")
    if header is None:
        return None
    return frozenset(part.strip().strip('"') for part in header.split(","))
