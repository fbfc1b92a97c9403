"""What an operator decides about routing: limits, loops, verification, rules, the prompt."""

import hashlib
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import TypeAdapter, ValidationError

from agent2389.config.rules import Rule
from agent2389.errors import ConfigurationError

MOST_HOPS = 64
MOST_TARGETS = 8

OnFailure = Literal["escalate", "done"]


class Loops(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[loops]``: what counts as going round.

    ``returns`` is about A-B-A (straight back to the one before); ``repeats`` about handing a pool
    a text that it has already answered or written; ``announced`` about answers that say they hand
    over to somebody while the decision says otherwise.
    """

    returns: Literal["flag", "refuse", "allow"] = "flag"
    repeats: Literal["refuse", "allow"] = "refuse"
    announced: Literal["flag", "escalate", "ignore"] = "flag"


class Verify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[verify]``: whose results a judge must see before a job may end.

    Empty ``by`` switches it off. ``without_judge`` says what happens when none of them is there.
    """

    by: str = ""
    of: tuple[str, ...] = ()
    rejected_words: tuple[str, ...] = ("verdict: reject",)
    on_reject: Literal["back", "escalate", "done"] = "back"
    without_judge: OnFailure = "escalate"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``router/policy.toml`` with the text of ``prompt.md``.

    ``hand_offs`` maps a capability to those it may hand to; absent means any other.
    ``rules`` are asked when a strategy fails, and by agents that have none of their own.
    """

    max_hops: Annotated[int, msgspec.Meta(ge=1, le=MOST_HOPS)] = 16
    max_visits: Annotated[int, msgspec.Meta(ge=1, le=MOST_HOPS)] = 2
    max_fan_out: Annotated[int, msgspec.Meta(ge=1, le=MOST_TARGETS)] = 4
    on_failure: OnFailure = "escalate"
    gatekeeper_instructions: bool = False
    hand_offs: dict[str, tuple[str, ...]] = {}
    loops: Loops = Loops()
    verify: Verify = Verify()
    rules: tuple[Any, ...] = ()
    prompt: str = ""

    @property
    def prompt_sha256(self) -> str:
        """What decisions made under this prompt have in common."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()


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
        return msgspec.structs.replace(
            policy, prompt=prompt.read_text(encoding="utf-8"), rules=read_rules(policy.rules)
        )
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, ValidationError) as error:
        raise ConfigurationError(
            f"{path}: the routing policy cannot be used: {error}",
            hint="compare it with router/policy.toml",
        ) from None


def read_rules(forms: Any) -> tuple[Rule, ...]:
    """Rules from parsed TOML or JSON in any of their forms. Raises pydantic's ``ValidationError``."""
    return TypeAdapter(tuple[Rule, ...]).validate_python(forms)
