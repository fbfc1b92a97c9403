"""Every form a file may take, brought to the one form of ``config.model``."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent2389.config.environment import PROVIDER_KEYS, read_variable
from agent2389.config.expand import Report
from agent2389.config.model import Provider
from agent2389.wire.names import is_capability, is_identifier

SECRET_KEYS = {"api_key", "password", "token", "secret"}
PROVIDERS = ("openai", "anthropic", "google", "rehearsal")
_ALIASES = {"gemini": "google", "local": "openai", "ollama": "openai", "vllm": "openai"}


def provider_of(model: str) -> Provider:
    """The provider whose models are named like that; every compatible endpoint speaks ``openai``."""
    name = model.lower()
    if name == "rehearsal":
        return "rehearsal"
    if name.startswith("claude-"):
        return "anthropic"
    return "google" if name.startswith(("gemini-", "models/gemini-")) else "openai"


class Forms:
    """Normalises one parsed file. Every mistake is reported; what remains is still usable."""

    def __init__(self, folder: Path, environ: Mapping[str, str], report: Report, warn: Report) -> None:
        self._folder = folder
        self._environ = environ
        self._report = report
        self._warn = warn

    def normalise(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document in the model's own form."""
        result = {key: value for key, value in document.items() if key != "tools"}
        for key in ("agent", "mqtt", "llm", "ledger", "health", "routing", "budget", "transcripts"):
            if key in result and not isinstance(result[key], dict):
                self._report(key, "must be a table", f"write [{key}]")
                del result[key]
        result["agent"] = self._agent(result.get("agent"))
        for key, names in (
            ("mqtt", ("username", "password")),
            ("ledger", ("database_url", "listen_url")),
            ("health", ("token",)),
            ("transcripts", ("mongodb_url",)),
        ):
            if key in result:
                result[key] = self._secrets(key, dict(result[key]), names)
        if "llm" in result:
            result["llm"] = self._llm("llm", dict(result["llm"]))
        if "routing" in result:
            result["routing"] = self._routing(dict(result["routing"]))
        if "tools" in document:
            result["tools"] = self._tools(document["tools"])
        self._check_fallback(result)
        return result

    def _check_fallback(self, document: dict[str, Any]) -> None:
        budget, listed = document.get("budget", {}), document.get("llm", {}).get("endpoints", {})
        name = budget.get("fallback_endpoint")
        if (name is not None and name not in listed) or (
            name is None and budget.get("on_exhausted") == "fallback"
        ):
            self._report(
                "budget.fallback_endpoint",
                "must name one of [llm.endpoints]",
                'fallback_endpoint = "local", with a table [llm.endpoints.local]',
            )

    def _agent(self, section: dict[str, Any] | None) -> dict[str, Any]:
        if not section:
            self._report("agent", "the table [agent] with an id is missing", '[agent]\n      id = "my-agent"')
            return {"id": "unnamed"}
        section = dict(section)
        agent_id = section.get("id")
        if not isinstance(agent_id, str) or not is_identifier(agent_id):
            self._report("agent.id", "must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}", None)
            section["id"] = "unnamed"
        capabilities = section.get("capabilities")
        if isinstance(capabilities, list):
            folded = [item.lower() for item in capabilities if isinstance(item, str)]
            for item in folded:
                if not is_capability(item):
                    self._report(
                        "agent.capabilities", f"{item!r} must match [a-z0-9][a-z0-9_-]{{0,63}}", None
                    )
            section["capabilities"] = list(dict.fromkeys(item for item in folded if is_capability(item)))
        if isinstance(section.get("profiles"), str):
            section["profiles"] = self._folder / section["profiles"]
        return section

    def _secrets(self, table: str, section: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        for name in names:
            variable = section.pop(f"{name}_env", None)
            file = section.pop(f"{name}_file", None)
            if name in SECRET_KEYS and isinstance(section.get(name), str) and section[name]:
                self._check_literal(f"{table}.{name}")
            if isinstance(variable, str):
                value = read_variable(self._environ, variable)
                if value is not None:
                    section[name] = value
                else:
                    self._warn(f"{table}.{name}_env", f"environment variable {variable} is not set", None)
            elif isinstance(file, str):
                try:
                    section[name] = (self._folder / file).read_text(encoding="utf-8").strip()
                except OSError as error:
                    self._report(f"{table}.{name}_file", f"{file}: {error.strerror}", None)
        return section

    def _check_literal(self, key: str) -> None:
        """``${VAR}`` was replaced before; the raw text tells whether the file held the secret itself."""
        if key not in self.placeholder_keys:
            name = key.rpartition(".")[2]
            self._report(key, "a secret must not stand in the file", f'use {name}_env = "NAME" instead')

    placeholder_keys: frozenset[str] = frozenset()
    """Dotted keys whose value was written as a ``${VAR}`` placeholder."""

    def _llm(self, table: str, section: dict[str, Any]) -> dict[str, Any]:
        name = section.get("api_key_env")
        section = self._secrets(table, section, ("api_key",))
        section = {key: value for key, value in section.items() if value != ""}
        provider = section.get("provider")
        if isinstance(provider, str):
            provider = _ALIASES.get(provider, provider)
            if provider not in PROVIDERS:
                near = difflib.get_close_matches(provider, PROVIDERS, 1)
                hint = f'did you mean "{near[0]}"?' if near else "one of " + ", ".join(PROVIDERS)
                self._report(f"{table}.provider", f'unknown provider "{provider}"', hint)
                provider = "rehearsal"
            section["provider"] = provider
        elif table == "llm" or "model" in section:
            section["provider"] = provider = provider_of(str(section.get("model", "")))
        if provider == "rehearsal":
            section.setdefault("model", "rehearsal")
        default_name = PROVIDER_KEYS.get(str(provider))
        if table == "llm":
            section["api_key_name"] = name if isinstance(name, str) else default_name
        if "api_key" not in section and default_name:
            value = read_variable(self._environ, default_name)
            if value is not None and not isinstance(name, str):
                section["api_key"] = value
        prompt = section.pop("prompt_file", None)
        if isinstance(prompt, str):
            section["system_prompt"] = self._read(f"{table}.prompt_file", prompt)
        if isinstance(section.get("endpoints"), dict):
            section["endpoints"] = {
                key: self._llm(f"{table}.endpoints.{key}", dict(value))
                for key, value in section["endpoints"].items()
                if isinstance(value, dict)
            }
        if isinstance(section.get("fallback"), list):
            self._fallback(table, section)
        return section

    def _fallback(self, table: str, section: dict[str, Any]) -> None:
        """Names of endpoints, or whole endpoints in place: those get a name."""
        endpoints = section.setdefault("endpoints", {})
        names = []
        for number, item in enumerate(section["fallback"], 1):
            name = item
            if isinstance(item, dict):
                name = f"fallback-{number}"
                endpoints[name] = self._llm(f"{table}.endpoints.{name}", dict(item))
            if name not in endpoints:
                near = difflib.get_close_matches(str(name), list(endpoints), 1)
                hint = f'did you mean "{near[0]}"?' if near else f"add [{table}.endpoints.{name}]"
                self._report(f"{table}.fallback", f"there is no endpoint {str(name)[:64]!r}", hint)
            names.append(name)
        section["fallback"] = names

    def _read(self, key: str, name: str) -> str:
        try:
            return (self._folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._report(key, f"{name}: {getattr(error, 'strerror', None) or 'not UTF-8'}", None)
            return ""

    def _routing(self, section: dict[str, Any]) -> dict[str, Any]:
        if isinstance(section.get("llm"), dict):
            section["llm"] = self._llm("routing.llm", dict(section["llm"]))
        if isinstance(section.get("policy"), str):
            section["policy"] = self._folder / section["policy"]
        return section

    def _tools(self, tools: Any) -> list[dict[str, Any]]:
        if isinstance(tools, list):
            entries = [(str(item.get("name", "")), item) for item in tools if isinstance(item, dict)]
        elif isinstance(tools, dict):
            entries = list(tools.items())
        else:
            self._report("tools", "must be a table or an array of tables", None)
            return []
        return [entry for name, form in entries if (entry := self._tool(name, form)) is not None]

    def _tool(self, name: str, form: Any) -> dict[str, Any] | None:
        key = f"tools.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            self._report(key or "tools", "a tool needs a name of letters, digits, _ and -", None)
            return None
        if isinstance(form, str):
            return {"name": name, "impl": form}
        if not isinstance(form, dict):
            self._report(key, 'write "builtin" or { impl = "…" }', None)
            return None
        form = self._secrets(key, dict(form), ("api_key",))
        impl = form.pop("impl", None) or form.pop("implementation", None) or "builtin"
        form.pop("implementation", None)
        form.pop("name", None)
        config = form.pop("config", {})
        if not isinstance(config, dict):
            self._report(f"{key}.config", "must be a table", None)
            config = {}
        api_key = form.pop("api_key", None)
        return {"name": name, "impl": impl, "config": {**config, **form}, "api_key": api_key}
