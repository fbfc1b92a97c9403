"""Loading an agent's file: every problem at once, every value with its origin."""

import difflib
import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from agent2389.config.environment import OVERRIDES, read_variable
from agent2389.config.expand import expand
from agent2389.config.forms import Forms
from agent2389.config.model import AgentConfiguration
from agent2389.config.problems import Problem, locate, render_all
from agent2389.errors import ConfigurationError

SEARCH = ("agent.toml", "config/agent.toml", "agent-rfc.toml")
_LISTS = {"toolkits"}
_NOT_IN_FILE = {"sha256", "path"}


class Loaded(msgspec.Struct, frozen=True):
    """A configuration with the origin of each set key (``file:LINE``, ``environment NAME``, ``flag``)."""

    configuration: AgentConfiguration
    origins: dict[str, str]
    warnings: tuple[Problem, ...]


def find_file(environ: Mapping[str, str]) -> Path:
    """The agent file when none is named. Raises ``ConfigurationError``."""
    for name in ("CONFIG_PATH", "AGENT_CONFIG"):
        if value := environ.get(name):
            return Path(value)
    for candidate in SEARCH:
        if Path(candidate).is_file():
            return Path(candidate)
    raise ConfigurationError(
        "no agent file: looked at CONFIG_PATH, " + ", ".join(SEARCH),
        hint="name one: agent2389 run FILE, or make one: agent2389 new agent NAME",
    )


def load_agent(
    path: Path, *, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Loaded:
    """Load and check ``path``. ``overrides`` maps dotted keys to values given as flags.

    Precedence: flag, environment, file, default. Raises ``ConfigurationError`` whose
    ``problems`` are all mistakes, each with file, line, key, reason and suggestion.
    """
    environ = os.environ if environ is None else environ
    text = _read(path)
    problems: list[Problem] = []

    def add(key: str, reason: str, suggestion: str | None, *, warning: bool = False) -> None:
        problems.append(
            Problem(
                key=key,
                reason=reason,
                suggestion=suggestion,
                line=locate(text, key),
                path=path,
                warning=warning,
            )
        )

    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    document = expand(raw, "", environ, add)
    forms = Forms(path.parent, environ, add, lambda key, reason, hint: add(key, reason, hint, warning=True))
    forms.placeholder_keys = frozenset(_placeholders(raw))
    document = forms.normalise(document)
    origins = {key: f"{path}:{line}" for key in _keys(document) if (line := locate(text, key))}
    _apply_environment(document, environ, origins)
    for key, value in (overrides or {}).items():
        _set(document, key, value)
        origins[key] = "flag"
    configuration = _validate(document, path, text, add)
    errors = [problem for problem in problems if not problem.warning]
    if errors or configuration is None:
        raise ConfigurationError(
            f"{path} has {len(errors)} problem{'s' if len(errors) != 1 else ''}",
            problems=render_all(errors, text),
        )
    return Loaded(configuration, origins, tuple(item for item in problems if item.warning))


def require_key(loaded: Loaded) -> None:
    """Raise ``ConfigurationError`` when the model's provider needs a key and none is there."""
    llm = loaded.configuration.llm
    needs = llm.provider != "rehearsal" and llm.api_key is None and llm.base_url is None
    if needs:
        name = llm.api_key_name or "an API key"
        raise ConfigurationError(
            f"environment variable {name} is not set (named by llm.api_key_env)",
            hint=f'export {name}=…, or set provider = "rehearsal" to run without a key',
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", hint="make one: agent2389 new agent NAME"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> ConfigurationError:
    found = [int(word.strip(",)")) for word in str(error).split() if word.strip(",)").isdigit()]
    line = found[0] if found else len(text.splitlines())
    problem = Problem(key="", reason=f"not TOML: {error}", line=line, path=path)
    return ConfigurationError(f"{path} has 1 problem", problems=[problem.render(text)])


def _placeholders(value: Any, key: str = "") -> list[str]:
    if isinstance(value, dict):
        return [
            found
            for name, item in value.items()
            for found in _placeholders(item, f"{key}.{name}" if key else name)
        ]
    return [key] if isinstance(value, str) and "${" in value else []


def _keys(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [
        key for name, item in value.items() for key in _keys(item, f"{prefix}.{name}" if prefix else name)
    ]


def _apply_environment(document: dict[str, Any], environ: Mapping[str, str], origins: dict[str, str]) -> None:
    seen: set[str] = set()
    for variable in OVERRIDES:
        value = read_variable(environ, variable.name)
        if value is None or variable.key in seen or not _known(variable.key):
            continue
        if variable.key == "llm.base_url" and document.get("llm", {}).get("provider") != "openai":
            continue
        if variable.key == "logging.level" and variable.name == "RUST_LOG":
            value = value.split(",")[0].rpartition("=")[2]
        seen.add(variable.key)
        items = [item.strip() for item in value.split(",") if item.strip()]
        _set(document, variable.key, items if variable.key in _LISTS else value)
        origins[variable.key] = f"environment {variable.name}"


def _known(key: str) -> bool:
    model: type[BaseModel] = AgentConfiguration
    *tables, name = key.split(".")
    for table in tables:
        annotation = model.model_fields[table].annotation
        assert isinstance(annotation, type)
        model = annotation
    return name in model.model_fields


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    *tables, name = key.split(".")
    for table in tables:
        document = document.setdefault(table, {})
    document[name] = value


def _validate(document: dict[str, Any], path: Path, text: str, add: Any) -> AgentConfiguration | None:
    document = {key: value for key, value in document.items() if key not in _NOT_IN_FILE}
    digest = hashlib.sha256(text.encode()).hexdigest()
    try:
        return AgentConfiguration.model_validate({**document, "sha256": digest, "path": path})
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            key = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                add(key, "unknown key", _did_you_mean(item["loc"]))
            else:
                add(key, item["msg"][0].lower() + item["msg"][1:], None)
        return None


def _did_you_mean(location: tuple[int | str, ...]) -> str | None:
    model: Any = AgentConfiguration
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    fields = getattr(model, "model_fields", {})
    near = difflib.get_close_matches(str(location[-1]), list(fields), 1)
    return f'did you mean "{near[0]}"?' if near else None
