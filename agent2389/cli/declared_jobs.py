"""Arguments of the verbs about jobs."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Globals, JobId, Json, app, job_app, run_verb


@app.command()
def submit(
    text: Annotated[str, typer.Argument(help="The instruction.")],
    capability: Annotated[Optional[str], typer.Option(help="Who may do it (default general).")] = None,
    agent: Annotated[Optional[str], typer.Option(help="One agent by name.")] = None,
    input: Annotated[Optional[str], typer.Option("--input", help="Input as JSON.")] = None,  # noqa: A002
    file: Annotated[Optional[list[Path]], typer.Option("--file", help="A file, repeatable.")] = None,
    budget: Annotated[Optional[float], typer.Option(help="Limit in USD.")] = None,
    route: Annotated[Optional[str], typer.Option(help="Fixed chain of capabilities: a,b,c.")] = None,
    strategy: Annotated[Optional[str], typer.Option(help="Routing strategy for this job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    json: Json = False,
) -> None:
    """Submit a job."""
    from agent2389.cli import jobs

    run_verb(
        jobs.submit(
            Globals.api,
            text,
            capability=capability,
            agent=agent,
            input_json=input,
            files=file or (),
            budget=budget,
            route=route,
            strategy=strategy,
            wait=wait,
            as_json=json,
        )
    )


@app.command()
def watch(
    job: JobId, jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line.")] = False
) -> None:
    """Follow the events of a job until it ends."""
    from agent2389.cli import jobs

    run_verb(jobs.watch(Globals.api, job, as_jsonl=jsonl))


@app.command()
def trace(job: JobId, json: Json = False) -> None:
    """Show who did what in a job, why, how long and at what cost."""
    from agent2389.cli import jobs

    run_verb(jobs.trace(Globals.api, job, as_json=json))


@app.command()
def result(
    job: JobId,
    wait: Annotated[Optional[float], typer.Option(help="Seconds to wait for it.")] = None,
    json: Json = False,
) -> None:
    """Print the result of a job."""
    from agent2389.cli import jobs

    run_verb(jobs.result(Globals.api, job, wait=wait, as_json=json))


@job_app.command("list")
def job_list(
    state: Annotated[Optional[str], typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    from agent2389.cli import jobs

    run_verb(jobs.list_jobs(Globals.api, state=state, limit=limit, as_json=json))


@job_app.command("show")
def job_show(job: JobId, json: Json = False) -> None:
    """Show everything about one job."""
    from agent2389.cli import jobs

    run_verb(jobs.show(Globals.api, job, as_json=json))


@job_app.command("cancel")
def job_cancel(job: JobId, json: Json = False) -> None:
    """Cancel a job."""
    from agent2389.cli import jobs

    run_verb(jobs.cancel(Globals.api, job, as_json=json))
