"""The error tree: every failure that one room reports to another.

::

    Agent2389Error                       exit code
    ├── ConfigurationError               3    you configured it wrong: every problem at once
    │   └── MissingExtra                 3    an optional dependency is not installed; names the extra
    ├── InputRefused                     3    what somebody sent is not acceptable; carries a receipt code
    ├── NotAllowed                       4    the login or the broker's ACL refuses
    ├── NotFound                         5    no such job, agent, blob
    ├── Conflict                         6    locked, taken, already decided
    ├── Unreachable                      9    broker, ledger or API does not answer; retry later
    ├── RunFailed                        7    one attempt failed; knows its protocol code and whether to retry
    │   ├── ModelFailed                       the model endpoint failed or answered nonsense
    │   ├── ToolFailed                        a tool failed in a way that ends the attempt
    │   ├── BudgetExceeded                    a limit in calls, tokens, seconds or money
    │   └── TooDeep                           the pipeline is nested deeper than the protocol allows
    └── Signal                                not a failure: the attempt ends for a reason outside it
        ├── CancelRequested                   the producer or an operator cancelled the job
        ├── LeaseLost                         somebody else may own the task now: write nothing more
        ├── ApprovalNeeded                    a person has to allow calls first: wait with the journal
        ├── InDoubt                           a call may have happened before a crash: a person decides
        └── DrainRequested                    the process is stopping: release the task with its progress

Every message says what is wrong; ``hint`` says the next step.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class ProtocolCode(StrEnum):
    """Error codes of the 2389 protocol (its memo, section on error messages)."""

    TOOL_EXECUTION_FAILED = "tool_execution_failed"
    LLM_ERROR = "llm_error"
    INVALID_INPUT = "invalid_input"
    PIPELINE_DEPTH_EXCEEDED = "pipeline_depth_exceeded"
    INTERNAL_ERROR = "internal_error"


class Agent2389Error(Exception):
    """Root of everything this package raises on purpose.

    ``hint`` is one sentence that says the next step; ``exit_code`` is what the
    command line returns when this error ends it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(Agent2389Error):
    """The configuration is wrong; ``problems`` holds one line for each mistake."""

    exit_code = 3

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class MissingExtra(ConfigurationError):
    """An optional dependency is needed and not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the optional dependencies '{extra}'",
            hint=f"install them: pip install 'agent2389[{extra}]'",
        )
        self.extra = extra


class InputRefused(Agent2389Error):
    """A message from outside is not acceptable; ``code`` is a receipt code of ``wire.receipts``."""

    exit_code = 3

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NotAllowed(Agent2389Error):
    """The caller's identity does not carry the right."""

    exit_code = 4


class NotFound(Agent2389Error):
    """The named thing does not exist, for this tenant at least."""

    exit_code = 5


class Conflict(Agent2389Error):
    """Something else holds or decided it first."""

    exit_code = 6


class Unreachable(Agent2389Error):
    """``what`` (broker, ledger, API, model endpoint) does not answer; the same call may work later."""

    exit_code = 9

    def __init__(self, what: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.what = what


class RunFailed(Agent2389Error):
    """One attempt of one task failed.

    ``code`` goes to the conversation topic and the ledger, ``retryable`` decides
    whether the ledger queues another attempt.
    """

    exit_code = 7
    code = ProtocolCode.INTERNAL_ERROR
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        code: ProtocolCode | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code or type(self).code
        self.retryable = type(self).retryable if retryable is None else retryable


class ModelFailed(RunFailed):
    """The model endpoint failed.

    ``retry_after`` is its own wish in seconds, if it named one; ``status`` the HTTP status, if there was one.
    """

    code = ProtocolCode.LLM_ERROR

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        retry_after: float | None = None,
        status: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, hint=hint)
        self.retry_after = retry_after
        self.status = status


class ToolFailed(RunFailed):
    """A tool cannot do its work at all (a failed call is data for the model, not this error)."""

    code = ProtocolCode.TOOL_EXECUTION_FAILED


class BudgetExceeded(RunFailed):
    """A limit of the task, job, agent or tenant is used up; ``partial`` keeps what was answered so far.

    ``unit`` says what is used up when the ledger refused: ``cost_usd``, ``tokens``, ….
    """

    code = ProtocolCode.LLM_ERROR
    retryable = False

    def __init__(
        self, message: str, *, partial: str = "", unit: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial
        self.unit = unit


class TooDeep(RunFailed):
    """FR-013: more nested ``next`` objects than the limit."""

    code = ProtocolCode.PIPELINE_DEPTH_EXCEEDED
    retryable = False


class Signal(Agent2389Error):
    """An attempt ends for a reason outside itself; nothing failed."""


class CancelRequested(Signal):
    """Stop, tell the ledger ``stopped``, keep the partial answer."""


class LeaseLost(Signal):
    """Stop and write nothing: the fence would refuse it anyway."""


class ApprovalNeeded(Signal):
    """Calls stand still until a person decided about ``requests`` (``ledger.records.ApprovalRequest``)."""

    def __init__(self, requests: Sequence[Any]) -> None:
        super().__init__(f"{len(requests)} calls need a person's approval")
        self.requests = tuple(requests)


class InDoubt(Signal):
    """Whether a call happened is not known and it must not happen twice: escalate."""


class DrainRequested(Signal):
    """Stop and release the task with its progress; the attempt is not burnt."""
