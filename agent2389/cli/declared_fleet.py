"""Arguments of the verbs about the fleet: agents, their processes and logs, pools."""

from typing import Annotated, Optional

import typer

from agent2389.cli.app import Data, Globals, Json, agent_app, pool_app, run_verb

AgentId = Annotated[str, typer.Argument(help="Agent id.")]
Incarnation = Annotated[
    Optional[str], typer.Option("--incarnation", help="Only this process; a beginning of its id.")
]
Wait = Annotated[
    Optional[float], typer.Option("--wait", min=0, help="Seconds to wait until it is done; else exit 10.")
]


@agent_app.command("list")
def agent_list(json: Json = False) -> None:
    """List the agents."""
    from agent2389.cli import fleet

    run_verb(fleet.agents(Globals.api, as_json=json))


@agent_app.command("show")
def agent_show(name: str, json: Json = False) -> None:
    """Show one agent with its incarnations."""
    from agent2389.cli import fleet

    run_verb(fleet.show_agent(Globals.api, name, as_json=json))


@agent_app.command("pause")
def agent_pause(agent: AgentId, wait: Wait = None, json: Json = False) -> None:
    """Let an agent take no new work until `resume`, also after a restart."""
    _command(agent, "pause", wait=wait, as_json=json)


@agent_app.command("resume")
def agent_resume(agent: AgentId, wait: Wait = None, json: Json = False) -> None:
    """Let a paused agent take work again."""
    _command(agent, "resume", wait=wait, as_json=json)


@agent_app.command("drain")
def agent_drain(
    agent: AgentId, incarnation: Incarnation = None, wait: Wait = None, json: Json = False
) -> None:
    """Let an agent finish what it has, then end."""
    _command(agent, "drain", incarnation=incarnation, wait=wait, as_json=json)


@agent_app.command("stop")
def agent_stop(
    agent: AgentId, incarnation: Incarnation = None, wait: Wait = None, json: Json = False
) -> None:
    """Let an agent give back what it has at once, then end."""
    _command(agent, "stop", incarnation=incarnation, wait=wait, as_json=json)


@agent_app.command("restart")
def agent_restart(
    agent: AgentId, incarnation: Incarnation = None, wait: Wait = None, json: Json = False
) -> None:
    """Let an agent finish what it has, then begin anew."""
    _command(agent, "restart", incarnation=incarnation, wait=wait, as_json=json)


@agent_app.command("logs")
def agent_logs(
    agent: AgentId,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=1000)] = 100,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until interrupted.")] = False,
    url: Annotated[
        Optional[str], typer.Option("--url", help="Ask the process at this address instead.")
    ] = None,
    data: Data = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="The lines as they are, one JSON object each.")
    ] = False,
) -> None:
    """Print the last log lines of an agent of the mesh on this machine."""
    from agent2389.cli import fleet

    run_verb(fleet.logs(agent, data=data, lines=lines, follow=follow, url=url, as_jsonl=jsonl))


@pool_app.command("list")
def pool_list(json: Json = False) -> None:
    """List capabilities with the work that waits and the agents that do it."""
    from agent2389.cli import fleet

    run_verb(fleet.pools(Globals.api, as_json=json))


def _command(
    agent: str, action: str, *, incarnation: str | None = None, wait: float | None, as_json: bool
) -> None:
    from agent2389.cli import fleet

    run_verb(fleet.command(Globals.api, agent, action, incarnation=incarnation, wait=wait, as_json=as_json))
