"""Profiles: other ways in which one agent works, chosen by a job, changed by its ``config_override``."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from agent2389.config.model import Section
from agent2389.errors import ConfigurationError

MAX_PROMPT = 100_000


class ProfileModel(Section):
    """``[llm]`` of a profile: an endpoint or model that the agent's file lists, and how it is asked."""

    endpoint: str | None = None
    provider: str | None = None
    model: str | None = None
    system_prompt: str | None = Field(default=None, max_length=MAX_PROMPT)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, gt=0)
    timeout: float | None = Field(default=None, gt=0, le=3600)


class ProfileToolkits(Section):
    """``[toolkits]`` of a profile: only what the agent has anyway can be added back."""

    only: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class ProfileBudget(Section):
    """``[budget]`` of a profile: limits that may only be lower than the agent's own."""

    max_cost_per_task: float | None = Field(default=None, ge=0)
    max_tool_calls: int | None = Field(default=None, ge=0)
    max_iterations: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, gt=0)
    max_seconds: float | None = Field(default=None, gt=0)


class Profile(Section):
    """One way to work. What is absent stays as the agent's file says."""

    description: str = ""
    llm: ProfileModel = ProfileModel()
    toolkits: ProfileToolkits = ProfileToolkits()
    budget: ProfileBudget = ProfileBudget()
    phases: bool | None = None

    @field_validator("toolkits", mode="before")
    @classmethod
    def _list(cls, form: Any) -> Any:
        """``toolkits = ["workspace"]`` means: only these."""
        return {"only": form} if isinstance(form, (list, tuple)) else form


def load_profiles(folder: Path | None) -> dict[str, Profile]:
    """Every ``NAME.toml`` of ``folder``. Raises ``ConfigurationError`` that names the file."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ConfigurationError(
            f"agent.profiles: {folder} is no folder", hint="make it, or take the key out"
        )
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def overridden(profile: Profile, override: Mapping[str, Any]) -> Profile:
    """``profile`` with a job's ``config_override`` over it. Raises ``ConfigurationError``."""
    merged = profile.model_dump(exclude_unset=True)
    for key, value in override.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, Mapping):
            merged[key] = {**known, **value}
        else:
            merged[key] = value
    return _checked(merged, "config_override")


def _read(path: Path) -> Profile:
    try:
        return _checked(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: the profile cannot be read: {error}") from None


def _checked(document: dict[str, Any], where: str) -> Profile:
    try:
        return Profile.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]
        )
        raise ConfigurationError(
            f"{where}: {problems}", hint="a profile has llm, toolkits, budget, phases and description"
        ) from None
