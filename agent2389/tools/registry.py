"""From the names in a configuration to open tools, and the one way to call them."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jsonschema_rs
import structlog

from agent2389.config.model import AgentConfiguration
from agent2389.errors import Agent2389Error, InputRefused
from agent2389.llm.messages import ToolSpec
from agent2389.tools.document import DocumentToolkit
from agent2389.tools.echo import EchoToolkit
from agent2389.tools.port import Effect, TaskScope, Tool, Toolkit, ToolOutput
from agent2389.tools.workspace import WorkspaceToolkit
from agent2389.wire.limits import read_json

TOOLKITS: Mapping[str, Callable[[], Toolkit]] = {
    "workspace": WorkspaceToolkit,
    "document": DocumentToolkit,
    "echo": EchoToolkit,
}
BUILTIN_TOOLS: Mapping[str, tuple[str, str]] = {
    "file_read": ("workspace", "read_file"),
    "file_write": ("workspace", "write_file"),
}
"""The reference implementation's names → toolkit and tool."""

log = structlog.get_logger(__name__)


def is_known_tool(name: str) -> bool:
    """Whether an entry of ``[tools]`` names something this version can do."""
    if name in BUILTIN_TOOLS or name in TOOLKITS:
        return True
    return any(name == tool.name for make in TOOLKITS.values() for tool in make().tools())


class ToolSet:
    """The tools of one agent.

    ``toolkits`` are optional: what is missing is in ``skipped`` with the reason. Entries of
    ``[tools]`` are required: what fails is in ``unavailable`` and keeps the agent not ready.
    """

    def __init__(self, configuration: AgentConfiguration) -> None:
        self._wanted = dict.fromkeys(configuration.toolkits)
        self._entries = configuration.tools
        self._open: dict[str, Toolkit] = {}
        self._tools: dict[str, tuple[str, Tool]] = {}
        self._validators: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        self.unavailable: dict[str, str] = {}

    async def open(self) -> None:
        """Initialise every toolkit once (FR-009). Never raises; reasons are kept."""
        for name in self._wanted:
            reason = await self._open_toolkit(name)
            if reason is not None:
                self.skipped[name] = reason
                log.warning("toolkit skipped", toolkit=name, reason=reason)
            else:
                for tool in self._open[name].tools():
                    self._add(name, tool)
        for entry in self._entries:
            reason = await self._open_entry(entry.name)
            if reason is not None:
                self.unavailable[entry.name] = reason
                log.error("required tool not available", tool=entry.name, reason=reason)

    async def close(self) -> None:
        """Close what was opened."""
        for toolkit in self._open.values():
            with contextlib.suppress(Agent2389Error):
                await toolkit.close()

    def specs(self, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> tuple[ToolSpec, ...]:
        """What the model may call. A job removes toolkits, and adds only what the agent has anyway."""
        hidden = set(remove) - set(add)
        return tuple(
            ToolSpec(name, tool.description, tool.parameters)
            for name, (toolkit, tool) in self._tools.items()
            if toolkit not in hidden
        )

    def effect_of(self, name: str, allowed: Collection[str]) -> Effect:
        """What repeating a call of ``name`` may do; a call that is refused anyway does nothing."""
        known = name in self._tools and name in allowed
        return self._tools[name][1].effect if known else Effect.PURE

    async def call(
        self, name: str, arguments: str, scope: TaskScope, *, allowed: Collection[str] | None = None
    ) -> ToolOutput:
        """Check and run one call. Every failure is an output for the model; nothing is raised.

        ``allowed`` are the names shown to the model (``specs``); a tool that a job removed
        must not run because a model guesses its name. ``None`` allows all.
        """
        if name not in self._tools or (allowed is not None and name not in allowed):
            return ToolOutput(text=f"there is no tool named {name[:64]!r}", failed=True)
        _, tool = self._tools[name]
        try:
            values = read_json(arguments.encode("utf-8", "surrogatepass") or b"{}")
        except InputRefused as refused:
            return ToolOutput(text=f"the arguments are refused: {refused}", failed=True)
        problem = next(iter(self._validators[name].iter_errors(values)), None)
        if problem is not None:
            where = ".".join(str(part) for part in problem.instance_path) or "arguments"
            return ToolOutput(text=f"{where}: {str(problem.message)[:300]}", failed=True)
        try:
            async with asyncio.timeout(tool.timeout):
                output = await tool.call(values, scope)
        except TimeoutError:
            return ToolOutput(text=f"{name} took longer than {tool.timeout:g} seconds", failed=True)
        except Agent2389Error as error:
            return ToolOutput(text=f"{name} failed: {error}", failed=True)
        except Exception:
            log.exception("tool failed unexpectedly", tool=name)
            return ToolOutput(text=f"{name} failed for an internal reason", failed=True)
        return _capped(output, tool.output_cap)

    async def _open_toolkit(self, name: str) -> str | None:
        if name in self._open:
            return None
        make = TOOLKITS.get(name)
        if make is None:
            return "this version has no such toolkit"
        toolkit = make()
        if (missing := toolkit.missing()) is not None:
            return missing
        try:
            await toolkit.open()
        except Agent2389Error as error:
            return str(error)
        except Exception as error:
            # Its text may show a path or a secret of this machine: only the log gets it.
            log.exception("toolkit failed to open", toolkit=name)
            return f"it failed to open: {type(error).__name__}"
        self._open[name] = toolkit
        return None

    async def _open_entry(self, name: str) -> str | None:
        toolkit, wanted = BUILTIN_TOOLS.get(name, (_toolkit_of(name), name))
        if toolkit is None:
            return "this version has no such tool"
        reason = await self._open_toolkit(toolkit)
        if reason is not None:
            return reason
        for tool in self._open[toolkit].tools():
            if wanted in (tool.name, toolkit):
                self._add(toolkit, tool, name=name if wanted == tool.name else tool.name)
        return None

    def _add(self, toolkit: str, tool: Tool, *, name: str | None = None) -> None:
        name = name or tool.name
        self._tools[name] = (toolkit, tool)
        self._validators[name] = jsonschema_rs.validator_for(tool.parameters)


def _toolkit_of(tool: str) -> str | None:
    if tool in TOOLKITS:
        return tool
    return next(
        (name for name, make in TOOLKITS.items() if any(item.name == tool for item in make().tools())), None
    )


def _capped(output: ToolOutput, cap: int) -> ToolOutput:
    if len(output.text) <= cap:
        return output
    text = output.text[:cap] + f"\n[cut: {len(output.text) - cap} more characters]"
    return ToolOutput(text=text, data=output.data, failed=output.failed, changed_files=output.changed_files)
