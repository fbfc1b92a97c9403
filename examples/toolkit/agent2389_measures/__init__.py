"""Lengths for agents: one tool, one setting, no dependencies."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from agent2389.tools.port import Effect, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.tool_settings import read_settings

METRES = {"m": 1.0, "km": 1000.0, "cm": 0.01, "in": 0.0254, "ft": 0.3048, "mi": 1609.344}

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "value": {"type": "number"},
        "from": {"enum": sorted(METRES)},
        "to": {"enum": sorted(METRES)},
    },
    "required": ["value", "from", "to"],
    "additionalProperties": False,
}


class MeasuresSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.measures]``: ``digits`` after the decimal point."""

    digits: Annotated[int, msgspec.Meta(ge=0, le=12)] = 3


class MeasuresToolkit:
    """convert_length."""

    name = "measures"

    def __init__(self, settings: ToolSettings) -> None:
        self._settings = settings
        self._form = MeasuresSettings()

    def missing(self) -> str | None:
        """Needs nothing; a reason here makes agents skip the toolkit and say why."""
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in the file: what `agent2389 validate` shows."""
        self._form = read_settings(self._settings.values, MeasuresSettings, where="toolkit_config.measures")

    async def open(self) -> None:
        """Open clients here, once for the life of the agent."""
        self.check()

    async def close(self) -> None:
        """Close them here."""

    def tools(self) -> tuple[Tool, ...]:
        """The one tool. It changes nothing, so the journal may repeat it."""
        return (
            Tool(
                name="convert_length",
                description="Convert a length from one unit to another.",
                parameters=PARAMETERS,
                call=self._convert,
                effect=Effect.PURE,
                timeout=5,
            ),
        )

    async def _convert(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        """The arguments fit ``PARAMETERS``: the agent checked them before calling."""
        metres = arguments["value"] * METRES[arguments["from"]]
        length = round(metres / METRES[arguments["to"]], self._form.digits)
        return ToolOutput(text=f"{length} {arguments['to']}", data={"length": length})
