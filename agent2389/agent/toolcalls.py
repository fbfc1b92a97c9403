"""The tool calls of one model turn: run side by side, each journaled when it ended."""

import asyncio
import hashlib
from collections.abc import Sequence

import msgspec

from agent2389.agent import faults
from agent2389.agent.containment import Containment, Standing
from agent2389.agent.conversation import Conversation, call_key
from agent2389.agent.files import Workspace
from agent2389.agent.journal import TaskJournal
from agent2389.agent.parts import Observer
from agent2389.errors import ApprovalNeeded
from agent2389.ledger.journal import Amounts, EffectAnswer, EffectEnd, EffectStart, Message
from agent2389.ledger.records import ApprovalRequest
from agent2389.llm.messages import ToolCall
from agent2389.telemetry import surroundings
from agent2389.tools.port import Effect, TaskScope
from agent2389.tools.registry import ToolSet

USUAL_SECONDS = 1.0
REJECTED = "A person refused this call. Go on without it."


class ToolTurn:
    """Runs what is still open of a turn.

    A call that changed no file is recorded at once. Calls that changed files are recorded
    together when no call that may still be writing is left, so that the stored workspace never
    holds half of a file, nor the work of a call that counts as not made.
    """

    def __init__(
        self,
        tools: ToolSet,
        journal: TaskJournal,
        conversation: Conversation,
        workspace: Workspace,
        observer: Observer,
        scope: TaskScope,
        containment: Containment,
        allowed: frozenset[str],
    ) -> None:
        self._tools = tools
        self._journal = journal
        self._conversation = conversation
        self._workspace = workspace
        self._observer = observer
        self._scope = scope
        self._containment = containment
        self._allowed = allowed
        self._free: set[int] = set()
        self._writing = 0
        self._changed: list[tuple[EffectEnd, Message]] = []

    async def run(self, calls: Sequence[tuple[int, ToolCall]]) -> int:
        """Make the calls that were not made yet; how many these were. Raises what the journal raises.

        Raises ``ApprovalNeeded`` when all that may be done without a person is done.
        """
        waiting = await self._sorted_out(calls)
        calls = [(slot, call) for slot, call in calls if slot in self._free]
        made = await self._make_all(calls) if calls else 0
        if waiting:
            raise ApprovalNeeded(waiting)
        return made

    async def _sorted_out(self, calls: Sequence[tuple[int, ToolCall]]) -> list[ApprovalRequest]:
        """Answers refused calls, remembers free ones; the questions for the others."""
        questions = []
        for slot, call in calls:
            occurrence = self._conversation.occurrence(slot)
            match self._containment.standing(call, occurrence, self._conversation):
                case Standing.FREE:
                    self._free.add(slot)
                case Standing.REJECTED:
                    message = self._conversation.add_result(slot, REJECTED, failed=True)
                    await self._journal.end([], [message])
                case Standing.ASK:
                    questions.append(self._containment.question(call, occurrence))
        return questions

    async def _make_all(self, calls: Sequence[tuple[int, ToolCall]]) -> int:
        starts = [self._start(slot, call) for slot, call in calls]
        faults.reach("tools.before_begin")
        answers = await self._journal.begin(starts)
        faults.reach("tools.begun")
        fresh = [
            (start, call)
            for start, (_, call), answer in zip(starts, calls, answers, strict=True)
            if not await self._known(start, answer)
        ]
        self._writing = sum(start.repeat != Effect.PURE for start, _ in fresh)
        try:
            async with asyncio.TaskGroup() as group:
                for start, call in fresh:
                    group.create_task(self._make(start, call), name=f"tool-{call.name[:32]}")
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        faults.reach("tools.complete")
        return len(fresh)

    def _start(self, slot: int, call: ToolCall) -> EffectStart:
        effect = self._tools.effect_of(call.name, call.arguments, self._allowed)
        occurrence = self._conversation.occurrence(slot)
        key = call_key(self._scope.task_id, call, occurrence)
        arguments = call.arguments.encode("utf-8", "surrogatepass")
        return EffectStart(
            step=self._conversation.step - 1,
            call=slot,
            kind="tool",
            name=call.name[:64],
            repeat=effect,
            request_hash=hashlib.sha256(arguments).hexdigest(),
            key=key if effect in (Effect.KEYED, Effect.UNSAFE) else None,
            reserve=Amounts(seconds=USUAL_SECONDS),
        )

    async def _known(self, start: EffectStart, answer: EffectAnswer) -> bool:
        """Whether the ledger has the result already: from this generation or an earlier one."""
        if answer.verdict != "done":
            return False
        body = answer.response or '{"role": "tool", "text": ""}'
        message = self._conversation.add_known_result(start.call, body)
        await self._journal.end([], [message])
        return True

    async def _make(self, start: EffectStart, call: ToolCall) -> None:
        scope = msgspec.structs.replace(self._scope, idempotency_key=start.key or "")
        faults.reach("tool.before_call")
        began = surroundings.elapsed()
        output = await self._tools.call(call.name, call.arguments, scope, allowed=self._allowed)
        seconds = surroundings.elapsed() - began
        faults.reach("tool.called")
        self._observer.tool_called(call.name, seconds, output.failed)
        end = EffectEnd(
            step=start.step, call=start.call, failed=output.failed, used=Amounts(seconds=round(seconds, 6))
        )
        tool = self._tools.tool(call.name, self._allowed)
        message = self._conversation.add_result(
            start.call,
            output.text,
            failed=output.failed,
            untrusted=output.untrusted,
            names_addresses=tool is not None and tool.finds_addresses,
        )
        if output.changed_files:
            self._changed.append((end, message))
        else:
            await self._journal.end([end], [message])
        self._writing -= start.repeat != Effect.PURE
        if self._writing == 0 and self._changed:
            await self._keep_files()
        faults.reach("tool.ended")

    async def _keep_files(self) -> None:
        changed, self._changed = self._changed, []
        manifest = await self._workspace.collect()
        faults.reach("files.stored")
        ends, messages = zip(*changed, strict=True)
        await self._journal.end(ends, messages, manifest)
