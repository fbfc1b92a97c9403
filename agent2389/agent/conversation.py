"""A task's conversation: its turns, each at the place where the journal keeps it."""

import hashlib
import json
from collections.abc import Sequence

import msgspec

from agent2389.ledger.journal import Message
from agent2389.llm.messages import Finished, Reply, Role, ToolCall, Turn

OPENING_STEP = -1


class StoredTurn(Turn, frozen=True, kw_only=True, omit_defaults=True):
    """A turn with what must be known of it later: whose answer it was, whether a tool failed.

    Tool turns carry no call id: it follows from their place.
    """

    model: str = ""
    rehearsal: bool = False
    finished: Finished = Finished.STOP
    failed: bool = False
    untrusted: bool = False
    names_addresses: bool = False


def encode(turn: Turn | StoredTurn) -> str:
    """A turn as the ledger stores it."""
    return msgspec.json.encode(turn).decode()


class Conversation:
    """Grows by one step for each model call: its answer at slot 0, its tools' results at 1, 2, ….

    Nothing is written here: every method that adds a turn returns the message to journal.
    """

    def __init__(self, opening: Sequence[Turn], stored: Sequence[Message] = ()) -> None:
        self._turns: dict[tuple[int, int], StoredTurn] = {}
        self._unsaved: list[Message] = []
        for message in stored:
            if message.kind == "turn":
                place = (message.step, message.slot)
                self._turns[place] = msgspec.json.decode(message.body, type=StoredTurn)
        if not self._turns:
            for slot, turn in enumerate(opening):
                self._unsaved.append(self._add(OPENING_STEP, slot, _stored(turn)))
        self.step = 1 + max((step for step, _ in self._turns), default=OPENING_STEP)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What the model sees, in order; results of one turn stand in the order of its calls."""
        return tuple(self._shown(place) for place in sorted(self._turns))

    @property
    def answer(self) -> StoredTurn | None:
        """The model's last turn when it called no tool: the conversation is over."""
        last = self._turns.get((self.step - 1, 0)) if self.step > 0 else None
        is_answer = last is not None and not last.tool_calls and (self.step - 1, 1) not in self._turns
        return last if is_answer else None

    @property
    def is_tainted(self) -> bool:
        """Whether a tool brought text from outside."""
        return any(turn.untrusted for turn in self._turns.values())

    def found_addresses_in(self) -> list[str]:
        """Results whose addresses the model did not make: others pointed there."""
        return [turn.text for turn in self._turns.values() if turn.names_addresses and not turn.failed]

    @property
    def request_hash(self) -> str:
        """Of everything said so far."""
        digest = hashlib.sha256()
        for _, turn in sorted(self._turns.items()):
            digest.update(encode(turn).encode())
        return digest.hexdigest()

    def take_unsaved(self) -> list[Message]:
        """The opening, once: it is stored with the first answer."""
        unsaved, self._unsaved = self._unsaved, []
        return unsaved

    def add_reply(self, reply: Reply) -> Message:
        """The model's turn at this step; the next step begins."""
        turn = StoredTurn(
            role=Role.ASSISTANT,
            text=reply.text,
            tool_calls=reply.tool_calls,
            model=reply.model,
            rehearsal=reply.rehearsal,
            finished=reply.finished,
        )
        message = self._add(self.step, 0, turn)
        self.step += 1
        return message

    def open_calls(self) -> list[tuple[int, ToolCall]]:
        """Calls of the last turn that have no result yet, with their slots."""
        last = self._turns.get((self.step - 1, 0)) if self.step > 0 else None
        calls = last.tool_calls if last is not None else ()
        return [
            (slot, call) for slot, call in enumerate(calls, 1) if (self.step - 1, slot) not in self._turns
        ]

    def add_result(
        self,
        slot: int,
        text: str,
        *,
        failed: bool,
        untrusted: bool = False,
        names_addresses: bool = False,
    ) -> Message:
        """A tool's result for the last turn's call at ``slot``."""
        turn = StoredTurn(
            role=Role.TOOL, text=text, failed=failed, untrusted=untrusted, names_addresses=names_addresses
        )
        return self._add(self.step - 1, slot, turn)

    def add_objection(self, text: str) -> Message:
        """Why the last turn is no answer: the model goes on."""
        return self._add(self.step - 1, 1, StoredTurn(role=Role.USER, text=text))

    def add_known_result(self, slot: int, body: str) -> Message:
        """A result that the ledger kept from an earlier generation."""
        turn = msgspec.json.decode(body, type=StoredTurn)
        return self._add(self.step - 1, slot, turn)

    def occurrence(self, slot: int) -> int:
        """How many equal calls came before the last turn's call at ``slot``: equal calls differ by it."""
        here = (self.step - 1, slot)
        wanted = None
        seen: list[tuple[str, str]] = []
        for step, turn in sorted((step, turn) for (step, place), turn in self._turns.items() if place == 0):
            for number, call in enumerate(turn.tool_calls, 1):
                if (step, number) == here:
                    wanted = _identity(call)
                    return seen.count(wanted)
                seen.append(_identity(call))
        raise ValueError(f"the last turn has no call {slot}")

    def _add(self, step: int, slot: int, turn: StoredTurn) -> Message:
        self._turns[step, slot] = turn
        return Message(step=step, slot=slot, body=encode(turn))

    def _shown(self, place: tuple[int, int]) -> Turn:
        step, slot = place
        turn = self._turns[place]
        call_id = turn.tool_call_id
        if step >= 0 and slot > 0 and turn.role is Role.TOOL:
            call_id = self._turns[step, 0].tool_calls[slot - 1].id
        fields = {name: getattr(turn, name) for name in Turn.__struct_fields__}
        return Turn(**{**fields, "tool_call_id": call_id})


def call_key(task_id: str, call: ToolCall, occurrence: int) -> str:
    """The idempotency key of a call: the same task, tool, arguments and count give the same key."""
    parts = (task_id, *_identity(call), str(occurrence))
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _identity(call: ToolCall) -> tuple[str, str]:
    try:
        arguments = json.dumps(json.loads(call.arguments), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return call.name, arguments


def _stored(turn: Turn) -> StoredTurn:
    return StoredTurn(**{name: getattr(turn, name) for name in Turn.__struct_fields__})
