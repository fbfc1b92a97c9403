"""What the toolkits on a job's dossier share: the ledger may be absent, and its refusals are answers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from agent2389.errors import InputRefused, NotFound, ToolFailed
from agent2389.ledger.dossier import Dossier
from agent2389.ledger.records import Fence
from agent2389.tools.paths import NameRefused
from agent2389.tools.port import Call, Effect, TaskScope, Tool, ToolOutput

Work = Callable[[Dossier, Mapping[str, Any], TaskScope], Awaitable[ToolOutput]]


class DossierToolkit:
    """Opens nothing: the ledger is the agent's own. Without one every call fails with the reason."""

    def __init__(self, dossier: Dossier | None = None) -> None:
        self._dossier = dossier

    def missing(self) -> str | None:
        """Needs nothing but the ledger, which every running agent has."""
        return None

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def tool(
        self,
        name: str,
        description: str,
        work: Work,
        properties: dict[str, Any],
        *,
        required: tuple[str, ...] = (),
        writes: bool = False,
    ) -> Tool:
        """A tool whose writes may be repeated: the dossier keeps equal things once."""
        return Tool(
            name=name,
            description=description,
            parameters={
                "type": "object",
                "properties": properties,
                "required": list(required),
                "additionalProperties": False,
            },
            call=self._call_of(work),
            effect=Effect.IDEMPOTENT if writes else Effect.PURE,
        )

    def _call_of(self, work: Work) -> Call:
        async def call(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
            if self._dossier is None:
                raise ToolFailed("no ledger is open here", retryable=False)
            try:
                return await work(self._dossier, arguments, scope)
            except (InputRefused, NotFound, NameRefused) as refused:
                return ToolOutput(text=f"refused: {refused}", failed=True)

        return call


def fence_of(scope: TaskScope) -> Fence:
    """What a write presents. Raises ``ToolFailed`` outside a task of the ledger."""
    if scope.fence is None:
        raise ToolFailed("no task of the ledger is worked on here", retryable=False)
    return scope.fence


def as_data(rows: Any) -> Any:
    """Records as plain JSON values."""
    return msgspec.to_builtins(rows)
