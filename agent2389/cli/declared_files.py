"""Arguments of the verbs about files: validate, config, new, tools."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Config, Globals, Json, app, new_app, run_verb, tools_app


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

    run_verb(tools.list_tools(file or Globals.config, as_json=json))


@tools_app.command("pin")
def tools_pin(
    file: Annotated[Optional[Path], typer.Argument(help="Agent file.")] = None,
    server: Annotated[Optional[str], typer.Option(help="Only this MCP server.")] = None,
    json: Json = False,
) -> None:
    """Print the pins of the file's MCP servers, to be pasted into it after reading."""
    from agent2389.cli import tools

    run_verb(tools.pin(file or Globals.config, server=server, as_json=json))
