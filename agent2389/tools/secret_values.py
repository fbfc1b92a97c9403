"""Secrets that tools send along, and hiding them wherever a server sends them back."""

import base64
import os
from collections.abc import Mapping
from urllib.parse import quote

from agent2389.config.environment import read_variable
from agent2389.errors import ConfigurationError
from agent2389.telemetry.logs import MASK, register_secret

SHORTEST = 6
"""Shorter values are not hidden: replacing them would garble ordinary text."""


class SecretValues:
    """The secrets of one toolkit: read from the environment, kept out of logs and outputs."""

    def __init__(self) -> None:
        self._spellings: set[str] = set()

    def add(self, value: str) -> str:
        """Hide ``value`` from now on; returns it."""
        register_secret(value)
        if len(value) >= SHORTEST:
            encoded = base64.b64encode(value.encode()).decode().rstrip("=")
            self._spellings |= {value, quote(value, safe=""), encoded}
        return value

    def read(self, name: str, *, environ: Mapping[str, str] | None = None) -> str:
        """The value of the variable ``name``, or of the file ``NAME_FILE``. Raises ``ConfigurationError``."""
        value = read_variable(os.environ if environ is None else environ, name)
        if value is None:
            raise ConfigurationError(f"environment variable {name} is not set", hint=f"export {name}=…")
        if not value.isprintable():
            raise ConfigurationError(f"environment variable {name} holds a line break or control character")
        return self.add(value)

    def hide(self, text: str) -> str:
        """``text`` without any secret, in any of its spellings."""
        for spelling in sorted(self._spellings, key=len, reverse=True):
            text = text.replace(spelling, MASK)
        return text
