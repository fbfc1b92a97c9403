"""Arguments of the verbs that need a broker alone: monitor, publish, retained."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Json, app, run_verb

retained_app = typer.Typer(
    help="What the broker keeps: list, clear.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(retained_app, name="retained")

Broker = Annotated[Optional[str], typer.Option("--broker", help="Broker URL (default MQTT_BROKER_URL).")]
Filters = Annotated[
    Optional[list[str]], typer.Argument(help="Topics or filters (default: all of the mesh and the protocol).")
]


@app.command()
def monitor(
    mode: Annotated[
        str, typer.Option(help="all, availability, inputs, conversations, progress or mesh.")
    ] = "all",
    format: Annotated[str, typer.Option("--format", help="pretty, compact or json.")] = "pretty",  # noqa: A002
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line, as --format json.")] = False,
    agent: Annotated[Optional[str], typer.Option(help="Only messages of this agent.")] = None,
    count: Annotated[Optional[int], typer.Option(min=1, help="End after so many messages.")] = None,
    seconds: Annotated[Optional[float], typer.Option(min=0, help="End after so many seconds.")] = None,
    broker: Broker = None,
) -> None:
    """Show what goes over the broker."""
    from agent2389.cli import monitor as watching

    try:
        wanted, form = watching.Mode(mode), watching.Format("json" if jsonl else format)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    run_verb(watching.monitor(broker, mode=wanted, form=form, agent=agent, count=count, seconds=seconds))


@app.command()
def publish(
    topic: Annotated[str, typer.Argument(help="Where.")],
    message: Annotated[Optional[str], typer.Argument(help="What (default: standard input).")] = None,
    file: Annotated[Optional[Path], typer.Option("--file", help="Publish the content of a file.")] = None,
    retain: Annotated[bool, typer.Option("--retain", help="The broker keeps it.")] = False,
    qos: Annotated[int, typer.Option(min=0, max=1, help="0 or 1.")] = 1,
    broker: Broker = None,
) -> None:
    """Publish one message."""
    from agent2389.cli import retained

    run_verb(retained.publish(broker, topic, message, file=file, retain=retain, qos=qos))


@retained_app.command("list")
def retained_list(filters: Filters = None, broker: Broker = None, json: Json = False) -> None:
    """List retained messages."""
    from agent2389.cli import retained

    run_verb(retained.list_retained(broker, filters or (), as_json=json))


@retained_app.command("clear")
def retained_clear(
    filters: Annotated[list[str], typer.Argument(help="Topics or filters to clear.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask about topics of others.")] = False,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Clear retained messages; asks before it clears what is not this mesh's."""
    from agent2389.cli import retained

    run_verb(retained.clear_retained(broker, filters, assume_yes=yes, as_json=json))
