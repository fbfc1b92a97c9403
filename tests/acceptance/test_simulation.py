"""The simulator: whole meshes on a virtual clock keep every promise, the same way each time, and it can tell."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent2389.ledger import memory_agents
from agent2389.ledger.memory import MemoryLedger
from agent2389.ledger.records import Submitted
from agent2389.ledger.states import JobState
from agent2389.proving.sim import SimPlan, simulate
from agent2389.proving.sim_faults import FAULTS
from agent2389.proving.sim_people import Producers
from agent2389.proving.sim_seeds import Sums, play
from agent2389.upkeep.intake import Intake
from agent2389.upkeep.reconcile import Reconciled, Reconciler

SEEDS = 300


def run(*arguments: str, hash_seed: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "agent2389", "sim", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_seed_replays_to_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    logs = []
    for hash_seed in ("1", "4711"):
        file = tmp_path / f"{hash_seed}.log"
        done = run("--seed", "20", "--seeds", "5", "--log", str(file), hash_seed=hash_seed)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert figures["seeds"] == 5
        assert figures["failed_seeds"] == []
        logs.append((file.read_bytes(), figures["log_sha256"]))
    assert logs[0] == logs[1]
    assert logs[0][0].count(b"\n") > 3000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_hundred_seeds_keep_every_promise() -> None:
    sums, plan, started = Sums(), SimPlan(), time.process_time()
    for outcome in play(range(SEEDS), plan):
        assert outcome.found == (), f"play it again: {outcome.replay(plan)}"
        sums.add(outcome)
    figures = sums.figures()
    print(f"\n{time.process_time() - started:.1f} s of processor time: {figures}")  # noqa: T201
    assert sum(figures.jobs.values()) >= SEEDS * plan.jobs * 0.9
    assert figures.faults.keys() == FAULTS.keys()
    # Faults that hit nothing prove nothing.
    assert figures.crashes >= SEEDS
    assert figures.late_writes_refused > 0
    assert figures.messages_dropped > 0
    assert figures.decided_by_person > 0


# a simulator that finds nothing in a broken mesh is worth nothing -------------------------


def found_in(seeds: range) -> str:
    """What the first seed that finds something says."""
    outcomes = play(seeds, SimPlan())
    return next(("\n".join(outcome.found) for outcome in outcomes if outcome.found), "nothing")


def test_a_fence_without_its_lease_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(tables: Any, task: Any, fence: Any) -> bool:
        return bool(task.epoch == fence.epoch and task.owner is not None)

    monkeypatch.setattr("agent2389.ledger.memory_owners.holds", careless)
    monkeypatch.setattr(memory_agents, "holds", careless)
    assert "a late" in found_in(range(40))


def test_a_job_that_was_only_promised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = MemoryLedger.submit

    async def forgetful(self: MemoryLedger, job: Any) -> Submitted:
        if job.source == "http":
            return Submitted(job_id=job.job_id, verdict="accepted", state=JobState.QUEUED)
        return await kept(self, job)

    monkeypatch.setattr(MemoryLedger, "submit", forgetful)
    assert "was accepted and is gone" in found_in(range(8))


def test_a_mesh_that_never_compares_its_board_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(self: Reconciler) -> Reconciled:
        return Reconciled(0, 0)

    monkeypatch.setattr(Reconciler, "compare", blind)
    monkeypatch.setattr(Reconciler, "compare_all", blind)
    assert "on the broker" in found_in(range(30))


def test_producers_that_give_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Producers, wish: Any) -> None:
        raise ValueError("a bug of the simulator")

    monkeypatch.setattr(Producers, "_one", broken)
    assert "the producers gave up" in found_in(range(1))


def test_a_handler_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Intake, delivery: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Intake, "on_cancel", broken)
    assert "unexpected: handler failed: ValueError: a bug" in found_in(range(12))


def test_a_violation_is_told_with_the_way_to_play_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SimPlan(jobs=3, faults=4, seconds=60.0)
    outcome = simulate(5, plan)
    assert outcome.found == ()
    assert outcome.replay(plan) == "agent2389 sim --seed 5 --jobs 3 --faults 4 --minutes 1 --log sim-5.log"
    assert simulate(5, plan).log == outcome.log
    assert simulate(6, plan).log != outcome.log
