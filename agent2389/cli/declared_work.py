"""Arguments of the verbs about what work said, did and cost: transcripts, calls in doubt, budgets."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Globals, JobId, Json, app, job_app, run_verb

budget_app = typer.Typer(
    help="Budgets of the tenant: list, show, set.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(budget_app, name="budget")


@job_app.command("transcript")
def job_transcript(
    job: JobId,
    format: Annotated[str, typer.Option("--format", help="markdown or jsonl.")] = "markdown",  # noqa: A002
    out: Annotated[Optional[Path], typer.Option("--out", help="Write to this file.")] = None,
) -> None:
    """Print what was said on a job, with every call and its cost."""
    from agent2389.cli import work

    run_verb(work.transcript(Globals.api, job, form=format, out=out))


@job_app.command("resolve")
def job_resolve(
    job: JobId,
    happened: Annotated[
        bool, typer.Option("--happened/--not-happened", help="Whether the call in doubt was made.")
    ],
    answer: Annotated[str, typer.Option("--answer", help="What it answered, for the model.")] = "done",
    call: Annotated[Optional[str], typer.Option("--call", help="Which, if several: TASK/STEP/CALL.")] = None,
    json: Json = False,
) -> None:
    """Say what became of a call that a crash left in doubt; the task goes on with it."""
    from agent2389.cli import work

    run_verb(work.resolve(Globals.api, job, happened=happened, answer=answer, which=call, as_json=json))


@app.command("usage")
@budget_app.command("list")
@budget_app.command("show")
def budget_show(json: Json = False) -> None:
    """Show what the tenant used today, this month and in all, beside its limits."""
    from agent2389.cli import work

    run_verb(work.show_budget(Globals.api, as_json=json))


@budget_app.command("set")
def budget_set(
    period: Annotated[str, typer.Argument(help="day, month or all.")],
    unit: Annotated[str, typer.Argument(help="cost_usd, tokens, tool_calls or seconds.")],
    limit: Annotated[str, typer.Argument(help="The limit, or none.")],
    json: Json = False,
) -> None:
    """Set a limit of the tenant; calls that would pass it are refused before they are made."""
    from agent2389.cli import work

    run_verb(work.set_budget(Globals.api, period, unit, limit, as_json=json))
