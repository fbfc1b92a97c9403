"""What a toolkit is and what the agent's loop may ask of it."""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from agent2389.ledger.records import Fence


class Effect(StrEnum):
    """What repeating a call may do: nothing, the same again, the same again for its key, harm."""

    PURE = "pure"
    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    UNSAFE = "unsafe"


class TaskScope(msgspec.Struct, frozen=True, kw_only=True):
    """The task on whose behalf a tool runs; ``workspace`` is its private scratch directory.

    ``fence`` is what a write into the ledger presents.
    """

    job_id: str
    task_id: str
    tenant: str
    workspace: Path
    idempotency_key: str = ""
    fence: Fence | None = None


class ToolOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What goes back to the model. ``failed`` outputs are data too: the model may try otherwise."""

    text: str
    data: Any = None
    failed: bool = False
    changed_files: bool = False
    untrusted: bool = False
    """The text holds content from outside (a page, a document, a server's answer): data, never orders."""


Call = Callable[[Mapping[str, Any], TaskScope], Awaitable[ToolOutput]]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an agent may do.

    ``parameters`` is a JSON Schema object against which arguments are checked before
    ``call``; ``timeout`` in seconds; ``output_cap`` in characters. ``effect_of`` tells the effect of
    a call by its arguments where calls differ. ``acts_outside``: it changes or tells something beyond
    the task's workspace though it may be repeated. ``address`` names the argument that says where a
    call goes; ``finds_addresses``: its outputs name addresses that may be followed.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    call: Call
    effect: Effect = Effect.PURE
    effect_of: Callable[[Mapping[str, Any]], Effect] | None = None
    acts_outside: bool = False
    address: str | None = None
    finds_addresses: bool = False
    timeout: float = 60.0
    output_cap: int = 20_000

    def effect_with(self, arguments: Mapping[str, Any]) -> Effect:
        """The effect of a call with ``arguments``."""
        return self.effect if self.effect_of is None else self.effect_of(arguments)


class ToolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent's file says about one toolkit.

    ``values`` is ``[toolkit_config.NAME]`` with the ``config`` of its ``[tools]`` entries over it;
    ``implementations`` and ``api_keys`` are the entries' ``impl`` and resolved key by tool name;
    ``proxy`` is ``[network] proxy``.
    """

    values: Mapping[str, Any] = {}
    implementations: Mapping[str, str] = {}
    api_keys: Mapping[str, str] = {}
    proxy: str | None = None


class Toolkit(Protocol):
    """A coherent bundle of tools.

    One with settings may also have ``check()``: raise ``ConfigurationError`` for mistakes in the file
    and look at nothing else, so that ``agent2389 validate`` can tell them.
    """

    @property
    def name(self) -> str:
        """The toolkit's name in configuration files."""
        ...

    def missing(self) -> str | None:
        """Why the toolkit cannot work here (a variable, an extra, a program), or ``None``."""
        ...

    async def open(self) -> None:
        """Initialise once; raises ``ToolFailed`` or ``ConfigurationError``."""
        ...

    def tools(self) -> tuple[Tool, ...]:
        """The tools, after ``open``."""
        ...

    async def close(self) -> None:
        """Give back what ``open`` took."""
        ...


@runtime_checkable
class Partial(Protocol):
    """A toolkit that may open with only some of its tools."""

    def left_out(self) -> Mapping[str, str]:
        """Tool name → why it is not offered; after ``open``."""
        ...


class OpenItem(msgspec.Struct, frozen=True):
    """Something that a task's agent planned and has not shown to be done."""

    phase: str
    number: int
    text: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent's loop may know of a task's plan.

    ``tracked`` is false where no toolkit keeps one: nothing is open then, and no ``job_complete`` will
    come. ``phase`` is the one that is worked on, empty while the agent plans; ``completed`` is the
    summary of ``job_complete``.
    """

    tracked: bool = False
    phase: str = ""
    open_items: tuple[OpenItem, ...] = ()
    completed: str | None = None


@runtime_checkable
class Tracking(Protocol):
    """A toolkit that keeps the plan of a task."""

    async def progress(self, scope: TaskScope) -> Progress:
        """Where the task stands. Raises ``ToolFailed`` when that cannot be read."""
        ...
