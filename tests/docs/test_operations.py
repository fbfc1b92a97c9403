"""The runbook's commands work as printed, in their order."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agent2389.wire.notice import signed_headers, signing_key
from tests.support.mesh import clean_environ, running_mesh
from tests.support.structure import ROOT
from tests.support.webhook_receiver import SECRET

TEXT = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)


def test_every_exit_code_of_the_program_has_its_line() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert told == {*range(11), 130}


def test_every_verb_it_names_exists() -> None:
    known = (ROOT / "docs" / "commands.md").read_text()
    named = set(re.findall(r"agent2389 ((?:job|agent|approval|pool) [a-z]+)", TEXT))
    named |= set(re.findall(r"`((?:job|approval|agent|pool) [a-z]+)[ `]", TEXT))
    assert len(named) >= 15
    for verb in named:
        assert f"## `agent2389 {verb}`" in known, verb


def test_the_check_of_a_signature_works_as_printed() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    room: dict[str, Any] = {}
    exec(snippet, room)
    body = b'{"type": "job.failed"}'
    for moment, said, genuine in (
        (int(time.time()), body, True),
        (int(time.time()), b"something else", False),
        (int(time.time()) - 3600, body, False),
    ):
        headers = signed_headers(signing_key(SECRET), "evt_1", moment, body)
        assert room["is_genuine"](SECRET, headers, said) is genuine


def test_its_commands_work(tmp_path: Path) -> None:
    beside = ROOT / ".venv" / "bin"
    if not (beside / "agent2389").exists():
        pytest.skip("the project's environment is not .venv")
    assert len(BLOCKS) >= 7
    script = "set -euxo pipefail\n" + "\n".join(BLOCKS)
    with running_mesh(tmp_path / "data") as mesh:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env={
                **clean_environ(),
                "AGENT2389_DATA": str(mesh.data),
                "PATH": f"{beside}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for expected in (
            "nobody here speaks Danish",
            "Havet er dybt.",
            "Havet er meget dybt.",
            "writer restart ",
        ):
            assert expected in done.stdout, expected
