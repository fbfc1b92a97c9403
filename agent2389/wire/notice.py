"""What a receiver of notifications gets: body, headers and signature after Standard Webhooks.

Source: https://github.com/standard-webhooks/standard-webhooks, its specification 1.0.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any

import msgspec

EVENTS = (
    "job.accepted",
    "job.cancel_requested",
    "job.cancelled",
    "job.completed",
    "job.escalation_requested",
    "job.expired",
    "job.failed",
    "task.accept_by_person",
    "task.answer_by_person",
    "task.assigned",
    "task.cancel_by_person",
    "task.cancelled",
    "task.claimed",
    "task.completed",
    "task.dead",
    "task.escalated",
    "task.expired",
    "task.fenced",
    "task.forwarded",
    "task.joined",
    "task.lease_expired",
    "task.not_acknowledged",
    "task.queued",
    "task.refused",
    "task.released",
    "task.resumed",
    "task.retry",
    "task.retry_by_person",
    "task.verified",
    "task.waiting",
    "approval.approved",
    "approval.rejected",
    "effect.resolved",
)
"""Every type of event that the ledger writes."""

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
SHORTEST_KEY = 24
"""Bytes; the specification asks for 24 to 64."""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as a receiver reads it; ``number`` is its place in the sealed order, ``at`` RFC 3339."""

    type: str
    at: str
    tenant: str
    job_id: str
    number: int
    data: dict[str, Any]
    mesh_id: str | None = None
    task_id: str | None = None
    agent_id: str | None = None


def notice_id(notice: Notice) -> str:
    """The same for every try, and another one for an event that took the same number after a restore."""
    parts = (notice.mesh_id, notice.tenant, notice.number, notice.type, notice.at, notice.job_id)
    return f"evt_{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]}"


def signing_key(secret: str) -> bytes:
    """The bytes to sign with: base64 after ``whsec_``, else the text itself.

    Raises ``ValueError`` when the secret is too short or is not base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(f"what follows {SECRET_PREFIX} is not base64") from None
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"it has {len(key)} bytes, fewer than {SHORTEST_KEY}")
    return key


def signed_headers(key: bytes, identity: str, moment: int, body: bytes) -> dict[str, str]:
    """The three headers of one try; ``moment`` in seconds of the epoch."""
    signed = hmac.new(key, f"{identity}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
