"""Arguments of the verbs that prove things: fsck, audit, conformance, chaos, sim, doctor."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent2389.cli.app import Json, app, run_verb

audit_app = typer.Typer(help="The sealed chain: list, verify.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(audit_app, name="audit")


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

    run_verb(proving.fsck(quiet_wait=quiet_wait, repair=repair, as_json=json))


@audit_app.command("list")
def audit_list(
    before: Annotated[Optional[int], typer.Option("--before", help="Only below this number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """List what people did and how jobs ended, newest last."""
    from agent2389.cli import audit

    run_verb(audit.listing(before=before, limit=limit, as_json=json))


@audit_app.command("verify")
def audit_verify(json: Json = False) -> None:
    """Compute the chain anew: whether anybody changed or removed what was sealed."""
    from agent2389.cli import audit

    run_verb(audit.verify(as_json=json))


@app.command()
def conformance(
    agent: Annotated[str, typer.Option("--agent", help="Id of the agent under test.")],
    broker: Annotated[
        Optional[str], typer.Option("--broker", help="Its broker (default MQTT_BROKER_URL).")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict/--lenient", help="Lenient tolerates known deviations.")
    ] = True,
    start: Annotated[
        Optional[str],
        typer.Option("--start", help="Command that starts the agent; the kit runs and ends it."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds given to an answer.")] = 30.0,
    json: Json = False,
) -> None:
    """Hold any implementation of the 2389 protocol against every requirement."""
    from agent2389.cli import conformance as kit

    run_verb(kit.conformance(broker, agent, strict=strict, start=start, timeout=timeout, as_json=json))


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
    listing: Annotated[bool, typer.Option("--list", help="Only say what the faults do.")] = False,
) -> None:
    """Break a real mesh on purpose and count what got lost; the last line is JSON."""
    from agent2389.cli import proving
    from agent2389.proving.plan import KINDS, Plan, read_faults

    if listing:
        for kind in KINDS:
            typer.echo(f"{kind.code:<4} every {kind.every:>4g} s  {kind.title}")
        return
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
    run_verb(proving.chaos(plan, keep=data is not None))


@app.command()
def sim(
    seed: Annotated[int, typer.Option(min=0, help="The first seed; the same one plays the same story.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many, one after the other.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of each seed.")] = 12,
    faults: Annotated[int, typer.Option(min=0, help="Faults of each seed.")] = 30,
    minutes: Annotated[float, typer.Option(min=0.1, help="Virtual minutes in which faults fall.")] = 3.0,
    log: Annotated[Optional[Path], typer.Option(help="Write every step of every seed here.")] = None,
) -> None:
    """Play a whole mesh on a virtual clock while bus, ledger and processes fail; the last line is JSON."""
    from agent2389.cli import proving
    from agent2389.proving.sim import SimPlan

    proving.sim(range(seed, seed + seeds), SimPlan(jobs=jobs, faults=faults, seconds=minutes * 60), log)


@app.command()
def doctor(
    broker_config: Annotated[
        Optional[Path], typer.Option("--broker-config", help="The broker's mosquitto.conf.")
    ] = None,
    json: Json = False,
) -> None:
    """Look for traps in broker and database: queues, sizes, rights, delays, clocks, poolers, twins."""
    from agent2389.cli import doctor as verbs

    run_verb(verbs.doctor(broker_config=broker_config, as_json=json))
