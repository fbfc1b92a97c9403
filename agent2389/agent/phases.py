"""Work in phases: first plan (strategic), then do what was planned (tactical), until the job is complete.

The program holds the agent to it, whatever the model says: while there is no plan only tools that
read and plan are there, and an answer counts only after ``job_complete``.
"""

from agent2389.llm.messages import ToolSpec
from agent2389.tools.port import Effect, Progress, TaskScope
from agent2389.tools.registry import ToolSet

RULES = """
You work in phases. Begin each with next_phase_todos. Close every todo with todo_complete and evidence.
When all are closed call mark_complete and plan the next phase, or call job_complete and then answer.
"""
MOST_LISTED = 10


class Phases:
    """Stands beside the loop of one task. ``is_on`` is false for agents that do not work in phases."""

    def __init__(self, tools: ToolSet, scope: TaskScope, specs: tuple[ToolSpec, ...], *, is_on: bool) -> None:
        self._tools = tools
        self._scope = scope
        self._specs = specs
        self.is_on = is_on

    async def specs(self) -> tuple[ToolSpec, ...]:
        """The tools of now: without a phase that is worked on, those that read and those that plan."""
        if not self.is_on:
            return self._specs
        progress = await self._progress()
        if progress.phase or progress.completed is not None:
            return self._specs
        return tuple(spec for spec in self._specs if self._is_for_planning(spec.name))

    async def objection(self) -> str | None:
        """Why an answer does not count yet, as an order for the model."""
        if not self.is_on:
            return None
        progress = await self._progress()
        if progress.completed is not None:
            return None
        if not progress.open_items:
            return "Your answer does not count yet: plan with next_phase_todos, or call job_complete."
        listed = [f"- {item.number}: {item.text}" for item in progress.open_items[:MOST_LISTED]]
        return "\n".join(("Your answer does not count yet. These todos are open:", *listed))

    async def _progress(self) -> Progress:
        return await self._tools.progress(self._scope, allowed={spec.name for spec in self._specs})

    def _is_for_planning(self, name: str) -> bool:
        tool = self._tools.tool(name)
        return tool is not None and (tool.effect is Effect.PURE or self._tools.keeps_plan(name))
