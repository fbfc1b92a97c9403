"""Doing the harm: one method for each fault, each on its own clock."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from agent2389.broker.local import MOSQUITTO
from agent2389.errors import Agent2389Error, ConfigurationError, MissingExtra
from agent2389.ledger.switches import set_read_only
from agent2389.llm.open import has_sdk
from agent2389.proving.crash_points import POINTS
from agent2389.proving.fleet import Member, python
from agent2389.proving.gate import Gate
from agent2389.proving.late import LateWriter
from agent2389.proving.plan import Fault
from agent2389.proving.producer import Producer
from agent2389.proving.rig import AGENT, OPS, Kill, Rig
from agent2389.proving.script import POISON, STEPS, poison
from agent2389.proving.witness import Witness

CRASH_SECONDS = 20.0
POISON_SECONDS = 90.0
POISON_WORK = 2.0
LOOK_SECONDS = 0.05
SLOW_LEASES = 1.5
HOUR = 3600

log = structlog.get_logger(__name__)


class Faults:
    """Strikes until ``stop``; afterwards every server runs and every process goes on."""

    def __init__(self, rig: Rig, producer: Producer, witness: Witness) -> None:
        self._rig = rig
        self._producer = producer
        self._witness = witness
        self._servers = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._gates: dict[str, tuple[Gate, Gate]] = {}
        self._points = list(POINTS)
        self.recovered: dict[str, list[float]] = {}
        self.late: list[LateWriter] = []
        self._strikes: dict[str, Callable[[], Awaitable[None]]] = {
            "F1": self._kill_agent,
            "F2": self._zombie,
            "F3": self._crash_point,
            "F4": self._kill_broker,
            "F5": self._crash_postgres,
            "F6": self._both,
            "F7": self._partition,
            "F8": self._wrong_clock,
            "F9": self._nothing,
            "F10": self._twin,
            "F11": self._cancel,
            "F12": self._rolling_restart,
            "F13": self._poison_job,
            "F14": self._takes_nothing,
            "F15": self._slow_model,
            "OPS": self._kill_ops,
        }

    async def prepare(self) -> None:
        """What must stand before agents start. Raises ``ConfigurationError`` when a tool is not installed."""
        if self._rig.plan.has("F7"):
            self._rig.wrap = self._put_gates
        if self._rig.plan.has("F8") and fake_clock() is None:
            raise MissingExtra("the fault F8 (a library of the system: libfaketime)", "all")
        if self._rig.plan.has("F15") and not has_sdk("openai"):
            raise MissingExtra("the fault F15", "llm")
        if self._rig.plan.has("F14") and self._rig.broker.label != MOSQUITTO:
            # Nobody else reads its rights again while it runs: the fault would strike nothing.
            raise ConfigurationError(f"the fault F14 needs {MOSQUITTO}", hint="install mosquitto")

    def start(self) -> None:
        """Begin to strike."""
        for fault in self._rig.plan.faults:
            self._loops.append(asyncio.create_task(self._repeat(fault), name=f"fault-{fault.kind.code}"))

    async def stop(self) -> None:
        """Strike no more, and set right what still stands: nothing is half done afterwards."""
        self._stopping.set()
        await asyncio.gather(*self._loops)
        await asyncio.gather(*self._running)

    async def close(self) -> None:
        """Close gates."""
        for pair in self._gates.values():
            for gate in pair:
                await gate.close()

    async def _repeat(self, fault: Fault) -> None:
        """Strikes on the clock; one that lasts (a zombie, a partition) does not hold up the next."""
        while not await self._pause(fault.every * self._rig.random.uniform(0.7, 1.3)):
            task = asyncio.create_task(self._one(fault.kind.code), name=f"strike-{fault.kind.code}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            if fault.kind.code not in ("F2", "F3", "F7", "F10"):
                await task

    async def _one(self, code: str) -> None:
        try:
            await self._strikes[code]()
        except Agent2389Error as error:
            log.warning("a fault could not strike", fault=code, reason=str(error))

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether the end was asked for meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def _victim(self) -> AsyncIterator[Member | None]:
        """A running agent that no other fault holds; ``None`` when too few are left to harm one more."""
        free = self._rig.fleet.free(AGENT)
        if len(free) <= self._rig.plan.agents // 3:
            yield None
            return
        member = self._rig.random.choice(free)
        member.is_held = True
        try:
            yield member
        finally:
            member.is_held = False

    # processes -------------------------------------------------------------------

    async def _kill_agent(self) -> None:
        async with self._victim() as member:
            if member is not None:
                await self._kill(member, "F1")
                await self._rig.fleet.start(member)

    async def _kill(self, member: Member, code: str) -> None:
        """Freeze, look what it owns, kill: so the count is exact."""
        member.send(signal.SIGSTOP)
        owned = await self._rig.owned_by(member.name)
        self._rig.tally.strike(code, owned)
        self._rig.tally.kills.append(Kill(member.name, time.time(), owned))
        await self._rig.fleet.kill(member)

    async def _zombie(self) -> None:
        rig = self._rig
        async with self._victim() as member:
            if member is None:
                return
            member.send(signal.SIGSTOP)
            owned = await rig.owned_by(member.name)
            at = time.time()
            late = asyncio.create_task(self._write_late())
            await asyncio.sleep(rig.plan.lease * 1.5)
            member.send(signal.SIGCONT)
            rig.tally.strike("F2", owned)
            rig.tally.kills.append(Kill(member.name, at, owned))
            await late

    async def _write_late(self) -> None:
        rig = self._rig
        ledger = await rig.doors.ledger(rig.dsn, rig.plan.lease)
        try:
            writer = LateWriter(ledger, rig.plan.lease, rig.random.choice(STEPS))
            self.late.append(writer)
            await writer.strike()
        finally:
            await ledger.close()

    async def _crash_point(self) -> None:
        rig = self._rig
        async with self._victim() as member:
            if member is None:
                return
            await rig.fleet.drain(member)
            point = self._points.pop(0)
            self._points.append(point)
            plain = member.command
            nth = str(rig.random.randint(2, 6))
            member.command = python("agent2389.proving.crash_points", point, nth, *plain[3:])
            await rig.fleet.start(member)
            member.may_end = True
            assert member.process is not None
            try:
                async with asyncio.timeout(CRASH_SECONDS):
                    code = await member.process.wait()
                if code == -signal.SIGKILL:
                    rig.tally.strike("F3", 1)
                    rig.tally.crash_points[point] += 1
            except TimeoutError:
                await rig.fleet.kill(member)
            finally:
                member.command = plain
                await rig.fleet.start(member)

    async def _rolling_restart(self) -> None:
        rig = self._rig
        for member in list(rig.fleet.members.values()):
            if self._stopping.is_set() or not member.name.startswith(AGENT) or member.is_held:
                continue
            member.is_held = True
            owned = await rig.owned_by(member.name)
            rig.tally.drain_codes[await rig.fleet.drain(member)] += 1
            await rig.fleet.start(member)
            await rig.wait_for_agents(rig.plan.agents)
            member.is_held = False
            rig.tally.owned_tasks_hit["F12"] += owned
        if not self._stopping.is_set():
            rig.tally.strike("F12", 0)

    async def _kill_ops(self) -> None:
        ops = self._rig.fleet.members[OPS]
        await self._rig.fleet.kill(ops)
        self._rig.tally.strike("OPS", 0)
        await self._rig.fleet.start(ops)

    async def _twin(self) -> None:
        rig = self._rig
        async with self._victim() as member:
            if member is None:
                return
            name = f"twin-of-{member.name}"
            twin = Member(name, member.command, member.environ, member.log_file)
            await rig.fleet.add(twin)
            rig.tally.strike("F10", await rig.owned_by(member.name))
            await asyncio.sleep(rig.plan.lease * 3)
            await rig.fleet.remove(twin)

    async def _wrong_clock(self) -> None:
        rig = self._rig
        library = fake_clock()
        async with self._victim() as member:
            if member is None or library is None:
                return
            await rig.fleet.drain(member)
            offset = rig.random.choice((-HOUR, HOUR))
            member.environ |= {
                "LD_PRELOAD": str(library),
                "FAKETIME": f"{offset:+d}",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            await rig.fleet.start(member)
            rig.tally.strike("F8", 0)

    # servers ---------------------------------------------------------------------

    async def _kill_broker(self) -> None:
        async with self._servers:
            owned = await self._rig.owned()
            await self._rig.broker.crash()
            await asyncio.sleep(self._rig.plan.outage)
            await self._rig.broker.start()
        await self._note_recovery("F4", owned)

    async def _crash_postgres(self) -> None:
        async with self._servers:
            owned = await self._rig.owned()
            await self._rig.postgres.crash()
            await asyncio.sleep(self._rig.plan.outage)
            await self._rig.postgres.start()
        await self._note_recovery("F5", owned)

    async def _both(self) -> None:
        async with self._servers:
            owned = await self._rig.owned()
            await asyncio.gather(self._rig.broker.crash(), self._rig.postgres.crash())
            await asyncio.sleep(self._rig.plan.outage)
            await asyncio.gather(self._rig.broker.start(), self._rig.postgres.start())
        await self._note_recovery("F6", owned)

    async def _takes_nothing(self) -> None:
        rig = self._rig
        is_the_brokers_turn = rig.tally.strikes["F14"] % 2 == 1
        async with self._servers:
            owned = await rig.owned()
            if is_the_brokers_turn:
                rig.broker.take_writes(on=False)
                await asyncio.sleep(rig.plan.outage)
                rig.broker.take_writes(on=True)
            else:
                await set_read_only(rig.postgres.dsn, on=True)
                await asyncio.sleep(rig.plan.outage)
                await set_read_only(rig.postgres.dsn, on=False)
        await self._note_recovery("F14", owned)

    async def _note_recovery(self, code: str, owned: int) -> None:
        """Seconds from the server's return to the next result."""
        self._rig.tally.strike(code, owned)
        back = time.monotonic()
        while self._witness.last_heard < back and not self._stopping.is_set():
            await asyncio.sleep(LOOK_SECONDS)
        if self._witness.last_heard >= back:
            self.recovered.setdefault(code, []).append(self._witness.last_heard - back)

    async def _slow_model(self) -> None:
        """A spell in which every answer takes longer than a lease; the other faults of F15 never rest."""
        rig = self._rig
        assert rig.endpoint is not None
        rig.tally.strike("F15", await rig.owned())
        rig.endpoint.pause = rig.plan.lease * SLOW_LEASES
        await self._pause(rig.endpoint.pause)
        rig.endpoint.pause = 0.0

    # network ---------------------------------------------------------------------

    async def _put_gates(self, member: Member) -> None:
        ledger, broker = Gate(self._rig.postgres.port), Gate(self._rig.broker.port)
        await ledger.open()
        await broker.open()
        self._gates[member.name] = (ledger, broker)
        for name, own, port in (
            ("DATABASE_URL", ledger.port, self._rig.postgres.port),
            ("MQTT_BROKER_URL", broker.port, self._rig.broker.port),
        ):
            member.environ[name] = member.environ[name].replace(f":{port}", f":{own}")

    async def _partition(self) -> None:
        rig = self._rig
        async with self._victim() as member:
            if member is None:
                return
            gates = self._gates[member.name]
            owned = await rig.owned_by(member.name)
            for gate in gates:
                gate.shut()
            await asyncio.sleep(rig.plan.lease * rig.random.uniform(1.2, 3))
            for gate in gates:
                gate.release()
            rig.tally.strike("F7", owned)

    # jobs ------------------------------------------------------------------------

    async def _cancel(self) -> None:
        waiting = [job for job in self._producer.accepted if job not in self._witness.payloads]
        waiting = [job for job in waiting[:200] if job not in self._rig.tally.cancelled]
        if not waiting:
            return
        job_id = self._rig.random.choice(waiting)
        answers = [verdict] if (verdict := await self._producer.cancel(job_id)) else []
        while not answers and not self._stopping.is_set():
            await asyncio.sleep(LOOK_SECONDS)
            answers = [verdict] if (verdict := await self._producer.cancel(job_id)) else []
            if answers == ["already"]:
                # Whether our first request or its own end came first, nobody can say any more.
                self._rig.tally.unsure.add(job_id)
        if answers == ["ok"]:
            self._rig.tally.cancelled.add(job_id)
            self._rig.tally.strike("F11", 1)

    async def _poison_job(self) -> None:
        rig = self._rig
        number = rig.tally.strikes["F13"] + 1
        name = f"poison-agent-{number}"
        await rig.fleet.add(await rig.new_agent(name, POISON, work=POISON_WORK, slots=1))
        member = rig.fleet.members[name]
        document = poison(f"poison-{number}")
        rig.tally.poison.add(document["job_id"])
        await self._producer.submit(document)
        deadline = time.monotonic() + POISON_SECONDS
        while document["job_id"] not in self._witness.payloads and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            if await rig.owned_by(name):
                await rig.fleet.kill(member)
                await rig.fleet.start(member)
        rig.tally.strike("F13", 1)
        await rig.fleet.remove(member)

    async def _nothing(self) -> None:
        """F9 is how the run begins."""


def fake_clock() -> Path | None:
    """The library that gives a process another clock, where it is installed."""
    places = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
    given = os.environ.get("AGENT2389_FAKETIME")
    if given:
        return Path(given)
    return next((path for place in places for path in Path("/").glob(place.lstrip("/"))), None)
