"""An independent mock of the model providers: aimock from npm, at an exact version."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.support.npm import Missing, installed
from tests.support.structure import ROOT

__all__ = ["Missing", "Oracle", "oracle"]

FOLDER = ROOT / "tests" / "support" / "aimock"


class Oracle:
    """A running mock; ``journal`` is its record of what it was asked, the witness of repeated calls."""

    def __init__(self, url: str) -> None:
        self.url = url

    def journal(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx2.get(f"{self.url}/__aimock/journal", trust_env=False).json()
        return found


@contextmanager
def oracle(fixtures: Path = FOLDER / "fixtures.json") -> Iterator[Oracle]:
    """The mock on a free port with ``fixtures``. Raises ``Missing``."""
    program = installed(FOLDER) / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    command = ["node", str(program), "-p", "0", "-f", str(fixtures), "--strict", "--validate-on-load"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                yield Oracle(found[1])
                return
        raise AssertionError("the mock ended: " + "".join(seen))
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
