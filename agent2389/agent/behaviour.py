"""How one task is worked on: the agent's file, then the job's profile, then its override and wishes."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agent2389.config.model import AgentConfiguration
from agent2389.config.profiles import Profile, ProfileBudget, overridden
from agent2389.errors import ConfigurationError, ProtocolCode, RunFailed
from agent2389.ledger.records import Claim

DEFAULT = "default"
"""The profile that jobs may name although no file has it: the agent's own way."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a task's work that a job may choose. ``llm`` names a model as a job does;
    ``only`` are the toolkits to work with, ``None`` for all.
    """

    system_prompt: str
    llm: Mapping[str, Any]
    temperature: float | None
    max_tokens: int | None
    timeout: float
    only: tuple[str, ...] | None
    add: tuple[str, ...]
    remove: tuple[str, ...]
    budget: ProfileBudget
    phases: bool


def behaviour_of(
    claim: Claim, configuration: AgentConfiguration, profiles: Mapping[str, Profile]
) -> Behaviour:
    """The way of ``claim``. Raises ``RunFailed`` (invalid input) for what this agent does not have."""
    submission, llm = claim.submission, configuration.llm
    profile = _profile(submission, profiles)
    wishes = submission.get("toolkits") or {}
    chosen = profile.llm
    named = {key: getattr(chosen, key) for key in ("endpoint", "model", "provider")}
    return Behaviour(
        system_prompt=llm.system_prompt if chosen.system_prompt is None else chosen.system_prompt,
        # A job's own `llm` field is the nearest word.
        llm=submission.get("llm") or {key: value for key, value in named.items() if value is not None},
        temperature=llm.temperature if chosen.temperature is None else chosen.temperature,
        max_tokens=chosen.max_tokens or llm.max_tokens,
        timeout=chosen.timeout or llm.timeout,
        only=profile.toolkits.only,
        add=(*profile.toolkits.add, *wishes.get("add", ())),
        remove=(*profile.toolkits.remove, *wishes.get("remove", ())),
        budget=profile.budget,
        phases=configuration.agent.phases if profile.phases is None else profile.phases,
    )


def _profile(submission: Mapping[str, Any], profiles: Mapping[str, Profile]) -> Profile:
    name = submission.get("profile") or submission.get("config_name") or DEFAULT
    profile = profiles.get(name)
    if profile is None and name != DEFAULT:
        known = ", ".join(sorted(profiles)) or "none"
        raise RunFailed(
            f"this agent has no profile {str(name)[:64]!r} (it has: {known})",
            code=ProtocolCode.INVALID_INPUT,
            retryable=False,
        )
    override = submission.get("config_override")
    if not override:
        return profile or Profile()
    try:
        return overridden(profile or Profile(), override)
    except ConfigurationError as error:
        raise RunFailed(str(error), code=ProtocolCode.INVALID_INPUT, retryable=False) from None
