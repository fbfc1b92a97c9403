"""The tree of verbs and what they share: options before the verb, common argument types."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

COMPLETE = "_AGENT2389_COMPLETE"
"""The variable by which a shell asks for completions."""
FIRST = ("up", "down", "run", "ops", "submit", "watch", "trace", "result", "job", "approval", "agent", "pool")


class InReadingOrder(TyperGroup):
    """Lists the verbs of every day first, whatever module declares them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """``FIRST``, then the others in the order of their declaration."""
        known = super().list_commands(ctx)
        return [name for name in FIRST if name in known] + [name for name in known if name not in FIRST]


app = typer.Typer(
    name="agent2389",
    cls=InReadingOrder,
    help="Durable, event-driven meshes of LLM agents on plain MQTT.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
job_app = typer.Typer(
    help="Jobs: list, show, cancel, retry, explain, answer, correct.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
approval_app = typer.Typer(
    help="Questions about tool calls: list, show, approve, reject.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
agent_app = typer.Typer(
    help="Agents: list, show, pause, drain, restart, logs.", no_args_is_help=True, rich_markup_mode=None
)
pool_app = typer.Typer(help="Pools: list.", no_args_is_help=True, rich_markup_mode=None)
new_app = typer.Typer(help="Write new files: agent.", no_args_is_help=True, rich_markup_mode=None)
db_app = typer.Typer(
    help="The ledger's schema: migrate, status.", no_args_is_help=True, rich_markup_mode=None
)
router_app = typer.Typer(
    help="Routing: explain, eval, replay, schema.", no_args_is_help=True, rich_markup_mode=None
)
tools_app = typer.Typer(
    help="Tools of an agent file: list, pin MCP servers.", no_args_is_help=True, rich_markup_mode=None
)
broker_app = typer.Typer(
    help="The broker's own files: acl, config.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(job_app, name="job")
app.add_typer(approval_app, name="approval")
app.add_typer(pool_app, name="pool")
app.add_typer(router_app, name="router")
app.add_typer(agent_app, name="agent")
app.add_typer(new_app, name="new")
app.add_typer(db_app, name="db")
app.add_typer(tools_app, name="tools")
app.add_typer(broker_app, name="broker")

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


def run_verb(verb: Coroutine[Any, Any, None]) -> None:
    """Run a verb to its end."""
    import asyncio  # noqa: PLC0415 - a fifth of the time that --help takes

    asyncio.run(verb)
