"""What goes wrong in a simulated mesh: kills, stops, cuts, restarts, old messages."""

from collections.abc import Callable, Mapping

from agent2389.broker.memory_server import MemoryServer
from agent2389.errors import Unreachable
from agent2389.proving.sim_weather import CALM, Climate
from agent2389.proving.sim_world import ROUGH, Berth, World

KEEPALIVE_SECONDS = 45.0
"""After this silence the broker gives a connection up."""


def kill(world: World) -> None:
    """A process dies at once and is started again."""
    world.chance.choice(world.berths).kill(world.chance.uniform(0.5, 15.0))


def hold(world: World) -> None:
    """A process stands still, often beyond its leases, and goes on as if nothing had been."""
    berth, seconds = world.chance.choice(world.berths), world.chance.choice((4.0, 20.0, 34.0, 70.0))
    if not berth.hold():
        return
    process = berth.process

    def go_on() -> None:
        if berth.process is process:
            berth.go_on()

    def given_up() -> None:
        if berth.process is process and process is not None and process.is_held:
            berth.disconnect("the broker heard nothing for too long")

    world.later(KEEPALIVE_SECONDS, given_up)
    world.later(seconds, go_on)


def drain(world: World) -> None:
    """A process is asked to leave; the second request is the impatient one."""
    berth = world.chance.choice(world.berths)
    berth.drain()
    if world.chance.random() < 0.3:
        world.later(world.chance.uniform(0.5, 10.0), berth.drain)


def drop(world: World) -> None:
    """A connection to the broker breaks."""
    world.chance.choice(world.berths).disconnect("connection reset")


def broker(world: World) -> None:
    """The broker dies; what it kept is gone, or is what its file held at some earlier moment."""
    if not world.server.is_up:
        return
    world.note("broker is killed")
    world.server.kill()
    world.later(world.chance.uniform(0.2, 25.0), _broker_back, world)


def _broker_back(world: World) -> None:
    server: MemoryServer = world.server
    if server.is_up:
        return
    saved = world.saved if world.chance.random() < 0.5 else {}
    world.note(f"broker is back with {len(saved)} retained messages")
    server.start(saved)


def save(world: World) -> None:
    """The broker writes its file."""
    world.saved = dict(world.server.retained)


def stale(world: World) -> None:
    """A client that reconnects sends again what it believes unsent: old news after newer (measured)."""
    if not world.weather.kept or not world.server.is_up:
        return
    message = world.chance.choice(world.weather.kept)
    world.note(f"an old message comes again on {message.topic} ({len(message.payload)} bytes)")
    world.server.publish(message)


def takeover(world: World) -> None:
    """Somebody connects under the name of one of ours."""
    berth = world.chance.choice(world.berths)
    if berth.program is None:
        return
    client_id = world.chance.choice(berth.program.client_ids)
    try:
        session = world.server.open(client_id, None, manual=False)
    except Unreachable:
        return
    world.note(f"somebody takes {berth.name}'s client id")
    world.later(1.0, world.server.leave, session)


def ledger(world: World) -> None:
    """The database is away for everybody; commits on their way are lost or kept."""
    if world.wire.is_away:
        return
    world.note("ledger is away")
    world.wire.is_away = True
    world.later(world.chance.choice((1.0, 8.0, 25.0, 45.0)), _ledger_back, world)


def _ledger_back(world: World) -> None:
    if world.wire.is_away:
        world.note("ledger is back")
        world.wire.is_away = False


def cut(world: World) -> None:
    """One process cannot reach the database."""
    berth: Berth = world.chance.choice(world.berths)
    world.note(f"{berth.name} is cut off from the ledger")
    world.wire.cut.add(berth.name)
    world.later(world.chance.choice((5.0, 28.0, 40.0)), world.wire.cut.discard, berth.name)


def weather(world: World) -> None:
    """The bus and the way to the database get worse or better."""
    climates: tuple[Climate, ...] = (CALM, ROUGH)
    world.weather.climate = world.chance.choice(climates)
    world.wire.lost_answers = world.chance.choice((0.0, 0.02, 0.1))
    world.wire.delay = world.chance.choice((0.02, 0.2, 2.0))
    rough = "rough" if world.weather.climate is ROUGH else "calm"
    world.note(f"weather: bus {rough}, {world.wire.lost_answers:.0%} of answers lost")


FAULTS: Mapping[str, tuple[Callable[[World], None], int]] = {
    "kill": (kill, 5),
    "hold": (hold, 4),
    "drain": (drain, 2),
    "drop": (drop, 2),
    "broker": (broker, 2),
    "save": (save, 2),
    "stale": (stale, 3),
    "takeover": (takeover, 1),
    "ledger": (ledger, 2),
    "cut": (cut, 2),
    "weather": (weather, 3),
}
"""Each fault with its weight."""


def schedule(world: World, count: int, seconds: float) -> None:
    """``count`` faults at random moments of the first ``seconds``."""
    names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
    for name in world.chance.choices(names, weights, k=count):
        world.later(world.chance.uniform(2.0, seconds), _strike, world, name, seconds)


def _strike(world: World, name: str, until: float) -> None:
    if world.loop.time() <= until and not world.is_over:
        world.faults[name] = world.faults.get(name, 0) + 1
        FAULTS[name][0](world)
