"""The README's blocks work as printed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.mesh import clean_environ, running_mesh
from tests.support.structure import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 220


def test_every_file_it_names_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
def test_its_commands_work(tmp_path: Path) -> None:
    commands = [block for block in BLOCKS if not block.startswith("scripts/")]
    assert len(commands) >= 6
    script = "set -euo pipefail\n" + "\n".join(commands)
    beside = ROOT / ".venv" / "bin" / "agent2389"
    if not beside.exists():
        pytest.skip("the project's environment is not .venv")
    with running_mesh(tmp_path / "data") as mesh:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env={**clean_environ(), "AGENT2389_DATA": str(mesh.data), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"state": "completed"' in done.stdout
        assert '"ready": true' in done.stdout
        assert mesh.heard("/conversations/readme/writer")["response"]
