"""How the command line speaks: data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from agent2389.errors import Agent2389Error, ConfigurationError


def data(text: str) -> None:
    """A line of data."""
    sys.stdout.write(text + "\n")


def document(value: Any, **meta: Any) -> None:
    """The one JSON document of ``--json``."""
    data(json.dumps({"data": value, "meta": meta}, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """Progress and messages."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(rows: Sequence[Sequence[Any]], heads: Sequence[str]) -> None:
    """Aligned columns; heads only on a terminal, so that pipes get rows alone."""
    shown = [["-" if cell in (None, "") else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        shown.insert(0, [head.upper() for head in heads])
    if not shown:
        return
    widths = [max(len(row[column]) for row in shown) for column in range(len(heads))]
    for row in shown:
        data("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report(error: Agent2389Error) -> None:
    """An error: one line what, the places, one hint."""
    say(f"error: {error}")
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            say(problem)
    if error.hint:
        say(f"hint: {error.hint}")


def money(cost: float | None) -> str:
    """USD, or that nobody knows."""
    return "price unknown" if cost is None else f"${cost:.4f}"


def seconds(value: float | None) -> str:
    """A duration for people."""
    return "-" if value is None else f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
