"""A mesh for fault runs: real servers, ops and agents, and what the faults need to reach them."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from agent2389.broker.port import Connection
from agent2389.errors import Agent2389Error, Unreachable
from agent2389.ledger.inspection import Inspector
from agent2389.ledger.migrate import migrate, provision_login
from agent2389.ledger.port import Ledger
from agent2389.ledger.states import AgentState
from agent2389.proving.endpoint import BadEndpoint
from agent2389.proving.fleet import Fleet, Member, child_environ, python
from agent2389.proving.plan import Plan
from agent2389.proving.script import STEPS, agent_file
from agent2389.proving.servers import Broker, Postgres
from agent2389.telemetry import children

LOGIN = "chaos"
READY_SECONDS = 60.0
AGENT, OPS = "agent-", "ops"


class Doors(Protocol):
    """The real adapters, handed in by whoever may name them."""

    async def ledger(self, dsn: str, lease_seconds: float) -> Ledger:
        """An agent's view of the ledger."""
        ...

    async def inspector(self, dsn: str) -> Inspector:
        """An operator's view of it."""
        ...

    async def connection(self, url: str, name: str) -> Connection:
        """A broker connection that comes back by itself."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Kill(msgspec.Struct, frozen=True):
    """A kill of an agent: when (seconds since 1970) and how many tasks it owned then."""

    agent_id: str
    at: float
    owned: int


class Tally:
    """What the faults did."""

    def __init__(self) -> None:
        self.strikes: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.owned_tasks_hit: Counter[str] = Counter()
        self.kills: list[Kill] = []
        self.cancelled: set[str] = set()
        self.unsure: set[str] = set()
        """Jobs whose cancel was answered too late to say whether it or the job's own end came first."""
        self.poison: set[str] = set()
        self.drain_codes: Counter[int] = Counter()
        self.crash_points: Counter[str] = Counter()

    def strike(self, code: str, owned: int) -> None:
        """One fault; ``owned`` tasks were in work where it struck."""
        self.strikes[code] += 1
        self.owned_tasks_hit[code] += owned
        if owned > 0:
            self.hits[code] += 1


class Rig:
    """The running mesh. Everything is below ``plan.data``."""

    def __init__(self, plan: Plan, doors: Doors) -> None:
        self.plan = plan
        self.doors = doors
        self.random = random.Random(plan.seed)  # noqa: S311 - faults, not secrets
        self.postgres = Postgres(plan.data)
        self.broker = Broker(plan.data)
        self.fleet = Fleet()
        self.tally = Tally()
        self.dsn = ""
        self.api = f"http://127.0.0.1:{children.free_port()}"
        self.inspector: Inspector | None = None
        self.endpoint = BadEndpoint(self.random) if plan.has("F15") else None
        self.wrap: Callable[[Member], Awaitable[None]] | None = None
        """A fault that stands between an agent and its servers changes the member before its start."""

    async def open(self) -> None:
        """Servers and ops; agents come with ``start_agents``. Raises ``Unreachable``."""
        await asyncio.gather(self.postgres.start(), self.broker.start())
        if self.endpoint is not None:
            await self.endpoint.start(children.free_port())
        await migrate(self.postgres.dsn)
        password = secrets.token_urlsafe(12)
        await provision_login(self.postgres.dsn, LOGIN, password)
        database = self.postgres.dsn.rpartition("/")[2]
        self.dsn = f"postgresql://{LOGIN}:{password}@127.0.0.1:{self.postgres.port}/{database}"
        self.inspector = await self.doors.inspector(self.dsn)
        port = self.api.rpartition(":")[2]
        await self.fleet.add(
            Member(OPS, python("agent2389", "ops"), self.environ(HEALTH_PORT=port), self._log(OPS))
        )

    async def start_agents(self) -> None:
        """One process for each agent, spread over the steps; returns when all run."""
        for number in range(self.plan.agents):
            step = STEPS[number % len(STEPS)]
            await self.fleet.add(await self.new_agent(f"{AGENT}{number + 1}", step, work=self.plan.work))
        await self.wait_for_agents(self.plan.agents)

    async def new_agent(self, name: str, capability: str, *, work: float, slots: int | None = None) -> Member:
        """A member for an agent of its own file; not started yet."""
        plan = self.plan
        path = plan.data / "agents" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = agent_file(
            name,
            capability,
            slots=slots or plan.slots,
            lease=plan.lease,
            work=work,
            endpoint=self.endpoint.url if self.endpoint else None,
        )
        path.write_text(text, encoding="utf-8")
        environ = self.environ(HEALTH_PORT="0")
        member = Member(name, python("agent2389", "run", str(path)), environ, self._log(name))
        if self.wrap is not None:
            await self.wrap(member)
        return member

    async def wait_for_agents(self, count: int) -> None:
        """Until so many agents run."""
        deadline = time.monotonic() + READY_SECONDS
        while await self.running_agents() < count:
            if time.monotonic() > deadline:
                raise Unreachable("agents", f"they do not run; logs in {self.plan.data / 'logs'}")
            await asyncio.sleep(0.1)

    async def running_agents(self) -> int:
        """Agents that beat as running; 0 when the ledger is away."""
        assert self.inspector is not None
        try:
            rows = await self.inspector.agents()
        except Agent2389Error:
            return 0
        return len({row.agent_id for row in rows if row.role == "agent" and row.state is AgentState.RUNNING})

    async def owned_by(self, name: str) -> int:
        """Tasks that the newest process of an agent owns now."""
        assert self.inspector is not None
        try:
            rows = [row for row in await self.inspector.agents() if row.agent_id == name]
        except Agent2389Error:
            return 0
        return max(rows, key=lambda row: row.started_at).tasks_running if rows else 0

    async def owned(self) -> int:
        """Tasks that anybody owns now."""
        assert self.inspector is not None
        try:
            return sum(row.tasks_running for row in await self.inspector.agents())
        except Agent2389Error:
            return 0

    def environ(self, **more: str) -> dict[str, str]:
        """What a child needs to find ledger and broker."""
        return child_environ(DATABASE_URL=self.dsn, MQTT_BROKER_URL=self.broker.url, **more)

    async def close(self) -> None:
        """Clients first, then servers."""
        await self.fleet.close()
        if self.inspector is not None:
            await self.inspector.close()
        if self.endpoint is not None:
            await self.endpoint.close()
        await self.doors.close()
        await asyncio.gather(self.broker.stop(), self.postgres.stop())

    def _log(self, name: str) -> Path:
        return self.plan.data / "logs" / f"{name}.log"
