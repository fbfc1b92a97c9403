"""Arguments of the verbs about the broker's files: acl, config."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Json, broker_app

Files = Annotated[
    Optional[list[Path]], typer.Argument(help="Agent files or folders of them (default ./agents).")
]
Shared = Annotated[bool, typer.Option("--shared", help="One login `agent` for all agents of a tenant.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Gets logins even without an agent file.")]
Foreign = Annotated[
    Optional[list[str]],
    typer.Option("--foreign", help="Id of an agent of another 2389 implementation. Repeatable."),
]
Producer = Annotated[
    Optional[list[str]],
    typer.Option("--producer", help="Login of a producer (default `producer`). Repeatable."),
]


@broker_app.command("acl")
def broker_acl(
    files: Files = None,
    shared: Shared = False,
    tenant: Tenant = "default",
    foreign: Foreign = None,
    producer: Producer = None,
    json: Json = False,
) -> None:
    """Print who may do what on which topic, as Mosquitto's ACL file."""
    from agent2389.broker.identities import Wanted
    from agent2389.cli import broker

    wanted = Wanted(
        tenant=tenant, shared=shared, foreign=tuple(foreign or ()), producers=tuple(producer or ())
    )
    broker.acl(files or (), wanted, as_json=json)


@broker_app.command("config")
def broker_config(
    files: Files = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("broker-files"),
    location: Annotated[
        Optional[str], typer.Option("--location", help="Where the broker sees that folder (default: there).")
    ] = None,
    certificates: Annotated[
        Optional[str],
        typer.Option("--certificates", help="Where the broker sees ca.crt, server.crt, server.key."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Without TLS: for private networks.")] = False,
    listener: Annotated[
        Optional[str], typer.Option("--listener", help="PORT or 'PORT ADDRESS' (8883, plain 1883).")
    ] = None,
    dynamic_security: Annotated[
        bool, typer.Option("--dynamic-security", help="For that plugin instead of an ACL file.")
    ] = False,
    plugin: Annotated[
        Optional[str], typer.Option("--plugin", help="Where the broker sees the plugin.")
    ] = None,
    user: Annotated[
        Optional[str], typer.Option("--user", help="Whom a broker started as root becomes.")
    ] = None,
    rotate: Annotated[
        Optional[list[str]], typer.Option("--rotate", help="Login that gets a new password. Repeatable.")
    ] = None,
    shared: Shared = False,
    tenant: Tenant = "default",
    foreign: Foreign = None,
    producer: Producer = None,
    json: Json = False,
) -> None:
    """Write mosquitto.conf, passwords and rights; print new passwords, once.

    A login's password is taken from AGENT2389_MQTT_PASSWORD_<LOGIN> (or ..._FILE), else kept, else made.
    """
    from agent2389.broker.identities import Wanted
    from agent2389.cli import broker

    wanted = Wanted(
        tenant=tenant, shared=shared, foreign=tuple(foreign or ()), producers=tuple(producer or ())
    )
    place = broker.Place(
        folder=out,
        location=location,
        certificates=certificates,
        plain=plain,
        listener=listener,
        dynamic=dynamic_security or plugin is not None,
        plugin=plugin,
        user=user,
    )
    broker.config(files or (), wanted, place, rotate=rotate or (), as_json=json)
