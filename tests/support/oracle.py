"""An independent mock of the model providers: aimock from npm, at an exact version."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.support.structure import ROOT

FOLDER = ROOT / "tests" / "support" / "aimock"
INSTALL_SECONDS = 180
OLDEST_NODE = [20, 15]


class Missing(Exception):
    """The mock cannot be had on this machine; the text says why."""


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
    program = installed() / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
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


def installed() -> Path:
    """The folder it is installed in, once per lock file. Raises ``Missing``."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed, so the provider mock cannot run")
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if [int(part) for part in re.findall(r"\d+", version)][:2] < OLDEST_NODE:
        raise Missing(f"the provider mock needs Node {OLDEST_NODE[0]}.{OLDEST_NODE[1]}, this is {version}")
    lock = FOLDER / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"aimock-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two runs of the tests must not install over one another
        if not (folder / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(FOLDER / name, folder / name)
            _install(folder)
            (folder / "complete").touch()
    return folder


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            env={**os.environ, "npm_config_update_notifier": "false"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Missing("npm ci of the provider mock took too long") from None
    if done.returncode != 0:
        raise Missing("npm ci of the provider mock failed: " + done.stderr.strip()[-200:])
