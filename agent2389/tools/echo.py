"""The smallest toolkit: gives back what it gets."""

from collections.abc import Mapping
from typing import Any

from agent2389.tools.port import TaskScope, Tool, ToolOutput


class EchoToolkit:
    """For trying out tool calls."""

    name = "echo"

    def missing(self) -> str | None:
        """Needs nothing."""
        return None

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def tools(self) -> tuple[Tool, ...]:
        """``echo(text)``."""
        return (
            Tool(
                name="echo",
                description="Give back the text unchanged.",
                parameters={
                    "type": "object",
                    "properties": {"text": {"type": "string", "description": "what to give back"}},
                    "required": ["text"],
                    "additionalProperties": False,
                },
                call=_echo,
            ),
        )


async def _echo(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG001
    return ToolOutput(text=arguments["text"])
