"""Receipts: the mesh's answer to a submission or a cancellation."""

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class Code(StrEnum):
    """Why a submission was rejected: the one closed list."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    DUPLICATE_KEY = "duplicate_key"
    INVALID = "invalid"
    MISMATCH = "mismatch"
    EXPIRED = "expired"
    CONFLICT = "conflict"
    CAPABILITY_NOT_ALLOWED = "capability_not_allowed"
    REPLY_TOPIC = "reply_topic"
    UNKNOWN_BLOB = "unknown_blob"
    UNKNOWN_AGENT = "unknown_agent"
    UNKNOWN_JOB = "unknown_job"
    PIPELINE_DEPTH_EXCEEDED = "pipeline_depth_exceeded"
    QUOTA = "quota"


NO_LIVE_AGENT = "no_live_agent"
"""Note of an accepted job for whose capability nobody listens yet."""


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The message on ``receipts/{job_id}`` and on the reply topic."""

    job_id: str | None
    verdict: Verdict
    code: str | None = None
    message: str | None = None
    note: str | None = None
    state: str | None = None
