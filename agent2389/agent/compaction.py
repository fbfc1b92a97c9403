"""Long conversations within a model's window: old tool results are shortened, nothing else is touched.

What the model sees follows from what is stored, by arithmetic alone: a resumed task shows its model
the same turns as the one that crashed, and no call is spent on a summary.
"""

from collections.abc import Sequence

import msgspec

from agent2389.llm.messages import Role, Turn

BYTES_PER_TOKEN = 3
KEPT_TURNS = 6
"""The last turns stay whole: the model is working with them."""
SHORT_CHARACTERS = 600


def compacted(turns: Sequence[Turn], window: int) -> tuple[Turn, ...]:
    """``turns`` as they fit into ``window`` tokens, the oldest tool results shortened first.

    Only results longer than 600 characters are touched; when even that is not enough the model's
    own limit answers, as a typed error.
    """
    size = sum(_tokens(turn) for turn in turns)
    shown = list(turns)
    for place, turn in enumerate(turns[: max(len(turns) - KEPT_TURNS, 0)]):
        if size <= window:
            break
        if turn.role is Role.TOOL and len(turn.text) > SHORT_CHARACTERS:
            shown[place] = msgspec.structs.replace(turn, text=_shortened(turn.text))
            size -= _tokens(turn) - _tokens(shown[place])
    return tuple(shown)


def _shortened(text: str) -> str:
    left_out = len(text) - SHORT_CHARACTERS
    note = f"[shortened: {left_out} more characters; call the tool again to see them]"
    return f"{text[:SHORT_CHARACTERS]}\n{note}"


def _tokens(turn: Turn) -> int:
    characters = len(turn.text) + sum(len(call.arguments) + 40 for call in turn.tool_calls)
    return characters // BYTES_PER_TOKEN + 8
