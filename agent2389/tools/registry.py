"""From the names in a configuration to open tools, and the one way to call them."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jsonschema_rs
import msgspec
import structlog

from agent2389.config.model import AgentConfiguration, ApprovalsSection
from agent2389.errors import Agent2389Error, InputRefused, LeaseLost
from agent2389.ledger.dossier import Dossier
from agent2389.llm.messages import ToolSpec
from agent2389.tools.citation import CitationToolkit
from agent2389.tools.configured import (
    CONFIGURED,
    MCP,
    is_server,
    make_configured,
    optional_servers,
)
from agent2389.tools.document import DocumentToolkit
from agent2389.tools.echo import EchoToolkit
from agent2389.tools.port import (
    Effect,
    Partial,
    Progress,
    TaskScope,
    Tool,
    Toolkit,
    ToolOutput,
    ToolSettings,
    Tracking,
)
from agent2389.tools.requirements import RequirementsToolkit
from agent2389.tools.third_party import check_tools, installed
from agent2389.tools.workspace import WorkspaceToolkit
from agent2389.wire.limits import read_json

TOOLKITS: Mapping[str, Callable[[], Toolkit]] = {
    "workspace": WorkspaceToolkit,
    "document": DocumentToolkit,
    "echo": EchoToolkit,
}
ON_THE_DOSSIER: Mapping[str, Callable[[Dossier | None], Toolkit]] = {
    "citation": CitationToolkit,
    "requirements": RequirementsToolkit,
}
BUILTIN_TOOLS: Mapping[str, tuple[str, str]] = {
    "file_read": ("workspace", "read_file"),
    "file_write": ("workspace", "write_file"),
    "todo_write": ("todo", "next_phase_todos"),
}
"""Other names for a tool → toolkit and tool: the reference implementation's, and what models call it."""

log = structlog.get_logger(__name__)


def is_known_tool(name: str) -> bool:
    """Whether an entry of ``[tools]`` names something this version can do."""
    return name in BUILTIN_TOOLS or _toolkit_of(name) is not None


def is_known_toolkit(name: str) -> bool:
    """Whether ``toolkits`` may name it."""
    own = name in TOOLKITS or name in ON_THE_DOSSIER or name in CONFIGURED or name == MCP
    return own or name in installed()


