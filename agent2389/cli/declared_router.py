"""Arguments of the verbs about routing."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Globals, JobId, Json, job_app, router_app, run_verb

Policy = Annotated[Optional[Path], typer.Option("--policy", help="Policy file (default: the packaged one).")]
AgentFile = Annotated[
    Optional[Path], typer.Option("--agent", help="Agent file whose model and rules are used.")
]


@job_app.command("explain")
@router_app.command("explain")
def router_explain(job: JobId, json: Json = False) -> None:
    """Show every routing decision of a job: candidates, scores, reasons, cost."""
    from agent2389.cli import router

    run_verb(router.explain(Globals.api, job, as_json=json))


@router_app.command("eval")
def router_eval(
    strategy: Annotated[Optional[list[str]], typer.Option("--strategy", help="Repeatable.")] = None,
    cases: Annotated[Optional[Path], typer.Option("--cases", help="Folder (default router/cases).")] = None,
    split: Annotated[Optional[str], typer.Option("--split", help="tuning or held_out.")] = None,
    agent: AgentFile = None,
    policy: Policy = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="List the wrong decisions.")] = False,
    at_least: Annotated[Optional[float], typer.Option(help="Lowest accuracy, 0 to 1, else exit 7.")] = None,
    json: Json = False,
) -> None:
    """Play golden cases: accuracy, cost and latency of each strategy."""
    from agent2389.cli import router

    router.evaluate(
        strategies=strategy or (),
        cases=cases,
        split=split,
        agent=agent,
        policy=policy,
        wrong=wrong,
        at_least=at_least,
        as_json=json,
    )


@router_app.command("replay")
def router_replay(
    since: Annotated[str, typer.Option("--since", help="How far back: 90s, 12h, 7d.")] = "7d",
    strategy: Annotated[str, typer.Option("--strategy", help="Which to ask again.")] = "rules",
    agent: AgentFile = None,
    policy: Policy = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1000,
    json: Json = False,
) -> None:
    """Ask a strategy again about recorded decisions."""
    from agent2389.cli import router

    run_verb(
        router.replay(
            Globals.api,
            since=since,
            strategy=strategy,
            agent=agent,
            policy=policy,
            limit=limit,
            as_json=json,
        )
    )


@router_app.command("schema")
def router_schema(policy: Policy = None) -> None:
    """Print the only shape a routing model may answer in."""
    from agent2389.cli import router

    router.schema(policy)
