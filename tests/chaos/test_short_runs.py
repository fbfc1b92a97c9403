"""Short fault runs on real processes, a real broker and a real Postgres; the long ones stand beside."""

from pathlib import Path

import pytest

from tests.support.chaos import assert_nothing_lost, fault_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(330)]
MOST_SECONDS = 300.0


def test_a_thousand_jobs_at_one_kill_a_second(tmp_path: Path) -> None:
    figures = fault_run(tmp_path, "F1:1", "--jobs", "1000", seconds=MOST_SECONDS)
    assert_nothing_lost(figures, 1000)
    assert figures["hits"]["F1"] >= 3, "only a kill of an agent that owned a task proves anything"
    assert figures["restart"]["p99"] <= figures["restart_limit_seconds"]


def test_whoever_wakes_up_too_late_changes_nothing(tmp_path: Path) -> None:
    figures = fault_run(tmp_path, "F2:2", "--jobs", "100", "--least-hits", "2", seconds=MOST_SECONDS)
    assert_nothing_lost(figures, 100)
    assert figures["late_writes_refused"] > 0


@pytest.mark.parametrize("fault", ["F4:3", "F5:3", "F6:4"], ids=["broker", "postgres", "both"])
def test_servers_that_die_take_no_accepted_job_with_them(tmp_path: Path, fault: str) -> None:
    figures = fault_run(tmp_path, fault, "--jobs", "80", "--least-hits", "2", seconds=MOST_SECONDS)
    assert_nothing_lost(figures, 80)
    assert figures["strikes"][fault.partition(":")[0]] >= 2


def test_a_rolling_restart_burns_nothing(tmp_path: Path) -> None:
    options = ("--jobs", "50", "--agents", "3", "--least-hits", "1")
    figures = fault_run(tmp_path, "F12:0.2", *options, seconds=MOST_SECONDS)
    assert_nothing_lost(figures, 50)
    assert (figures["crashes"], figures["retries"]) == (0, 0)
    assert set(figures["drain_codes"]) == {"0"}


def test_a_bad_model_endpoint_costs_time_and_no_job(tmp_path: Path) -> None:
    options = ("--jobs", "60", "--rate", "6", "--slots", "6", "--least-hits", "2")
    figures = fault_run(tmp_path, "F15:4", *options, seconds=MOST_SECONDS)
    assert_nothing_lost(figures, 60)
    assert set(figures["model"]["fates"]) == {"answered", "cut", "failed", "silent", "throttled"}
    assert (figures["retries"], figures["crashes"]) == (0, 0), "the model's failures burn no attempt"
    assert figures["cost_usd"] == pytest.approx(figures["model"]["billed_usd"], abs=1e-3)


def test_a_backlog_is_drained_and_the_broker_holds_a_window_of_it(tmp_path: Path) -> None:
    figures = fault_run(tmp_path, "F9", "--jobs", "250", seconds=MOST_SECONDS)
    assert_nothing_lost(figures, 250)
    assert figures["most_open_topics"] == 100, "the window was full"
