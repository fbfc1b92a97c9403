"""What `config --show` prints: every value, masked where secret, with its origin."""

from typing import Any

from pydantic import BaseModel, SecretStr

from agent2389.config.load import Loaded
from agent2389.config.model import AgentConfiguration

MASK = "********"


def shown(loaded: Loaded) -> list[tuple[str, Any, str]]:
    """Rows of dotted key, printable value, origin; in the order of the model."""
    rows: list[tuple[str, Any, str]] = []
    _walk(loaded.configuration, "", loaded.origins, rows)
    return rows


def _walk(section: BaseModel, prefix: str, origins: dict[str, str], rows: list[tuple[str, Any, str]]) -> None:
    for name in type(section).model_fields:
        value = getattr(section, name)
        key = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            _walk(value, f"{key}.", origins, rows)
        else:
            rows.append((key, _printable(value), _origin(key, origins)))


def _origin(key: str, origins: dict[str, str]) -> str:
    for variant in (key, f"{key}_env", f"{key}_file"):
        if variant in origins:
            return origins[variant]
    inside = [origin for known, origin in origins.items() if known.startswith(f"{key}.")]
    return inside[0] if inside else "default"


def _printable(value: Any) -> Any:
    match value:
        case SecretStr():
            return MASK
        case BaseModel():
            return {name: _printable(getattr(value, name)) for name in type(value).model_fields}
        case dict():
            return {
                key: MASK if isinstance(item, str) and _secret_name(key) else _printable(item)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_printable(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _secret_name(key: str) -> bool:
    return any(word in key.lower() for word in ("key", "password", "token", "secret"))


def schema() -> dict[str, Any]:
    """JSON Schema of an agent's file, for editors."""
    document = AgentConfiguration.model_json_schema()
    for hidden in ("sha256", "path"):
        document["properties"].pop(hidden, None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
