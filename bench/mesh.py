"""How long `up` takes, how fast an idle mesh starts a job, how much memory an idle agent holds.

Run: .venv/bin/python bench/mesh.py [JOBS]. Prints a markdown table with machine and date.
"""

import asyncio
import datetime as dt
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent2389.cli.client import connected
from tests.support.mesh import command, running_mesh


def help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run(command("--help"), check=True, capture_output=True)
    return time.perf_counter() - started


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


def agent_pids(data: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"agent2389" in line and b"run" in line and os.environ.get("MARK", "").encode() in environ:
                found.append(int(entry.name))
    return found


async def start_latencies(api: str, jobs: int) -> tuple[list[float], list[float]]:
    """Submit → claimed in milliseconds on the ledger's clock, one job at a time; and for hand-offs the
    commit of the first hop → the claim of the second.
    """
    found, handed = [], []
    async with connected(api) as client:
        for number in range(jobs):
            body = {
                "instruction": f"Write. The sea of day {number} is calm.",
                "capability": "writing",
                "next": {"capability": "editing"},
            }
            _, answer = await client.ask("POST", "/api/v1/jobs", json=body)
            await client.ask("GET", f"/api/v1/jobs/{answer['job_id']}/result", params={"wait": "10"})
            trace = await client.get(f"/api/v1/jobs/{answer['job_id']}/trace")
            found.append(trace["hops"][0]["claim_ms"])
            handed.append(trace["hops"][1]["claim_ms"])
    return sorted(found), sorted(handed)


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rows: list[tuple[str, str, str]] = []
    helps = sorted(help_seconds() for _ in range(7))
    rows.append(
        (
            "`agent2389 --help`, best / median of 7",
            f"{helps[0] * 1000:.0f} / {helps[3] * 1000:.0f} ms",
            "≤ 150 ms",
        )
    )
    os.environ["MARK"] = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "mesh"
        for label, aim in (("cold `up` to its address", "-"), ("warm `up` to its address", "≤ 3 s")):
            log = data.parent / "up.log"
            log.unlink(missing_ok=True)
            with running_mesh(data, MARK=os.environ["MARK"]) as mesh:
                took = next(line for line in log.read_text().splitlines() if line.startswith("up in"))
                rows.append((label, took.split("·")[0].removeprefix("up in").strip(), aim))
                if label.startswith("warm"):
                    time.sleep(3)
                    sizes = [memory_mb(pid) for pid in agent_pids(data)]
                    rows.append(
                        (
                            "memory of an idle agent (PSS), median",
                            f"{statistics.median(sizes):.0f} MB",
                            "≤ 50 MB",
                        )
                    )
                    os.environ["AGENT2389_TOKEN"] = mesh.exported["AGENT2389_TOKEN"]
                    both = asyncio.run(start_latencies(mesh.exported["AGENT2389_API"], jobs))
                    for what, found in zip(("submit", "finish of a hop"), both, strict=True):
                        p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
                        row = f"{what} → claimed, idle mesh, {jobs} jobs, p50 / p99"
                        rows.append((row, f"{p50:.1f} / {p99:.1f} ms", "-"))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {dt.date.today()}\n"
    )
    print("| figure | measured | aim |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
