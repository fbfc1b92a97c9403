"""A fault run from beginning to end: load, faults, judgement."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from agent2389.errors import Agent2389Error
from agent2389.proving.faults import Faults
from agent2389.proving.figures import Figures, Measured, figures_of, read_logs
from agent2389.proving.fsck import inspect
from agent2389.proving.plan import Plan
from agent2389.proving.producer import Producer
from agent2389.proving.rig import OPS, Doors, Rig
from agent2389.proving.soak import Sampler
from agent2389.proving.witness import Witness

LOOK_SECONDS = 0.2
TELL_SECONDS = 5.0
EXTRA_SECONDS = 180.0
"""How long a run goes on submitting because too few faults have struck yet."""
OPS_SECONDS = 60.0
QUIET_SECONDS = 40.0
PREFIX = "job"

Tell = Callable[[str], None]


class Run:
    """One run; ``go`` returns the figures whatever happened to the jobs."""

    def __init__(self, plan: Plan, doors: Doors, tell: Tell) -> None:
        self._plan = plan
        self._tell = tell
        self._rig = Rig(plan, doors)
        self._started = 0.0
        self._produced = False
        self._told = 0.0

    async def go(self) -> Figures:
        """Start everything, do the harm, judge, end. Raises ``Agent2389Error`` when it cannot start."""
        rig = self._rig
        try:
            self._tell("starting Postgres, broker, ops")
            await rig.open()
            producer = Producer(rig.api, await rig.doors.connection(rig.broker.url, "producer"))
            witness = Witness(await rig.doors.connection(rig.broker.url, "witness"))
            await producer.open()
            await witness.listen()
            faults = Faults(rig, producer, witness)
            try:
                await faults.prepare()
                return await self._measure(producer, witness, faults)
            finally:
                await producer.close()
                await faults.close()
        finally:
            await rig.close()

    async def _measure(self, producer: Producer, witness: Witness, faults: Faults) -> Figures:
        rig, plan = self._rig, self._plan
        began = time.time()
        self._started = time.monotonic()
        waits_first = plan.has("F9")
        if not waits_first:
            await rig.start_agents()
            self._started = time.monotonic()
        load = asyncio.create_task(self._load(producer, witness), name="load")
        try:
            if waits_first:
                await load
                self._tell(f"{len(producer.accepted)} jobs wait, agents start")
                await rig.start_agents()
            assert rig.inspector is not None
            sampler = Sampler(rig.fleet, rig.inspector, OPS, plan.sample)
            faults.start()
            hung = await self._until_ended(producer, witness, load, sampler)
            await faults.stop()
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        hung = hung or await self._until_ended(producer, witness, load, sampler)
        seconds = time.monotonic() - self._started
        await witness.ask_for_missing(producer.accepted, producer.result)
        self._tell("comparing ledger and broker")
        return await self._judge(producer, witness, faults, began, seconds, hung, sampler.figures())

    async def _load(self, producer: Producer, witness: Witness) -> None:
        plan = self._plan
        timed = plan.seconds > 0

        def more(number: int) -> bool:
            running = time.monotonic() - self._started
            if timed:
                return running < plan.seconds
            return number < plan.jobs or (self._too_few_hits() and running < EXTRA_SECONDS)

        def is_open() -> int:
            ahead = timed or len(producer.accepted) >= plan.jobs
            return len(producer.accepted) - len(witness.payloads) if ahead else 0

        await producer.run(PREFIX, more=more, rate=plan.rate, is_open=is_open)

    def _too_few_hits(self) -> bool:
        tally = self._rig.tally
        return any(
            (tally.hits if fault.kind.must_hit else tally.strikes)[fault.kind.code] < self._plan.least_hits
            for fault in self._plan.faults
            if fault.kind.code != "F9"
        )

    async def _until_ended(
        self, producer: Producer, witness: Witness, load: asyncio.Task[None], sampler: Sampler
    ) -> str | None:
        """Until every accepted job has a result; what hangs when none came for too long."""
        while not load.done() or len(witness.payloads) < len(producer.accepted):
            if load.done() and not load.cancelled() and load.exception() is not None:
                raise load.exception() or RuntimeError
            await asyncio.sleep(LOOK_SECONDS)
            await sampler.look()
            now = time.monotonic()
            if now - self._told > TELL_SECONDS:
                self._told = now
                struck = " ".join(f"{code} x{count}" for code, count in self._rig.tally.strikes.items())
                self._tell(
                    f"{len(witness.payloads)} of {len(producer.accepted)} jobs ended · "
                    f"{struck or 'no faults yet'}"
                )
            if now - max(witness.last_heard, self._started) > self._plan.stall:
                return await self._what_hangs(producer, witness)
        return None

    async def _what_hangs(self, producer: Producer, witness: Witness) -> str:
        missing = [job_id for job_id in producer.accepted if job_id not in witness.payloads]
        assert self._rig.inspector is not None
        try:
            counts = await self._rig.inspector.job_counts()
        except Agent2389Error as error:
            counts = {str(error): 1}
        return (
            f"no result for {self._plan.stall:g} s; {len(missing)} missing, {missing[:3]}; ledger: {counts}"
        )

    async def _judge(
        self,
        producer: Producer,
        witness: Witness,
        faults: Faults,
        began: float,
        seconds: float,
        hung: str | None,
        soak: dict[str, float] | None,
    ) -> Figures:
        rig, tally = self._rig, self._rig.tally
        assert rig.inspector is not None
        connection = await rig.doors.connection(rig.broker.url, "fsck")
        await connection.wait_connected(OPS_SECONDS)
        report = await inspect(rig.inspector, connection, quiet_wait=QUIET_SECONDS)
        verdict = witness.judge(
            producer.accepted, cancelled=tally.cancelled, unsure=tally.unsure, poison=tally.poison
        )
        recoveries, events = await rig.inspector.recoveries(began), await rig.inspector.event_counts()
        measured = Measured(
            tally=tally,
            verdict=verdict,
            report=report,
            recoveries=recoveries,
            events=events,
            recovered=faults.recovered,
            late_accepted=[text for writer in faults.late for text in writer.accepted],
            unexpected=[f"{end.name} ({end.code}): {end.tail}" for end in rig.fleet.unexpected],
            logs=read_logs(self._plan.data / "logs"),
            accepted=len(producer.accepted),
            repeats=producer.repeats,
            refused=len(producer.refused),
            most_open=witness.most_open,
            seconds=seconds,
            hung=hung,
            soak=soak,
            model=rig.endpoint.figures() if rig.endpoint else None,
        )
        return figures_of(self._plan, measured)


def to_line(figures: Figures) -> str:
    """The figures as one line of JSON."""
    return msgspec.json.encode(figures).decode()
