"""The requirements toolkit: what the job's result has to fulfil, kept in its dossier."""

from collections.abc import Mapping
from typing import Any

from agent2389.ledger.dossier import PRIORITIES, STATUSES, Dossier, Requirement, RequirementChange
from agent2389.tools.dossier_calls import DossierToolkit, as_data, fence_of
from agent2389.tools.port import TaskScope, Tool, ToolOutput

_NUMBER = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 4000}
_PRIORITY = {"enum": list(PRIORITIES), "description": "must when absent"}
_STATUS = {"enum": list(STATUSES)}
_NOTE = {
    "type": "string",
    "maxLength": 4000,
    "description": "what shows that it is met, or why it is rejected",
}


class RequirementsToolkit(DossierToolkit):
    """list_requirements, get_requirement, add_requirement, edit_requirement."""

    name = "requirements"

    def tools(self) -> tuple[Tool, ...]:
        """The four requirement tools."""
        return (
            self.tool("list_requirements", "List what the result has to fulfil.", _list, {"status": _STATUS}),
            self.tool(
                "get_requirement",
                "Show one requirement in full, with the version that an edit needs.",
                _get,
                {"number": _NUMBER},
                required=("number",),
            ),
            self.tool(
                "add_requirement",
                "Add a requirement; the same text again is the same requirement.",
                _add,
                {"text": _TEXT, "priority": _PRIORITY},
                required=("text",),
                writes=True,
            ),
            self.tool(
                "edit_requirement",
                "Change a requirement as it was read. Status met or rejected needs a note.",
                _edit,
                {
                    "number": _NUMBER,
                    "version": {**_NUMBER, "description": "the version that was read"},
                    "text": _TEXT,
                    "priority": _PRIORITY,
                    "status": _STATUS,
                    "note": _NOTE,
                },
                required=("number", "version"),
                writes=True,
            ),
        )


async def _list(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    rows = await dossier.requirements(scope.job_id, status=arguments.get("status"))
    # What other agents wrote may come from a document that they read.
    return ToolOutput(
        text="\n".join(_line(row) for row in rows) or "there are none",
        data=as_data(rows),
        untrusted=bool(rows),
    )


async def _get(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    row = await dossier.requirement(scope.job_id, arguments["number"])
    note = f"\nnote: {row.note}" if row.note else ""
    return ToolOutput(text=_line(row) + note, data=as_data(row), untrusted=True)


async def _add(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    row = await dossier.add_requirement(
        fence_of(scope), arguments["text"], priority=arguments.get("priority", PRIORITIES[0])
    )
    return ToolOutput(text=f"kept: {_line(row)}", data=as_data(row))


async def _edit(dossier: Dossier, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
    fields = {name: arguments[name] for name in ("text", "priority", "status", "note") if name in arguments}
    change = RequirementChange(**fields)
    if change.is_empty:
        return ToolOutput(text="refused: say what to change", failed=True)
    if change.status in ("met", "rejected") and not (change.note or "").strip():
        return ToolOutput(text=f"refused: status {change.status} needs a note that shows why", failed=True)
    edited = await dossier.edit_requirement(
        fence_of(scope), arguments["number"], arguments["version"], change
    )
    row = edited.requirement
    match edited.verdict:
        case "stale":
            text = f"refused: somebody else changed it; it reads now: {_line(row)}"
            return ToolOutput(text=text, data=as_data(row), failed=True, untrusted=True)
        case "already":
            return ToolOutput(text=f"it already reads: {_line(row)}", data=as_data(row))
        case _:
            return ToolOutput(text=f"changed: {_line(row)}", data=as_data(row))


def _line(row: Requirement) -> str:
    return f"[{row.number}] ({row.priority}, {row.status}, version {row.version}) {row.text}"
