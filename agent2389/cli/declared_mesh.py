"""Arguments of the verbs that run things: up, down, run, ops, db, healthcheck, completion."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389 import __version__
from agent2389.cli.app import COMPLETE, Config, Data, Globals, Json, app, db_app, run_verb


class Shell(StrEnum):
    """Shells that completions can be printed for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


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


@db_app.command("migrate")
def db_migrate(json: Json = False) -> None:
    """Bring the ledger's schema up to date."""
    from agent2389.cli import mesh

    run_verb(mesh.database("migrate", as_json=json))


@db_app.command("status")
def db_status(json: Json = False) -> None:
    """List applied and missing migrations."""
    from agent2389.cli import mesh

    run_verb(mesh.database("status", as_json=json))


@app.command()
def healthcheck(path: Annotated[str, typer.Option(help="Which probe to ask.")] = "/live") -> None:
    """Ask the process of this machine or container for its health; for container health checks."""
    from agent2389.cli import mesh

    mesh.healthcheck(Globals.api, path)


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose.")] = Shell.BASH,
) -> None:
    """Print completions for a shell; in bash: eval "$(agent2389 completion)"."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="agent2389", complete_var=COMPLETE, shell=shell.value)
    sys.stdout.write(script + "\n")


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"agent2389 {__version__}\n")
