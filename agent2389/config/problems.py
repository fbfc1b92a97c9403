"""Configuration problems and where they stand in the file."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

_HEADER = re.compile(r"^\s*\[+\s*([^\]]+?)\s*\]+")
_KEY = re.compile(r"^\s*([A-Za-z0-9_\-\"'.]+)\s*=")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake: ``key`` is dotted, ``line`` counts from 1 (``None`` outside a file)."""

    key: str
    reason: str
    line: int | None = None
    suggestion: str | None = None
    path: Path | None = None
    warning: bool = False

    def render(self, text: str = "") -> str:
        """What, where, the line itself with a caret, and the suggestion."""
        where = f"{self.path or 'configuration'}" + (f":{self.line}" if self.line else "")
        lines = [f"{where}: {self.key}: {self.reason}" if self.key else f"{where}: {self.reason}"]
        source = text.splitlines()
        if self.line and self.line <= len(source):
            shown = source[self.line - 1].rstrip()
            shown = re.sub(r"(=\s*)([\"']).*\2", r"\1\2…\2", shown) if _looks_secret(self.key) else shown
            margin = f"{self.line:>5} | "
            start = len(shown) - len(shown.lstrip())
            lines += [margin + shown, " " * (len(margin) - 2) + "| " + " " * start + "^"]
        if self.suggestion:
            lines.append(f"      {self.suggestion}")
        return "\n".join(lines)


def _looks_secret(key: str) -> bool:
    return bool(re.search(r"key|password|secret|token|url", key, re.IGNORECASE))


def locate(text: str, key: str) -> int | None:
    """The line of a dotted ``key`` in TOML ``text``: the key itself, else its table, else nothing."""
    wanted = key.split(".")
    best: int | None = None
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = [part.strip(" \"'") for part in header[1].split(".")]
            if wanted[: len(table)] == table:
                best = number
            continue
        if found := _KEY.match(line):
            path = table + [part.strip(" \"'") for part in found[1].split(".")]
            if path == wanted:
                return number
            if wanted[: len(path)] == path:
                best = number
    return best


def render_all(problems: Sequence[Problem], text: str) -> list[str]:
    """All problems in file order."""
    return [problem.render(text) for problem in sorted(problems, key=lambda item: item.line or 0)]
