"""Pages that follow from the program say what the program does now."""

import subprocess
import sys
from pathlib import Path

from agent2389.config.environment import VARIABLES
from tests.support.mesh import clean_environ
from tests.support.structure import ROOT


def test_settings_metrics_and_commands_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_docs.py", "--check"],
        env={**clean_environ(), "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_drifts_is_shown(tmp_path: Path) -> None:
    for page in ("configuration.md", "metrics.md", "commands.md"):
        text = (ROOT / "docs" / page).read_text()
        (tmp_path / page).write_text(text.replace("`agent2389_claims_total`", "`agent2389_claims`"))
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_docs.py", "--check", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "+| `agent2389_claims_total`" in done.stdout
    assert "scripts/docs" in done.stderr


def test_every_environment_name_has_a_line() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for variable in VARIABLES:
        assert f"| `{variable.name}` |" in text


def test_every_setting_that_is_explained_is_explained_once() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "configuration.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 80
    assert not [row for row in rows if row.count("|") < 4]
