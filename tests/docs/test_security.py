"""The commands of docs/security.md work as printed, and its table is the program's."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent2389.broker.access import RULES, Role
from agent2389.broker.passwords import read_password_file
from tests.support.mesh import clean_environ
from tests.support.structure import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_every_kind_of_topic_and_every_role_has_its_place() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert [row[0].strip(" `") for row in rows] == [rule.kind for rule in RULES]
    assert {len(row) for row in rows} == {len(Role) + 1}
    for role in Role:
        assert f"- **{role}**: " in PAGE


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_its_commands_work(tmp_path: Path) -> None:
    beside = ROOT / ".venv" / "bin"
    if not (beside / "agent2389").exists():
        pytest.skip("the project's environment is not .venv")
    assert len(BLOCKS) == 4
    for name in ("broker", "agents"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + "\n".join(BLOCKS) + '\nprintf "%s" "$MQTT_PASSWORD" > used'],
        cwd=tmp_path,
        env={**clean_environ(), "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("server.crt: OK") == 2
    assert "agents/researcher.toml: ok" in done.stdout
    folder = tmp_path / "broker-files"
    assert {path.name for path in folder.iterdir()} == {"mosquitto.conf", "passwords", "acl", "certs", "data"}
    hashes = read_password_file((folder / "passwords").read_text())
    assert hashes["researcher"].matches((tmp_path / "used").read_text())
