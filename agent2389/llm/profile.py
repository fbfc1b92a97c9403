"""Facts of model families that change what may be sent to them."""

import re
from typing import Final

ANTHROPIC_MAX_TOKENS: Final = 8192
"""Anthropic wants a limit in every call; this one when the configuration names none."""
_REASONING: Final = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-[5-9])(?!.*chat)")
_CLAUDE_WITH_TEMPERATURE: Final = re.compile(
    r"claude-(?:[23]|instant|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?:-\d{8})?$)"
)


def takes_temperature(provider: str, model: str) -> bool:
    """OpenAI's reasoning models and Claude after 4.6 answer 400 to a temperature."""
    if provider == "anthropic":
        return _CLAUDE_WITH_TEMPERATURE.match(model) is not None
    return provider != "openai" or _REASONING.match(model) is None


def counts_completion_tokens(model: str) -> bool:
    """OpenAI's reasoning models take ``max_completion_tokens``; everybody else knows ``max_tokens``."""
    return _REASONING.match(model) is not None


def wants_signatures(model: str) -> bool:
    """Gemini 3 and later refuse the function call of a step that carries no signature of its thought."""
    found = re.match(r"(?:models/)?gemini-(\d+)", model)
    return found is not None and int(found[1][:3]) >= 3
