"""Verbs for routing: explain a job, play golden cases, replay recorded decisions, print the schema."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from agent2389.cli import output
from agent2389.cli.client import connected
from agent2389.cli.jobs import job_path
from agent2389.config.load import load_agent
from agent2389.config.model import LlmSection, RoutingSection, RoutingStrategy
from agent2389.errors import Agent2389Error, InputRefused
from agent2389.ledger.views import DecisionRow
from agent2389.llm.open import Models, open_model
from agent2389.llm.port import Model
from agent2389.router.build import build_router
from agent2389.router.cases import SPLITS, load_cases
from agent2389.router.evaluate import Played, Score, play, score
from agent2389.router.policy import Policy, load_policy
from agent2389.router.port import Router
from agent2389.router.replay import Replayed
from agent2389.router.replay import replay as replayed
from agent2389.router.schema import decision_schema

DEFAULT_CASES = Path("router/cases")
DEFAULT_STRATEGIES = ("rules", "llm", "hybrid")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PAGE = 200
SHOWN_REASON = 90


class BelowAim(Agent2389Error):
    """The accuracy is lower than ``--at-least``."""

    exit_code = 7


class Bench:
    """One model and one policy on which several strategies are built."""

    def __init__(self, agent: Path | None, policy: Path | None) -> None:
        if agent is None:
            self._routing, self._proxy = RoutingSection(), None
            self._model = open_model(LlmSection(provider="rehearsal", model="rehearsal"))
        else:
            configuration = load_agent(agent).configuration
            self._routing, self._proxy = configuration.routing, configuration.network.proxy
            self._model = Models(configuration.llm, proxy=self._proxy).routing(self._routing.llm)
        self.policy: Policy = load_policy(policy or self._routing.policy)

    def router(self, strategy: str) -> Router:
        """The agent's routing with another strategy. Raises ``InputRefused`` for an unknown one."""
        if strategy not in get_args(RoutingStrategy):
            known = ", ".join(get_args(RoutingStrategy))
            raise InputRefused("invalid", f"there is no strategy {strategy!r}", hint=f"one of {known}")
        routing = self._routing.model_copy(update={"strategy": strategy})
        return build_router(routing, self.policy, self._open, proxy=self._proxy)

    def _open(self) -> Model:
        return self._model

    async def close(self) -> None:
        """Give back connections."""
        await self._model.close()


async def explain(api: str | None, job: str, *, as_json: bool) -> None:
    """Every decision of a job: candidates, scores, who was not chosen and why, what it cost."""
    async with connected(api) as client:
        trace = await client.get(job_path(job, "/trace"))
    decisions = [
        {"hop": hop["hop"], "capability": hop["capability"], "agent_id": hop["agent_id"], **hop["decision"]}
        for hop in trace["hops"]
        if hop.get("decision")
    ]
    if as_json:
        output.document(decisions, job_id=trace["job_id"], state=trace["state"])
        return
    output.data(f"{trace['job_id']}  {trace['state']}")
    for decision in decisions:
        for line in explained(decision):
            output.data(line)
    if not decisions:
        output.say("no hop has decided yet")


def explained(decision: dict[str, Any]) -> list[str]:
    """One decision for people."""
    chosen = decision.get("chosen")
    who = decision["agent_id"] or decision["capability"]
    lines = [
        f"hop {decision['hop']}  {who}  → {chosen or decision['outcome']}  by {decision['strategy']}",
        f"    why: {decision['reason']}",
    ]
    if fallback := decision.get("fallback"):
        lines.append(f"    fallback: {fallback}")
    if flags := decision.get("flags"):
        lines.append(f"    flags: {', '.join(flags)}")
    if join := decision.get("join"):
        then = (join.get("then") or {}).get("capability") or "the job's result"
        lines.append(f"    join: {join['policy']}, {join['needed']} have to complete, then {then}")
    names = {name.strip() for name in (chosen or "").split(",")}
    for candidate in decision.get("candidates", ()):
        mark = "*" if candidate["capability"] in names or names & set(candidate["agents"]) else " "
        points = "" if candidate.get("score") is None else f"  score {candidate['score']:g}"
        lines.append(
            f"  {mark} {candidate['capability']}{points}  {len(candidate['agents'])} agents, "
            f"{candidate['free_slots']} free"
        )
    lines += [f"    not {item['capability']}: {item['why']}" for item in decision.get("rejected", ())]
    if decision.get("model_calls"):
        tokens = decision["input_tokens"] + decision["output_tokens"]
        lines.append(
            f"    {decision['model']}: {decision['model_calls']} calls, {tokens} tokens, "
            f"{output.money(decision['cost_usd'])}, prompt {(decision['prompt_sha256'] or '')[:12]}"
        )
    lines.append(
        f"    took {output.seconds(decision['seconds'])}, "
        f"of which {output.seconds(decision.get('model_seconds', 0.0))} waiting"
    )
    return lines


