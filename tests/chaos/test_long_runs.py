"""Long fault runs, asked for with ``-m chaos``, and one of hours with ``-m soak``."""

import os
from pathlib import Path

import pytest

from tests.support.chaos import assert_nothing_lost, fault_run

HOUR = 3600.0
RUNS = {
    "kills": ("F1:1", 10_000, ()),
    "zombies": ("F2:2", 5_000, ()),
    "crash points": ("F3:2", 2_000, ("--least-hits", "36")),
    "broker": ("F4:10", 5_000, ()),
    "postgres": ("F5:10", 5_000, ()),
    "both": ("F6:20", 2_000, ()),
    "partitions": ("F7:5", 3_000, ()),
    "backlog": ("F9", 20_000, ()),
    "twins": ("F10:5", 1_000, ()),
    "cancels": ("F11:0.2", 5_000, ()),
    "rolling restarts": ("F12:1", 5_000, ("--least-hits", "10")),
    "poison": ("F13:5", 1_000, ()),
    "read-only": ("F14:10", 1_000, ()),
    "bad model": ("F15:15", 2_000, ("--slots", "8", "--least-hits", "10")),
    "everything": ("F1:5,F2:5,F4:20,F5:20,OPS:15", 3_000, ()),
}


@pytest.mark.chaos
@pytest.mark.timeout(HOUR)
@pytest.mark.parametrize(("faults", "jobs", "options"), RUNS.values(), ids=RUNS.keys())
def test_long_run(tmp_path: Path, faults: str, jobs: int, options: tuple[str, ...]) -> None:
    figures = fault_run(tmp_path, faults, "--jobs", str(jobs), *options, seconds=HOUR)
    assert_nothing_lost(figures, jobs)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak(tmp_path: Path) -> None:
    """``AGENT2389_SOAK_HOURS`` (default 8) at five jobs a second, a kill every half minute."""
    hours = float(os.environ.get("AGENT2389_SOAK_HOURS", "8"))
    options = ("--soak", str(hours), "--lease", "30")
    figures = fault_run(tmp_path, "F1:30,F4:600,F5:900", *options, seconds=(hours + 1) * HOUR)
    assert_nothing_lost(figures, int(hours * HOUR))
    assert figures["soak"]["ops_mb_per_hour"] < 1
    assert figures["soak"]["outbox_age_p99"] < 5
    assert figures["soak"]["ops_files_last"] <= figures["soak"]["ops_files_first"] + 5
