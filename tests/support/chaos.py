"""Fault runs as people start them: `agent2389 chaos` in a process of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.mesh import clean_environ, command


def fault_run(folder: Path, faults: str, *options: str, seconds: float) -> dict[str, Any]:
    """The figures of a run that passed; fails with its reasons, and then leaves its logs in ``folder``.

    ``seconds`` is the most it may take.
    """
    done = subprocess.run(
        command("chaos", "--faults", faults, *options),
        env={**clean_environ(), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.stdout, f"no figures: {done.stderr[-2000:]}"
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, f"{figures['reasons']}\n{done.stderr[-1000:]}\n{json.dumps(figures)}"
    return figures


def assert_nothing_lost(figures: dict[str, Any], jobs: int) -> None:
    """What every run promises, whatever struck."""
    assert figures["accepted"] >= jobs
    ended = sum(figures[kind] for kind in ("completed", "cancelled", "poisoned", "condemned"))
    assert ended == figures["accepted"]
    kinds = ("lost", "double_results", "wrong_results", "failed", "late_writes_accepted", "unexpected_ends")
    assert {kind: figures[kind] for kind in kinds} == dict.fromkeys(kinds, 0)
    assert figures["violations"] == []
    assert figures["most_open_topics"] <= 100
