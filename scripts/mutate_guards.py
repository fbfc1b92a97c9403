"""Breaks one guard of the database after the other and tells which tests notice.

Run: scripts/mutate_guards [part of a name]. Each mutant gets databases of its own on one server;
exit 1 when one survives that is not explained as equivalent. --table writes the page's table.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent2389.ledger.embedded import embedded_postgres
from agent2389.ledger.migrate import shipped
from agent2389.telemetry.logs import configure_logging
from tests.support.guard_mutants import MUTANTS, Mutant, mutated

ROOT = Path(__file__).resolve().parent.parent
BY_HAND = (
    "tests/contract/test_ledger_guards.py",
    "tests/contract/test_ledger_claims.py",
    "tests/contract/test_ledger_reaper.py",
)
WALKS = ("tests/contract/test_ledger_stateful.py::test_the_same_short_walks_agree_each_time",)
SLOW = (
    "tests/integration/test_ledger_rights.py::test_the_transition_table_is_that_of_the_code",
    "tests/integration/test_audit.py::test_what_retention_buried_is_no_alarm_and_what_a_hand_removed_is",
    "tests/integration/test_fsck.py::test_a_sealed_event_that_was_changed_is_seen",
    *(f"tests/contract/test_ledger{part}.py" for part in ("", "_rules", "_branches", "_people", "_board")),
)
"""Asked only when the fast ones noticed nothing: these wait for the clock of the machine."""
TIMEOUT_SECONDS = 600


def run(dsn: str, mutant: str, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Whether all passed, and the name of the first test that did not."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.support.mutant_plugin", "-p",
         "no:cacheprovider", "-k", "not memory", "--no-header", *tests],
        cwd=ROOT,
        env={**os.environ, "MUTANT_DSN": dsn, "MUTANT": mutant, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutant or 'the right database'}: pytest could not run\n{done.stdout[-3000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return done.returncode == 0, failed.group(1).rpartition("/")[2] if failed else ""


def judge(dsn: str, mutant: Mutant) -> str:
    """The test that killed it, or an empty string."""
    for tests in (BY_HAND, WALKS, SLOW):
        passed, killer = run(dsn, mutant.name, tests)
        if not passed:
            return killer
    return ""


async def main() -> int:
    """Judge all that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", default="", help="only mutants with this in their name")
    parser.add_argument("--table", action="store_true", help="Markdown rows on stdout")
    parser.add_argument("--no-baseline", action="store_true", help="do not try the right database first")
    asked = parser.parse_args()
    configure_logging("error", "pretty")
    chosen = [item for item in MUTANTS if asked.part in item.name]
    for mutant in chosen:
        mutated(shipped(), mutant)
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="agent2389-mutants-") as data:
        async with embedded_postgres(Path(data)) as server:
            passed, killer = asked.no_baseline, ""
            if not passed:
                passed, killer = run(server.dsn, "", (*BY_HAND, *WALKS))
            if not passed:
                raise SystemExit(f"the right database fails {killer}")
            for mutant in chosen:
                started = time.monotonic()
                killer = await asyncio.to_thread(judge, server.dsn, mutant)
                verdict = "killed" if killer else "equivalent" if mutant.equivalent else "SURVIVED"
                survivors += verdict == "SURVIVED"
                by = killer or mutant.equivalent
                if asked.table:
                    print(f"| {mutant.file} | {mutant.name} | {verdict} | {by} |", flush=True)
                print(
                    f"{verdict:10} {mutant.name:40} {by} ({time.monotonic() - started:.0f} s)",
                    file=sys.stderr,
                )
    print(f"{len(chosen)} mutants, {survivors} survived", file=sys.stderr)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
