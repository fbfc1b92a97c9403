"""What a task may not do by itself once text from outside could have told it to.

A model that reads a document can be talked into anything that its tools can do. So a task that has
seen text from outside is tainted, and from then on two things need a person: calls that act outside
the workspace, and addresses that nobody but the model has named (they could carry what it has read).
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any

from agent2389.agent.conversation import Conversation
from agent2389.agent.prompt import input_text
from agent2389.config.model import ApprovalsSection
from agent2389.ledger.records import ApprovalRequest, Claim
from agent2389.llm.messages import ToolCall
from agent2389.tools.port import Effect, Tool
from agent2389.tools.registry import ToolSet
from agent2389.wire.names import new_uuid7

_END_OF_ADDRESS = re.compile(r"""[.,;:!?*_'~]*(?:$|[\s"<>()\[\]{}|\\^`\u2018-\u201d\u00ab\u00bb])""")
"""What may follow an address where it ends: nothing that could be more of it."""


class Standing(StrEnum):
    """Whether a call may be made now."""

    FREE = "free"
    REJECTED = "rejected"
    ASK = "ask"


class Containment:
    """Judges the calls of one task. Decisions are bound to tool, exact arguments and count."""

    def __init__(
        self, section: ApprovalsSection, tools: ToolSet, claim: Claim, allowed: Collection[str]
    ) -> None:
        self._section = section
        self._tools = tools
        self._claim = claim
        self._allowed = allowed
        # What other agents, a judge or the producer's material say was not written by whoever gave the
        # order; the names of files are read before any of them is opened.
        self._began_tainted = (
            claim.hop > 1
            or claim.input not in (None, "", {}, [])
            or claim.feedback is not None
            or bool(claim.manifest)
        )
        self._given = _given(claim)

    def standing(self, call: ToolCall, occurrence: int, conversation: Conversation) -> Standing:
        """Whether this call is free, was refused by a person, or has to be asked for."""
        tool = self._tools.tool(call.name, self._allowed)
        arguments = self._tools.arguments(call.name, call.arguments)
        if (
            tool is None
            or arguments is None
            or not self._is_guarded(call.name, tool, arguments, conversation)
        ):
            return Standing.FREE
        match self._claim.approvals.get(f"{_label(call.name, occurrence)}:{_sha256(arguments)}"):
            case "approved":
                return Standing.FREE
            case "rejected":
                return Standing.REJECTED
            case _:
                return Standing.ASK

    def question(self, call: ToolCall, occurrence: int) -> ApprovalRequest:
        """What a person is asked about ``call``: exactly these arguments."""
        arguments = self._tools.arguments(call.name, call.arguments) or {}
        return ApprovalRequest(
            approval_id=new_uuid7(),
            tool=_label(call.name, occurrence),
            arguments=_canonical(arguments),
            arguments_sha256=_sha256(arguments),
            question=(
                f"May {call.name} run with exactly these arguments? The task has read text from outside, "
                "which could have asked for it."
            ),
        )

    def _is_guarded(
        self, name: str, tool: Tool, arguments: dict[str, Any], conversation: Conversation
    ) -> bool:
        section = self._section
        if name in section.always:
            return True
        if name in section.never or section.unsafe == "never":
            return False
        effect = tool.effect_with(arguments)
        leaves = tool.acts_outside or (tool.address is not None and effect is not Effect.PURE)
        acts = leaves or effect in (Effect.KEYED, Effect.UNSAFE)
        if section.unsafe == "always":
            return acts
        if not (self._began_tainted or conversation.is_tainted):
            return False
        return acts or self._is_invented(tool, arguments, conversation)

    def _is_invented(self, tool: Tool, arguments: dict[str, Any], conversation: Conversation) -> bool:
        """Whether the call goes to an address that stands nowhere but in the model's own words."""
        if tool.address is None:
            return False
        wanted = arguments.get(tool.address)
        return isinstance(wanted, str) and not _stands_in(
            wanted, [*self._given, *conversation.found_addresses_in()]
        )


def _given(claim: Claim) -> list[str]:
    """What whoever submitted the job wrote. Later tasks' inputs and orders may be a model's words: an
    address there could carry what another agent has read.
    """
    if claim.hop == 1:
        return [claim.instruction or "", input_text(claim)]
    order = claim.submission.get("instruction")
    given = claim.submission.get("input")
    return [
        order if isinstance(order, str) else "",
        given if isinstance(given, str) else json.dumps(given, ensure_ascii=False),
    ]


def _stands_in(address: str, texts: Sequence[str]) -> bool:
    """Whether ``address`` stands somewhere as it is, not as the beginning of a longer one."""
    for text in texts:
        start = text.find(address)
        while start >= 0:
            if _END_OF_ADDRESS.match(text, start + len(address)):
                return True
            start = text.find(address, start + 1)
    return False


def _label(tool: str, occurrence: int) -> str:
    """One yes is for one call: the second equal call is another question."""
    return tool if occurrence == 0 else f"{tool} #{occurrence + 1}"


def _canonical(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _sha256(arguments: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(arguments).encode("utf-8", "replace")).hexdigest()
