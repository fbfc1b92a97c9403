"""The todo toolkit: plan in phases, close items with evidence, complete the job when nothing is open."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent2389.errors import ToolFailed
from agent2389.tools import todo_list
from agent2389.tools.paths import NameRefused
from agent2389.tools.port import Effect, OpenItem, Progress, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.reserved import read_state, write_state
from agent2389.tools.todo_list import Evidence, TodoList, TodoRefused
from agent2389.tools.tool_settings import read_settings
from agent2389.tools.workspace import read_bytes

MAX_TEXT = 500
MAX_SUMMARY = 4000
MAX_EVIDENCE = 10

Work = Callable[[TodoList, Mapping[str, Any], Path], TodoList]


class TodoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.todo]``. ``evidence = "file"`` takes nothing but files of the workspace.

    ``plan_required``: a job without any phase cannot be completed.
    """

    evidence: Literal["any", "file"] = "any"
    plan_required: bool = True
    max_todos: Annotated[int, msgspec.Meta(ge=1, le=200)] = 30


class TodoToolkit:
    """next_phase_todos, todo_complete, todo_rewind, todo_list, mark_complete, job_complete.

    The list lies in the reserved folder of the task's workspace, where no tool of the model reaches it,
    and travels with the files when another process resumes the task.
    """

    name = "todo"

    def __init__(self, settings: ToolSettings | None = None) -> None:
        self._values = (settings or ToolSettings()).values
        self._form = TodoSettings()
        # Calls of one turn run side by side: each must see what the one before it wrote.
        self._one_at_a_time = asyncio.Lock()

    def missing(self) -> str | None:
        """Needs nothing."""
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in ``[toolkit_config.todo]``."""
        self._form = read_settings(self._values, TodoSettings, where="toolkit_config.todo")

    async def open(self) -> None:
        """Read the settings. Raises ``ConfigurationError``."""
        self.check()

    async def close(self) -> None:
        """Nothing to close."""

    async def progress(self, scope: TaskScope) -> Progress:
        """What is open in the task's list. Raises ``ToolFailed`` when it cannot be read."""
        todo = await asyncio.to_thread(_load, scope)
        phase = todo.phases[-1].name if todo.mode == "tactical" else ""
        items = tuple(OpenItem(phase, item.number, item.text) for item in todo.open_items)
        return Progress(tracked=True, phase=phase, open_items=items, completed=todo.completed)

    def tools(self) -> tuple[Tool, ...]:
        """The six tools; each may be repeated without harm."""
        text = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
        number = {"type": "integer", "minimum": 1, "maximum": 200, "description": "number of the todo"}
        summary = {"type": "string", "minLength": 1, "maxLength": MAX_SUMMARY}
        todos = {"type": "array", "items": text, "minItems": 1, "maxItems": self._form.max_todos}
        return (
            self._tool(
                "next_phase_todos",
                "Begin the next phase of the work with its todos. Only when no todo is open.",
                {"phase": text, "todos": todos},
                self._next_phase,
            ),
            self._tool(
                "todo_complete",
                "Close a todo with evidence: files of the workspace that show it is done"
                + (", or findings in words." if self._form.evidence == "any" else "."),
                {"number": number, "evidence": _evidence_schema(self._form.evidence)},
                self._complete,
            ),
            self._tool(
                "todo_rewind",
                "Reopen a todo of the last phase that turned out not to be done.",
                {"number": number, "reason": text},
                _rewind,
            ),
            self._tool(
                "mark_complete",
                "Mark the phase complete, with a summary. Refused while todos are open.",
                {"summary": summary},
                _complete_phase,
            ),
            self._tool(
                "job_complete",
                "Mark the whole job complete, with a summary. Refused while todos are open.",
                {"summary": summary},
                self._complete_job,
            ),
            self._tool("todo_list", "Show the todos and what comes next.", {}, None),
        )

    def _tool(self, name: str, description: str, properties: dict[str, Any], work: Work | None) -> Tool:
        async def call(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
            async with self._one_at_a_time:
                return await asyncio.to_thread(_do, work, arguments, scope)

        return Tool(
            name=name,
            description=description,
            parameters={
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            },
            call=call,
            effect=Effect.PURE if work is None else Effect.IDEMPOTENT,
            timeout=30,
        )

    def _next_phase(self, todo: TodoList, arguments: Mapping[str, Any], _: Path) -> TodoList:
        return todo_list.next_phase(todo, arguments["phase"], tuple(arguments["todos"]))

    def _complete(self, todo: TodoList, arguments: Mapping[str, Any], workspace: Path) -> TodoList:
        evidence = tuple(msgspec.convert(one, Evidence) for one in arguments["evidence"])
        for one in evidence:
            _check(one, workspace)
        return todo_list.complete_item(todo, arguments["number"], evidence)

    def _complete_job(self, todo: TodoList, arguments: Mapping[str, Any], workspace: Path) -> TodoList:
        for phase in todo.phases:
            for item in phase.items:
                for one in item.evidence:
                    _check_still_there(one, workspace, f"todo {item.number} of phase {phase.name!r}")
        return todo_list.complete_job(todo, arguments["summary"], plan_required=self._form.plan_required)


def _rewind(todo: TodoList, arguments: Mapping[str, Any], _: Path) -> TodoList:
    return todo_list.rewind(todo, arguments["number"], arguments["reason"])


def _complete_phase(todo: TodoList, arguments: Mapping[str, Any], _: Path) -> TodoList:
    return todo_list.complete_phase(todo, arguments["summary"])


def _do(work: Work | None, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    try:
        todo = _load(scope)
        if work is None:
            return ToolOutput(text=todo_list.shown(todo))
        after = work(todo, arguments, scope.workspace)
        if after != todo:
            write_state(scope.workspace, _file_of(scope), msgspec.json.encode(after))
    except (TodoRefused, NameRefused) as refused:
        return ToolOutput(text=f"refused: {refused}", failed=True)
    except OSError as error:
        # strerror only: the full text would show a path of this machine.
        return ToolOutput(text=f"failed: {error.strerror}", failed=True)
    return ToolOutput(text=todo_list.shown(after), data=msgspec.to_builtins(after), changed_files=True)


def _check(evidence: Evidence, workspace: Path) -> None:
    """Raise ``TodoRefused`` when the workspace does not bear the evidence out."""
    if evidence.file is None:
        if evidence.quote is not None:
            raise TodoRefused("a quote needs the file it stands in")
        if not evidence.finding:
            raise TodoRefused("evidence names a file of the workspace, or a finding in words")
        return
    try:
        content = read_bytes(workspace, evidence.file)
    except OSError as error:
        raise TodoRefused(f"the evidence {evidence.file[:100]!r} cannot be read: {error.strerror}") from None
    if not content.strip():
        raise TodoRefused(f"the evidence {evidence.file[:100]!r} is empty")
    if evidence.quote is not None:
        quoted = " ".join(evidence.quote.split())
        if not quoted or quoted not in " ".join(content.decode("utf-8", "replace").split()):
            raise TodoRefused(f"the quote does not stand in {evidence.file[:100]!r}")


def _check_still_there(evidence: Evidence, workspace: Path, what: str) -> None:
    """A file may have been deleted or changed since the item was closed by it."""
    try:
        _check(evidence, workspace)
    except (TodoRefused, NameRefused) as refused:
        raise TodoRefused(f"{what} has lost its evidence ({refused}); todo_rewind reopens it") from None


def _file_of(scope: TaskScope) -> str:
    """By task: the files of a job travel on to its next task, which has a list of its own."""
    return f"todo-{hashlib.sha256(scope.task_id.encode()).hexdigest()[:24]}.json"


def _load(scope: TaskScope) -> TodoList:
    content = read_state(scope.workspace, _file_of(scope))
    if content is None:
        return TodoList()
    try:
        return msgspec.json.decode(content, type=TodoList)
    except msgspec.DecodeError:
        raise ToolFailed("the todo list of this task is damaged", retryable=False) from None


def _evidence_schema(kind: Literal["any", "file"]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "file": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "name in the workspace"},
        "quote": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_SUMMARY,
            "description": "stands in the file",
        },
    }
    if kind == "any":
        properties["finding"] = {
            "type": "string",
            "minLength": todo_list.SHORTEST_FINDING,
            "maxLength": MAX_SUMMARY,
            "description": "what was found, where no file shows it",
        }
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_EVIDENCE,
        "items": {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **({"required": ["file"]} if kind == "file" else {"minProperties": 1}),
        },
    }
