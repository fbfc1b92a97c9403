"""Words of a model or service as one storable line."""

from typing import Final

MAX_REASON_CHARACTERS: Final = 500


def one_line(text: str, most: int = MAX_REASON_CHARACTERS) -> str:
    """``text`` without line breaks, control characters and lone surrogates, cut to ``most`` characters.

    Postgres refuses U+0000, and JSON writers refuse surrogates: neither may undo finished work.
    """
    joined = " ".join(text[: most * 4].split())
    return "".join(letter for letter in joined if letter.isprintable())[:most]
