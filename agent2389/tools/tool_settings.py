"""A toolkit's table in the agent's file, read into its struct with every mistake told."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agent2389.errors import ConfigurationError

_LITERALS = ("api_key", "password", "token", "secret", "secret_access_key", "authorization")

Settings = TypeVar("Settings", bound=msgspec.Struct)


def read_settings(values: Mapping[str, Any], form: type[Settings], *, where: str) -> Settings:
    """``values`` as a ``form``. Raises ``ConfigurationError`` naming the key; ``where`` is its table."""
    literal = next((name for name in _LITERALS if name in values), None)
    if literal is not None:
        raise ConfigurationError(
            f"{where}.{literal}: a secret must not stand in the file", hint=f'use {literal}_env = "NAME"'
        )
    known = {field.encode_name for field in msgspec.structs.fields(form)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}",
        )
    try:
        return msgspec.convert(dict(values), form)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
