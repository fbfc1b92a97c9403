"""Arguments of the verbs about jobs."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Globals, JobId, Json, app, job_app, run_verb


@app.command()
def submit(
    text: Annotated[Optional[str], typer.Argument(help="The instruction.")] = None,
    capability: Annotated[Optional[str], typer.Option(help="Who may do it (default general).")] = None,
    agent: Annotated[Optional[str], typer.Option(help="One agent by name.")] = None,
    input: Annotated[Optional[str], typer.Option("--input", help="Input as JSON.")] = None,  # noqa: A002
    file: Annotated[Optional[list[Path]], typer.Option("--file", help="A file, repeatable.")] = None,
    budget: Annotated[Optional[float], typer.Option(help="Limit in USD.")] = None,
    route: Annotated[Optional[str], typer.Option(help="Fixed chain of capabilities: a,b,c.")] = None,
    strategy: Annotated[Optional[str], typer.Option(help="Routing strategy for this job.")] = None,
    message: Annotated[
        Optional[str],
        typer.Option("--message", help="Send this as a task of the 2389 protocol, over MQTT, to --agent."),
    ] = None,
    next_agent: Annotated[
        Optional[str], typer.Option("--next-agent", help="Agents that continue: a,b,c.")
    ] = None,
    tool: Annotated[Optional[str], typer.Option(help="A tool the agent shall use.")] = None,
    tool_params: Annotated[
        Optional[str], typer.Option("--tool-params", help="Its parameters as JSON.")
    ] = None,
    conversation_id: Annotated[
        Optional[str], typer.Option("--conversation-id", help="Where the answer goes.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for a --message.")] = 300.0,
    broker: Annotated[Optional[str], typer.Option("--broker", help="Broker URL for --message.")] = None,
    json: Json = False,
) -> None:
    """Submit a job through the API, or with --message a task of the 2389 protocol over MQTT."""
    if (text is None) == (message is None):
        raise typer.BadParameter("give the instruction, or --message with --agent")
    names = [name.strip() for name in (next_agent or "").split(",") if name.strip()]
    if message is not None:
        _submit_message(
            message, agent, names, conversation_id, input, tool, tool_params,
            broker=broker, wait=wait, timeout=timeout, json=json,
        )  # fmt: skip
        return
    from agent2389.cli import jobs

    run_verb(
        jobs.submit(
            Globals.api,
            text or "",
            capability=capability,
            agent=agent,
            input_json=input,
            files=file or (),
            budget=budget,
            route=route,
            strategy=strategy,
            next_agents=names,
            tool=tool,
            tool_params=tool_params,
            conversation_id=conversation_id,
            wait=wait,
            as_json=json,
        )
    )


def _submit_message(
    message: str,
    agent: Optional[str],
    next_agents: list[str],
    conversation_id: Optional[str],
    input_json: Optional[str],
    tool: Optional[str],
    tool_params: Optional[str],
    *,
    broker: Optional[str],
    wait: bool,
    timeout: float,
    json: bool,
) -> None:
    from agent2389.cli import jobs, protocol

    if agent is None:
        raise typer.BadParameter("--message needs --agent")
    wanted = protocol.Wanted(
        agent=agent,
        message=message,
        next_agents=next_agents,
        conversation_id=conversation_id,
        input=jobs.read_option("--input", input_json),
        tool=tool,
        tool_params=jobs.read_option("--tool-params", tool_params),
    )
    run_verb(protocol.submit_message(broker, wanted, wait=wait, timeout=timeout, as_json=json))


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
