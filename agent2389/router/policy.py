"""What an operator decides about routing: limits, allowed hand-offs, the prompt."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from agent2389.errors import ConfigurationError


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``router/policy.toml`` with the text of ``prompt.md``.

    ``hand_offs`` maps a capability to those it may hand to; absent means any other.
    """

    max_hops: int = 16
    max_visits: int = 2
    on_failure: Literal["done", "escalate"] = "done"
    hand_offs: dict[str, tuple[str, ...]] = {}
    prompt: str = ""


def load_policy(path: Path | None = None) -> Policy:
    """Read a policy file and the ``prompt.md`` beside it; the packaged ones without ``path``.

    Raises ``ConfigurationError`` naming the file.
    """
    folder = files("agent2389.router") / "defaults"
    try:
        text = path.read_text(encoding="utf-8") if path else (folder / "policy.toml").read_text("utf-8")
        policy = msgspec.convert(tomllib.loads(text), Policy)
        beside = path.with_name("prompt.md") if path else None
        prompt = beside if beside is not None and beside.is_file() else folder / "prompt.md"
        return msgspec.structs.replace(policy, prompt=prompt.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path}: the routing policy cannot be used: {error}") from None