def evaluate(
    *,
    strategies: Sequence[str],
    cases: Path | None,
    split: str | None,
    agent: Path | None,
    policy: Path | None,
    wrong: bool,
    at_least: float | None,
    as_json: bool,
) -> None:
    """Play golden cases and print accuracy, cost and latency. Raises ``BelowAim``."""
    if split is not None and split not in SPLITS:
        raise InputRefused("invalid", f"there is no split {split!r}", hint=f"one of {', '.join(SPLITS)}")
    folder = cases or DEFAULT_CASES
    found = load_cases(folder, (split,) if split else SPLITS)
    beside = folder.parent / "policy.toml"
    bench = Bench(agent, policy or (beside if agent is None and beside.is_file() else None))

    async def run() -> list[tuple[str, list[Played]]]:
        try:
            return [
                (name, await play(bench.router(name), found)) for name in strategies or DEFAULT_STRATEGIES
            ]
        finally:
            await bench.close()

    played = asyncio.run(run())
    scores = [
        score(name, part, [item for item in items if item.split == part])
        for name, items in played
        for part in ((split,) if split else SPLITS)
    ]
    if as_json:
        rows = [{**msgspec.to_builtins(item), "accuracy": round(item.accuracy, 4)} for item in scores]
        plays = {name: msgspec.to_builtins(items) for name, items in played}
        output.document(rows, plays=plays, cases=len(found), prompt_sha256=bench.policy.prompt_sha256)
    else:
        _print_scores(scores)
        if wrong:
            _print_wrong(played)
    worst = min(item.accuracy for item in scores)
    if at_least is not None and worst < at_least:
        raise BelowAim(f"the lowest accuracy is {worst:.3f}", hint="see which: --wrong")


def _print_scores(scores: list[Score]) -> None:
    heads = (
        "strategy",
        "split",
        "model",
        "right",
        "accuracy",
        "where a rule exists",
        "cost",
        "model",
        "rest",
    )
    rows = [
        (
            item.strategy,
            item.split,
            ",".join(item.models),
            f"{item.right}/{item.plays}",
            f"{item.accuracy:.1%}",
            f"{item.right_with_rule}/{item.with_rule}",
            output.money(item.cost_usd),
            f"{item.model_ms:g} ms",
            f"{item.overhead_ms:g} ms",
        )
        for item in scores
    ]
    output.table(rows, heads)


def _print_wrong(played: list[tuple[str, list[Played]]]) -> None:
    for name, items in played:
        for item in items:
            if not item.right:
                expected = " or ".join(item.expected)
                output.data(
                    f"{name}  {item.split}/{item.case} ({item.order})  expected {expected}, got {item.got}: "
                    f"{item.reason[:SHOWN_REASON]}"
                )


async def replay(
    api: str | None,
    *,
    since: str,
    strategy: str,
    agent: Path | None,
    policy: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """Ask ``strategy`` again about recorded decisions and show where it would have gone instead."""
    age = seconds_of(since)
    bench = Bench(agent, policy)
    try:
        router = bench.router(strategy)
        rows = await _recorded(api, age, limit)
        found, skipped = await replayed(router, rows)
    finally:
        await bench.close()
    same = sum(item.same for item in found)
    if as_json:
        output.document(found and msgspec.to_builtins(found), replayed=len(found), same=same, skipped=skipped)
        return
    output.table([_row(item) for item in found], ("job", "hop", "by", "recorded", "replayed", "same", "why"))
    share = f"{same / len(found):.1%}" if found else "-"
    output.say(f"{len(found)} replayed, {same} the same ({share}), {skipped} could not be asked again")


def _row(item: Replayed) -> tuple[Any, ...]:
    return (
        item.job_id,
        item.hop,
        f"{item.capability}/{item.recorded_strategy}",
        item.recorded,
        item.replayed,
        "yes" if item.same else "NO",
        item.reason[:SHOWN_REASON],
    )


async def _recorded(api: str | None, age: int, limit: int) -> list[DecisionRow]:
    rows: list[DecisionRow] = []
    cursor: str | None = None
    async with connected(api) as client:
        while len(rows) < limit:
            query = {"since": str(age), "limit": str(min(PAGE, limit - len(rows)))}
            page = await client.get("/api/v1/decisions", **query, **({"cursor": cursor} if cursor else {}))
            rows += msgspec.convert(page["data"], list[DecisionRow])
            cursor = page["next_cursor"]
            if cursor is None:
                break
    return rows


def seconds_of(text: str) -> int:
    """``90s``, ``30m``, ``12h``, ``7d`` as seconds. Raises ``InputRefused``."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise InputRefused("invalid", f"{text!r} is not a duration", hint="write it like 90s, 12h or 7d")
    return int(found[1]) * UNITS[found[2]]


def schema(policy: Path | None) -> None:
    """The generated shape of a routing model's answer (``router/decision.schema.json``)."""
    output.data(json.dumps(schema_document(load_policy(policy)), indent=2))


def schema_document(policy: Policy) -> dict[str, Any]:
    """The schema with its title."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "routing_decision",
        **decision_schema(policy.max_fan_out),
    }
