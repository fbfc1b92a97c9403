"""The command line: arguments in, one verb called, errors as lines and exit codes."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from agent2389 import __version__
from agent2389.errors import Agent2389Error

app = typer.Typer(
    name="agent2389",
    help="Durable, event-driven meshes of LLM agents on plain MQTT.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
job_app = typer.Typer(help="Jobs: list, show, cancel.", no_args_is_help=True, rich_markup_mode=None)
agent_app = typer.Typer(help="Agents: list, show.", no_args_is_help=True, rich_markup_mode=None)
new_app = typer.Typer(help="Write new files: agent.", no_args_is_help=True, rich_markup_mode=None)
db_app = typer.Typer(
    help="The ledger's schema: migrate, status.", no_args_is_help=True, rich_markup_mode=None
)
router_app = typer.Typer(
    help="Routing: explain, eval, replay, schema.", no_args_is_help=True, rich_markup_mode=None
tools_app = typer.Typer(
    help="Tools of an agent file: list, pin MCP servers.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(job_app, name="job")
app.add_typer(router_app, name="router")
app.add_typer(agent_app, name="agent")
app.add_typer(new_app, name="new")
app.add_typer(db_app, name="db")
app.add_typer(tools_app, name="tools")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Data = Annotated[Optional[Path], typer.Option("--data", help="Data folder (default ./.agent2389).")]
Config = Annotated[Optional[Path], typer.Option("-c", "--config", help="Agent file.")]
JobId = Annotated[str, typer.Argument(help="Job id, a unique beginning of one, or @last.")]


class Globals:
    """What stands before the verb."""

    config: Path | None = None
    api: str | None = None
    verbose = 0


@app.callback()
def options(
    config: Config = None,
    api: Annotated[Optional[str], typer.Option("--api", help="Address of the ops service.")] = None,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="-vv shows tracebacks.")] = 0,
) -> None:
    """Options before the verb."""
    Globals.config, Globals.api, Globals.verbose = config, api, verbose


def _await(verb: Coroutine[Any, Any, None]) -> None:
    asyncio.run(verb)


@app.command()
def up(
    data: Data = None,
    agents: Annotated[Optional[Path], typer.Option(help="Folder of agent files (default ./agents).")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is up.")] = False,
    print_env: Annotated[
        bool, typer.Option("--print-env", help="Print how to join the running mesh.")
    ] = False,
) -> None:
    """Run a whole mesh on this machine: ledger, broker, ops, one process for each agent file."""
    from agent2389.cli import mesh

    mesh.up(data, agents, detach=detach, print_env=print_env)


@app.command()
def down(data: Data = None) -> None:
    """Stop the mesh that `up` started on the data folder."""
    from agent2389.cli import mesh

    mesh.down(data)


@app.command()
def run(
    file: Annotated[Optional[Path], typer.Argument(help="Agent file.")] = None, config: Config = None
) -> None:
    """Run one agent."""
    from agent2389.cli import mesh

    mesh.run(file or config or Globals.config)


@app.command()
def ops() -> None:
    """Run the health and operations service."""
    from agent2389.cli import mesh

    mesh.ops()


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

    _await(
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

    _await(jobs.watch(Globals.api, job, as_jsonl=jsonl))


@app.command()
def trace(job: JobId, json: Json = False) -> None:
    """Show who did what in a job, why, how long and at what cost."""
    from agent2389.cli import jobs

    _await(jobs.trace(Globals.api, job, as_json=json))


@app.command()
def result(
    job: JobId,
    wait: Annotated[Optional[float], typer.Option(help="Seconds to wait for it.")] = None,
    json: Json = False,
) -> None:
    """Print the result of a job."""
    from agent2389.cli import jobs

    _await(jobs.result(Globals.api, job, wait=wait, as_json=json))


@job_app.command("list")
def job_list(
    state: Annotated[Optional[str], typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    from agent2389.cli import jobs

    _await(jobs.list_jobs(Globals.api, state=state, limit=limit, as_json=json))


@job_app.command("show")
def job_show(job: JobId, json: Json = False) -> None:
    """Show everything about one job."""
    from agent2389.cli import jobs

    _await(jobs.show(Globals.api, job, as_json=json))


@job_app.command("cancel")
def job_cancel(job: JobId, json: Json = False) -> None:
    """Cancel a job."""
    from agent2389.cli import jobs

    _await(jobs.cancel(Globals.api, job, as_json=json))


@agent_app.command("list")
def agent_list(json: Json = False) -> None:
    """List the agents."""
    from agent2389.cli import mesh

    _await(mesh.agents(Globals.api, as_json=json))


@agent_app.command("show")
def agent_show(name: str, json: Json = False) -> None:
    """Show one agent with its incarnations."""
    from agent2389.cli import mesh

    _await(mesh.show_agent(Globals.api, name, as_json=json))


Policy = Annotated[Optional[Path], typer.Option("--policy", help="Policy file (default: the packaged one).")]
AgentFile = Annotated[
    Optional[Path], typer.Option("--agent", help="Agent file whose model and rules are used.")
]


@router_app.command("explain")
def router_explain(job: JobId, json: Json = False) -> None:
    """Show every routing decision of a job: candidates, scores, reasons, cost."""
    from agent2389.cli import router

    _await(router.explain(Globals.api, job, as_json=json))


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

    _await(
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


@app.command()
def validate(
    file: Annotated[Optional[list[Path]], typer.Argument(help="Agent files.")] = None,
    config: Config = None,
    json: Json = False,
    online: Annotated[
        bool, typer.Option("--online", help="Also ask broker and ledger, and look for keys.")
    ] = False,
) -> None:
    """Check agent files; all problems at once."""
    from agent2389.cli import configuration

    named = config or Globals.config
    configuration.validate(file or ([named] if named else []), as_json=json, online=online)


@app.command("config")
def show_config(
    show: Annotated[bool, typer.Option("--show", help="Values with their origins, secrets masked.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="JSON Schema of an agent file.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show the configuration or its schema."""
    from agent2389.cli import configuration

    configuration.config(config or Globals.config, show=show, as_schema=schema, as_json=json)


