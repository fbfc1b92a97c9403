"""Programs of other projects from npm, at the versions of a lock file, installed once below .cache/."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.structure import ROOT

INSTALL_SECONDS = 180
OLDEST_NODE = [20, 15]


class Missing(Exception):
    """The programs cannot be had on this machine; the text says why."""


def installed(folder: Path) -> Path:
    """Where the packages of ``folder``'s package-lock.json are installed. Raises ``Missing``."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed, so {folder.name} cannot run")
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if [int(part) for part in re.findall(r"\d+", version)][:2] < OLDEST_NODE:
        raise Missing(f"{folder.name} needs Node {OLDEST_NODE[0]}.{OLDEST_NODE[1]}, this is {version}")
    digest = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()[:12]
    place = ROOT / ".cache" / f"{folder.name}-{digest}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two runs of the tests must not install over one another
        if not (place / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, place / name)
            _install(place)
            (place / "complete").touch()
    return place


def _install(place: Path) -> None:
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command,
            cwd=place,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            env={**os.environ, "npm_config_update_notifier": "false"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"npm ci of {place.name} took too long") from None
    if done.returncode != 0:
        raise Missing(f"npm ci of {place.name} failed: " + done.stderr.strip()[-200:])
