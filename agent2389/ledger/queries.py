"""Named statements of a ``.sql`` file."""

import re
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load(file: str) -> MappingProxyType[str, str]:
    """Statement texts of ``ledger/sql/{file}`` by name."""
    text = (files("agent2389.ledger") / "sql" / file).read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return MappingProxyType(dict(zip(parts[1::2], (body.strip() for body in parts[2::2]), strict=True)))