@new_app.command("agent")
def new_agent(
    name: str,
    template: Annotated[str, typer.Option(help="basic, routing or tools.")] = "basic",
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path("agents"),
) -> None:
    """Write a new agent file."""
    from agent2389.cli import configuration

    configuration.new_agent(name, template, folder)


@tools_app.command("list")
def tools_list(
    file: Annotated[Optional[Path], typer.Argument(help="Agent file.")] = None, json: Json = False
) -> None:
    """Open the tools of an agent file; tell what works, what is skipped and why."""
    from agent2389.cli import tools

    _await(tools.list_tools(file or Globals.config, as_json=json))


@tools_app.command("pin")
def tools_pin(
    file: Annotated[Optional[Path], typer.Argument(help="Agent file.")] = None,
    server: Annotated[Optional[str], typer.Option(help="Only this MCP server.")] = None,
    json: Json = False,
) -> None:
    """Print the pins of the file's MCP servers, to be pasted into it after reading."""
    from agent2389.cli import tools

    _await(tools.pin(file or Globals.config, server=server, as_json=json))


@db_app.command("migrate")
def db_migrate(json: Json = False) -> None:
    """Bring the ledger's schema up to date."""
    from agent2389.cli import mesh

    _await(mesh.database("migrate", as_json=json))


@db_app.command("status")
def db_status(json: Json = False) -> None:
    """List applied and missing migrations."""
    from agent2389.cli import mesh

    _await(mesh.database("status", as_json=json))


@app.command()
def fsck(
    quiet_wait: Annotated[
        float, typer.Option("--quiet-wait", min=0, help="Seconds to wait for what still settles.")
    ] = 0.0,
    repair: Annotated[bool, typer.Option("--repair", help="Set right what needs no guess.")] = False,
    json: Json = False,
) -> None:
    """Check that everything holds in the ledger and on the broker."""
    from agent2389.cli import proving

    _await(proving.fsck(quiet_wait=quiet_wait, repair=repair, as_json=json))


@app.command()
def chaos(
    faults: Annotated[str, typer.Option(help="Which, each with its own seconds if given: F1,F5:10.")] = "F1",
    every: Annotated[Optional[float], typer.Option(min=0.05, help="Seconds between two of a kind.")] = None,
    jobs: Annotated[int, typer.Option(min=1)] = 1000,
    agents: Annotated[int, typer.Option(min=3)] = 6,
    slots: Annotated[int, typer.Option(min=1, help="Tasks at once for each agent.")] = 2,
    lease: Annotated[float, typer.Option(min=1, help="Lease of a claim in seconds.")] = 3.0,
    work: Annotated[float, typer.Option(min=0, help="Seconds that each step takes.")] = 0.0,
    outage: Annotated[float, typer.Option(min=0, help="Seconds that a killed server stays away.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0, help="Go on submitting for so long.")] = 0.0,
    rate: Annotated[float, typer.Option(min=0, help="Jobs a second; 0: as fast as possible.")] = 0.0,
    soak: Annotated[float, typer.Option(min=0, help="Hours: five jobs a second, memory watched.")] = 0.0,
    least_hits: Annotated[int, typer.Option("--least-hits", min=0, help="Fewer hits prove nothing.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the choice of victims.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Keep everything in this folder.")] = None,
) -> None:
    """Break a real mesh on purpose and count what got lost; the last line is JSON."""
    from agent2389.cli import proving
    from agent2389.proving.plan import Plan, read_faults

    plan = Plan(
        data=(data or proving.scratch_folder()).resolve(),
        faults=read_faults(faults, every),
        jobs=jobs,
        agents=agents,
        slots=slots,
        lease=lease,
        work=work,
        outage=outage,
        seed=seed,
        seconds=soak * 3600 or seconds,
        rate=rate or (5.0 if soak else 0.0),
        least_hits=least_hits,
        sample=60.0 if soak else 0.0,
    )
    _await(proving.chaos(plan, keep=data is not None))


@app.command()
def healthcheck(path: Annotated[str, typer.Option(help="Which probe to ask.")] = "/live") -> None:
    """Ask the process of this machine or container for its health; for container health checks."""
    from agent2389.cli import mesh

    mesh.healthcheck(path)


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"agent2389 {__version__}\n")


def main() -> None:
    """Entry point. Exit codes: 0 ok, 1 unexpected, 2 usage, 3 configuration or input, 4 not allowed,
    5 not found or unhealthy, 6 conflict, 7 job did not succeed, 8 wait timed out, 9 unreachable,
    10 drain timed out, 130 interrupted.
    """
    try:
        app()
    except Agent2389Error as error:
        _fail(error)
    except BaseExceptionGroup as group:
        known = group.subgroup(Agent2389Error)
        if known is None:
            raise
        _fail(_first(known))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(0) from None


def _first(group: BaseExceptionGroup[Agent2389Error]) -> Agent2389Error:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _fail(error: Agent2389Error) -> None:
    from agent2389.cli import output

    if Globals.verbose > 1:
        raise error
    output.report(error)
    raise SystemExit(error.exit_code) from None
