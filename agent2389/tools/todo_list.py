"""A task's todo list: phases of items that close with evidence, and what may follow what.

Between phases the agent plans (strategic); within one it works its items off (tactical). Every function
takes a list and gives the next one, or raises ``TodoRefused`` with words for the model.
"""

from typing import Literal

import msgspec

MAX_PHASES = 50
SHORTEST_FINDING = 40
"""Characters. A finding stands in for a file: it has to say what was found, not that something was."""

Mode = Literal["strategic", "tactical", "completed"]


class TodoRefused(ValueError):
    """The list does not allow this now; the message is for the model."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What shows that an item is done: a file of the workspace, a quote out of it, or a finding in words."""

    file: str | None = None
    quote: str | None = None
    finding: str | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to do; it is closed by its evidence. ``reopened`` is the reason of its last rewind."""

    number: int
    text: str
    evidence: tuple[Evidence, ...] = ()
    reopened: str | None = None


class Phase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Items that belong together; ``summary`` once it is marked complete."""

    name: str
    items: tuple[Item, ...]
    summary: str | None = None

    @property
    def open_items(self) -> tuple[Item, ...]:
        """What is still to do."""
        return tuple(item for item in self.items if not item.evidence)


class TodoList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All phases of one task; ``completed`` is the summary given with ``job_complete``."""

    phases: tuple[Phase, ...] = ()
    completed: str | None = None

    @property
    def mode(self) -> Mode:
        """What the agent does now: plan, work a phase off, or nothing more."""
        if self.completed is not None:
            return "completed"
        return "tactical" if self.phases and self.phases[-1].summary is None else "strategic"

    @property
    def open_items(self) -> tuple[Item, ...]:
        """Open items of the last phase; earlier ones have none."""
        return self.phases[-1].open_items if self.phases else ()


def next_phase(todo: TodoList, name: str, texts: tuple[str, ...]) -> TodoList:
    """Begin a phase. Saying the same again changes nothing."""
    wanted = [text.strip() for text in texts]
    if not name.strip() or not all(wanted):
        raise TodoRefused("the phase and each of its todos need a text")
    if len(set(wanted)) < len(wanted):
        raise TodoRefused("two todos of this phase are the same")
    if todo.mode == "tactical":
        now = todo.phases[-1]
        if now.name == name.strip() and [item.text for item in now.items] == wanted:
            return todo
        raise TodoRefused(_still_open(todo) or f"phase {now.name!r} is worked off: mark_complete it first")
    if todo.mode == "completed":
        raise TodoRefused("the job is marked complete; todo_rewind reopens an item")
    if len(todo.phases) >= MAX_PHASES:
        raise TodoRefused(f"a task has no more than {MAX_PHASES} phases")
    items = tuple(Item(number=number, text=text) for number, text in enumerate(wanted, 1))
    return TodoList(phases=(*todo.phases, Phase(name=name.strip(), items=items)))


def complete_item(todo: TodoList, number: int, evidence: tuple[Evidence, ...]) -> TodoList:
    """Close an item of the phase that is worked on; ``evidence`` was checked against the workspace."""
    if todo.mode != "tactical":
        raise TodoRefused("there is no phase to work on: begin one with next_phase_todos")
    item = _item(todo, number)
    if not evidence:
        raise TodoRefused("an item closes only with evidence")
    used = {_plain(text) for text in _findings(todo, apart_from=number)} | {_plain(item.text)}
    for finding in filter(None, (one.finding for one in evidence)):
        if len(finding.strip()) < SHORTEST_FINDING:
            raise TodoRefused(
                f"a finding has at least {SHORTEST_FINDING} characters: say what was found, or name a file"
            )
        if _plain(finding) in used:
            raise TodoRefused("this finding repeats the item or the evidence of another one")
    return _with_item(todo, msgspec.structs.replace(item, evidence=evidence, reopened=None))


def rewind(todo: TodoList, number: int, reason: str) -> TodoList:
    """Reopen an item of the last phase, and with it the phase and the job."""
    item = _item(todo, number)
    reopened = _with_item(todo, msgspec.structs.replace(item, evidence=(), reopened=reason.strip()))
    phase = msgspec.structs.replace(reopened.phases[-1], summary=None)
    return TodoList(phases=(*reopened.phases[:-1], phase))


def complete_phase(todo: TodoList, summary: str) -> TodoList:
    """Mark the phase complete: the agent plans again."""
    if todo.mode != "tactical":
        if todo.mode == "strategic" and todo.phases and todo.phases[-1].summary == summary.strip():
            return todo
        raise TodoRefused("there is no phase to complete: begin one with next_phase_todos")
    if still_open := _still_open(todo):
        raise TodoRefused(still_open)
    if not summary.strip():
        raise TodoRefused("say in summary what the phase came to")
    phase = msgspec.structs.replace(todo.phases[-1], summary=summary.strip())
    return TodoList(phases=(*todo.phases[:-1], phase))


def complete_job(todo: TodoList, summary: str, *, plan_required: bool) -> TodoList:
    """Mark the job complete; a last phase without open items is completed with it."""
    if still_open := _still_open(todo):
        raise TodoRefused(still_open)
    if plan_required and not todo.phases:
        raise TodoRefused("nothing was planned yet: begin with next_phase_todos")
    if not summary.strip():
        raise TodoRefused("say in summary what the job came to")
    phases = todo.phases
    if todo.mode == "tactical":
        phases = (*phases[:-1], msgspec.structs.replace(phases[-1], summary=summary.strip()))
    return TodoList(phases=phases, completed=summary.strip())


def shown(todo: TodoList) -> str:
    """The list for the model: earlier phases in one line each, the last one with its items."""
    lines = [f"[x] {phase.name}: {phase.summary}" for phase in todo.phases[:-1]]
    if todo.phases:
        last = todo.phases[-1]
        lines.append(f"phase {last.name!r}, {len(last.open_items)} of {len(last.items)} todos open:")
        lines += [_line(item) for item in last.items]
    lines.append(_WHAT_NOW[todo.mode] if todo.open_items or todo.mode != "tactical" else _WORKED_OFF)
    return "\n".join(lines)


_WHAT_NOW: dict[Mode, str] = {
    "strategic": "planning: next_phase_todos begins a phase, job_complete ends the job",
    "tactical": "working: close each todo with todo_complete and its evidence",
    "completed": "the job is marked complete",
}
_WORKED_OFF = "all todos are closed: mark_complete the phase, or job_complete"


def _line(item: Item) -> str:
    if not item.evidence:
        return f"{item.number}. [ ] {item.text}" + (f" (reopened: {item.reopened})" if item.reopened else "")
    by = ", ".join(one.file or f"“{(one.finding or '')[:80]}”" for one in item.evidence)
    return f"{item.number}. [x] {item.text} ({by})"


def _still_open(todo: TodoList) -> str:
    numbers = ", ".join(str(item.number) for item in todo.open_items)
    return f"todos are still open in phase {todo.phases[-1].name!r}: {numbers}" if numbers else ""


def _item(todo: TodoList, number: int) -> Item:
    items = todo.phases[-1].items if todo.phases else ()
    found = next((item for item in items if item.number == number), None)
    if found is None:
        raise TodoRefused(
            f"there is no todo {number}; the phase has 1 to {len(items)}"
            if items
            else "nothing is planned yet"
        )
    return found


def _with_item(todo: TodoList, item: Item) -> TodoList:
    last = todo.phases[-1]
    items = tuple(item if other.number == item.number else other for other in last.items)
    phase = msgspec.structs.replace(last, items=items)
    return msgspec.structs.replace(todo, phases=(*todo.phases[:-1], phase))


def _findings(todo: TodoList, *, apart_from: int) -> list[str]:
    return [
        one.finding
        for phase in todo.phases
        for item in phase.items
        if not (phase is todo.phases[-1] and item.number == apart_from)
        for one in item.evidence
        if one.finding
    ]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