class ToolSet:
    """The tools of one agent.

    ``toolkits`` are optional: what is missing is in ``skipped`` with the reason. Entries of
    ``[tools]`` are required: what fails is in ``unavailable`` and keeps the agent not ready.
    """

    def __init__(self, configuration: AgentConfiguration, dossier: Dossier | None = None) -> None:
        """``dossier`` is that of the agent's ledger; without one its toolkits answer every call with why."""
        self._configuration = configuration
        self._dossier = dossier
        self._wanted = dict.fromkeys(_expanded(configuration))
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
                self.skipped |= _left_out(self._open[name])
        for entry in self._entries:
            reason = await self._open_entry(f"{MCP}.{entry.name}" if is_server(entry) else entry.name)
            if reason is not None:
                self.unavailable[entry.name] = reason
                log.error("required tool not available", tool=entry.name, reason=reason)

    async def close(self) -> None:
        """Close what was opened."""
        for toolkit in self._open.values():
            with contextlib.suppress(Agent2389Error):
                await toolkit.close()

    def specs(
        self,
        *,
        only: tuple[str, ...] | None = None,
        add: tuple[str, ...] = (),
        remove: tuple[str, ...] = (),
    ) -> tuple[ToolSpec, ...]:
        """What the model may call. A job removes toolkits, and adds only what the agent has anyway."""
        unnamed = () if only is None else {name.partition(".")[0] for name in self._open} - set(only)
        hidden = {*remove, *unnamed} - set(add)
        return tuple(
            ToolSpec(name, tool.description, tool.parameters)
            for name, (toolkit, tool) in self._tools.items()
            if not {toolkit, toolkit.partition(".")[0]} & hidden
        )

    def offered(self) -> list[tuple[str, str, Tool]]:
        """Name shown to the model, toolkit and tool of everything that is open."""
        return [(name, toolkit, tool) for name, (toolkit, tool) in self._tools.items()]

    def unknown(self, section: ApprovalsSection) -> list[str]:
        """Names in ``[approvals]`` that no open tool has: a slip there would guard nothing."""
        return sorted({*section.always, *section.never} - self._tools.keys())

    def tool(self, name: str, allowed: Collection[str] | None = None) -> Tool | None:
        """The tool that a call of ``name`` would run."""
        if name not in self._tools or (allowed is not None and name not in allowed):
            return None
        return self._tools[name][1]

    def arguments(self, name: str, arguments: str) -> dict[str, Any] | None:
        """The arguments as the tool would get them, or ``None`` for what would be refused."""
        try:
            return self._checked(name, arguments) if name in self._tools else None
        except InputRefused:
            return None

    def effect_of(self, name: str, arguments: str, allowed: Collection[str]) -> Effect:
        """What repeating a call may do; a call that is refused anyway does nothing."""
        tool = self.tool(name, allowed)
        values = self.arguments(name, arguments) if tool is not None else None
        return Effect.PURE if tool is None or values is None else tool.effect_with(values)

    async def progress(self, scope: TaskScope, *, allowed: Collection[str] | None = None) -> Progress:
        """What is planned and still open in the task of ``scope``; nothing where no toolkit keeps a plan.

        ``allowed`` as in ``call``: a plan whose tools the job removed binds nobody. Raises ``ToolFailed``.
        """
        for name, toolkit in self._open.items():
            offered = {shown for shown, (owner, _) in self._tools.items() if owner == name}
            if isinstance(toolkit, Tracking) and (offered if allowed is None else offered & set(allowed)):
                return await toolkit.progress(scope)
        return Progress()

    def keeps_plan(self, name: str) -> bool:
        """Whether the tool belongs to the toolkit that keeps the plan."""
        return name in self._tools and isinstance(self._open[self._tools[name][0]], Tracking)

    async def call(
        self, name: str, arguments: str, scope: TaskScope, *, allowed: Collection[str] | None = None
    ) -> ToolOutput:
        """Check and run one call. Every failure is an output for the model.

        ``allowed`` are the names shown to the model (``specs``); a tool that a job removed
        must not run because a model guesses its name. ``None`` allows all. Raises ``LeaseLost``: whoever
        does not own the task any more goes no further.
        """
        tool = self.tool(name, allowed)
        if tool is None:
            return ToolOutput(text=f"there is no tool named {name[:64]!r}", failed=True)
        try:
            values = self._checked(name, arguments)
        except InputRefused as refused:
            return ToolOutput(text=f"the arguments are refused: {refused}", failed=True)
        try:
            async with asyncio.timeout(tool.timeout):
                output = await tool.call(values, scope)
        except TimeoutError:
            return ToolOutput(text=f"{name} took longer than {tool.timeout:g} seconds", failed=True)
        except LeaseLost:
            raise
        except Agent2389Error as error:
            # A server's own words about what went wrong may quote what somebody else wrote.
            return ToolOutput(text=f"{name} failed: {error}", failed=True, untrusted=True)
        except Exception:
            log.exception("tool failed unexpectedly", tool=name)
            return ToolOutput(text=f"{name} failed for an internal reason", failed=True)
        return _capped(output, tool.output_cap)

    def _checked(self, name: str, arguments: str) -> dict[str, Any]:
        values = read_json(arguments.encode("utf-8", "surrogatepass") or b"{}")
        problem = next(iter(self._validators[name].iter_errors(values)), None)
        if problem is not None:
            where = ".".join(str(part) for part in problem.instance_path) or "arguments"
            raise InputRefused("invalid", f"{where}: {_shortened(str(problem.message))}")
        checked: dict[str, Any] = values
        return checked

    async def _open_toolkit(self, name: str) -> str | None:
        if name in self._open:
            return None
        try:
            toolkit = self._make(name)
            if toolkit is None:
                return "this version has no such toolkit"
            if (missing := toolkit.missing()) is not None:
                return missing
            await toolkit.open()
            check_tools(toolkit)
        except Agent2389Error as error:
            return str(error)
        except Exception as error:
            # Its text may show a path or a secret of this machine: only the log gets it.
            log.exception("toolkit failed to open", toolkit=name)
            return f"it failed to open: {type(error).__name__}"
        self._open[name] = toolkit
        return None

    def _make(self, name: str) -> Toolkit | None:
        if name in TOOLKITS:
            return TOOLKITS[name]()
        if name in ON_THE_DOSSIER:
            return ON_THE_DOSSIER[name](self._dossier)
        return make_configured(name, self._configuration)

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
        return _left_out(self._open[toolkit]).get(wanted)

    def _add(self, toolkit: str, tool: Tool, *, name: str | None = None) -> None:
        name = name or tool.name
        if name in self._tools and self._tools[name][0] != toolkit:
            # The first one stands: a package that comes later must not take the place of ours.
            self.skipped[f"{toolkit}.{name}"] = f"toolkit {self._tools[name][0]} has a tool of that name"
            return
        self._tools[name] = (toolkit, tool)
        self._validators[name] = jsonschema_rs.validator_for(tool.parameters, offline=True)


def shipped_toolkits() -> list[Toolkit]:
    """Every toolkit of this version without settings, none open; MCP servers are not among them."""
    made: list[Toolkit] = [make() for make in TOOLKITS.values()]
    made += [make(None) for make in ON_THE_DOSSIER.values()]
    return made + [make(ToolSettings()) for make in CONFIGURED.values()]


def _toolkit_of(tool: str) -> str | None:
    """The toolkit that a name of ``[tools]`` means: its own name or that of one of its tools."""
    if is_known_toolkit(tool) or tool.startswith(f"{MCP}."):
        return tool
    made = shipped_toolkits()
    return next((toolkit.name for toolkit in made if tool in {item.name for item in toolkit.tools()}), None)


def _expanded(configuration: AgentConfiguration) -> list[str]:
    """``toolkits`` with ``mcp`` replaced by its servers; it stays, and is skipped, when there are none."""
    names: list[str] = []
    for name in configuration.toolkits:
        names += (optional_servers(configuration) or [name]) if name == MCP else [name]
    return names


def _left_out(toolkit: Toolkit) -> dict[str, str]:
    return dict(toolkit.left_out()) if isinstance(toolkit, Partial) else {}


def _shortened(problem: str) -> str:
    """The middle left out: a message begins with the value, however long, and ends with the reason."""
    return problem if len(problem) <= 300 else f"{problem[:60]} … {problem[-235:]}"


def _capped(output: ToolOutput, cap: int) -> ToolOutput:
    if len(output.text) <= cap:
        return output
    text = output.text[:cap] + f"\n[cut: {len(output.text) - cap} more characters]"
    return msgspec.structs.replace(output, text=text)
