"""How right the routing strategies are on the golden cases, and what a hop's routing costs without a model.

Run: .venv/bin/python bench/router.py [ROUNDS]. Prints markdown tables with machine and date.
"""

import asyncio
import datetime as dt
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent2389.config.model import RoutingSection
from agent2389.llm.messages import Reply, Request
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.router.build import build_router
from agent2389.router.cases import SPLITS, load_cases
from agent2389.router.evaluate import play, score
from agent2389.router.policy import Policy, load_policy, read_rules
from agent2389.router.port import Candidate, Router, Situation, Step

POOLS, STEPS, RULES = 50, 10, 50
AIM_MS = 2.0


class Instant(RehearsalModel):
    """Answers at once with the first candidate: what is left is the routing step's own time."""

    async def answer(self, request: Request) -> Reply:
        found = {"complete": False, "next": 0, "reason": "first", "instruction": None}
        return Reply(text=json.dumps(found), structured=found, model="instant", cost_usd=0.0)


def busy() -> Situation:
    """A mesh with many pools, late in a long job, with a long answer."""
    return Situation(
        instruction="Write a report of everything. " * 20,
        answer="A fact stands here. " * 1000,
        own_capability="pool-0",
        agent_id="agent-0",
        hop=STEPS + 1,
        max_hops=64,
        steps=tuple(
            Step(hop=hop, capability=f"pool-{hop}", agent_id=f"agent-{hop}", summary="A fact. " * 250)
            for hop in range(1, STEPS + 1)
        ),
        candidates=tuple(
            Candidate(
                capability=f"pool-{number}",
                description="Turns notes and facts into a first draft of a text.",
                agents=tuple(f"agent-{number}-{copy}" for copy in range(4)),
                free_slots=4,
                slots=16,
            )
            for number in range(POOLS)
        ),
    )


async def overhead(router: Router, rounds: int) -> tuple[float, float]:
    """Median and 99th percentile of one decision in milliseconds, waiting for the model left out."""
    situation = busy()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        decision = await router.decide(situation)
        found.append((time.perf_counter() - started - decision.model_seconds) * 1000)
        assert decision.targets, decision.reason
    found.sort()
    return found[len(found) // 2], found[int(len(found) * 0.99)]


def routers() -> list[tuple[str, Any]]:
    never = [
        {"path": "$.answer", "operator": "matches", "value": f"never-{number}$", "to": "pool-1"}
        for number in range(RULES - 1)
    ]
    rules = read_rules([*never, {"path": "$.own_capability", "to": "pool-20", "priority": -1}])
    policy = Policy(max_hops=64, prompt="decide")
    return [
        (
            f"rules ({RULES}, the last matches)",
            build_router(RoutingSection(strategy="rules", rules=rules), policy, Instant),
        ),
        ("llm, model that answers at once", build_router(RoutingSection(strategy="llm"), policy, Instant)),
    ]


async def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {dt.date.today()}\n"
    )
    cases = load_cases(ROOT / "router" / "cases")
    print("| strategy | cases | right | accuracy | right where a rule exists | out of list | model p50 |")
    print("|---|---|---|---|---|---|---|")
    for strategy in ("rules", "llm", "hybrid"):
        router = build_router(RoutingSection(strategy=strategy), load_policy(), RehearsalModel)
        played = await play(router, cases)
        for split in SPLITS:
            found = score(strategy, split, [item for item in played if item.split == split])
            name = f"{strategy} (rehearsal)" if found.models else strategy
            print(
                f"| {name} | {split} | {found.right}/{found.plays} | {found.accuracy:.1%} | "
                f"{found.right_with_rule}/{found.with_rule} | {found.out_of_list} | {found.model_ms:g} ms |"
            )
    print(f"\n| routing overhead of a hop ({POOLS} pools, {STEPS} steps, 20 kB answer) | p50 | p99 | aim |")
    print("|---|---|---|---|")
    for name, router in routers():
        middle, late = await overhead(router, rounds)
        print(f"| {name} | {middle:.2f} ms | {late:.2f} ms | ≤ {AIM_MS:g} ms |")


if __name__ == "__main__":
    asyncio.run(main())
