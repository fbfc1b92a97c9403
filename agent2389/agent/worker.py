"""The working process: ties claiming, tasks, beat, presence and drain together."""

import asyncio
import contextlib

import structlog

from agent2389 import __version__
from agent2389.agent.claiming import EAGER_POLL_SECONDS, POLL_SECONDS, Claimer
from agent2389.agent.parts import Parts, Running, StopReason
from agent2389.agent.presence import Announcer, Load
from agent2389.agent.task import TaskRun
from agent2389.broker.port import Connection, Delivery
from agent2389.errors import Agent2389Error, Unreachable
from agent2389.ledger.fleet import AgentRecord, Beat, BeatReply
from agent2389.ledger.patience import until_reachable
from agent2389.ledger.port import Ledger
from agent2389.ledger.records import Change, Claim, Effects
from agent2389.ledger.states import AgentState
from agent2389.telemetry import surroundings
from agent2389.upkeep.chores import Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.foreign import Foreign
from agent2389.upkeep.intake import Intake
from agent2389.upkeep.reconcile import Reconciler
from agent2389.wire.topics import MeshTopics, agent_bound

BEAT_SECONDS = 10.0
BEATS_IN_A_LEASE = 3
"""A lease survives two beats that were lost."""
FIRST_BEATS = 3
"""Right after the start the beat comes every second, so that replicas know one another soon."""
LEASE_CHECK_SECONDS = 0.5
HINT_PAUSE_SECONDS = 0.2
RELEASE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Worker:
    """One agent process. ``run`` lasts until ``drain`` has finished.

    ``connection`` carries everything that is acknowledged automatically and the will;
    ``intake`` sits on the manually acknowledged one.
    """

    def __init__(
        self,
        parts: Parts,
        ledger: Ledger,
        connection: Connection,
        intake: Intake,
        dispatcher: Dispatcher,
        announcer: Announcer,
        run_task: TaskRun,
    ) -> None:
        self._parts = parts
        self._agent = parts.configuration.agent
        self._ledger = ledger
        self._connection = connection
        self._intake = intake
        self._dispatcher = dispatcher
        self._announcer = announcer
        self._run_task = run_task
        foreign = Foreign(
            ledger,
            connection,
            dispatcher,
            answer_seconds=parts.configuration.mqtt.foreign_answer_secs,
        )
        self._reconciler = Reconciler(ledger, connection, dispatcher)
        self._chores = Chores(ledger, dispatcher, foreign=foreign, reconciler=self._reconciler)
        lease = parts.configuration.worker.lease_seconds
        self._beat_seconds = min(BEAT_SECONDS, lease / BEATS_IN_A_LEASE)
        self._running: dict[str, Running] = {}
        self._total = 0
        self._peers_digest = ""
        self._serves_pools = False
        self._drain_asked = asyncio.Event()
        self._told = asyncio.Event()
        self.restart_asked = False
        self._claimer = Claimer(
            ledger,
            parts.incarnation,
            free_slots=lambda: self.free_slots,
            start=self._take,
            lost=lambda: parts.observer.claimed("lost"),
        )
        self.state = AgentState.STARTING
        self.last_beat: float | None = None

    # what health and people see -----------------------------------------------------

    @property
    def free_slots(self) -> int:
        """How many more tasks this process may take now."""
        return self._agent.slots - len(self._running) if self.state is AgentState.RUNNING else 0

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Tasks in work."""
        return tuple(self._running)

    @property
    def tasks_total(self) -> int:
        """Tasks ended since the start."""
        return self._total

    # life ------------------------------------------------------------------------

    async def run(self) -> None:
        """Register, subscribe, become available, work; return when drained.

        A side task that dies stops the process loudly (its exception leaves this method).
        """
        if not await self._registered():
            return
        self._set_state(AgentState.RUNNING)
        await self._subscribe()
        self._connection.on_connected(self._say_available)
        if self._connection.state.connected:
            await self._say_available()
        async with asyncio.TaskGroup() as group:
            sides = [
                group.create_task(self._beats(), name=f"beat-{self._agent.id}"),
                group.create_task(self._watch_leases(), name=f"leases-{self._agent.id}"),
                group.create_task(self._claimer.run(), name=f"claims-{self._agent.id}"),
                group.create_task(self._dispatcher.run(), name=f"dispatch-{self._agent.id}"),
                group.create_task(self._repeat_status(), name=f"status-{self._agent.id}"),
                group.create_task(self._intake.run(), name=f"intake-{self._agent.id}"),
                group.create_task(self._reconciler.run(), name=f"reconcile-{self._agent.id}"),
            ]
            self._claimer.look()
            await self._drain_asked.wait()
            await self._drain()
            for side in sides:
                side.cancel()
        await self._leave()

    def ask_drain(self) -> None:
        """Stop taking work, finish or release what runs, leave. A second call releases at once."""
        if self._drain_asked.is_set():
            self._release_all()
        self._drain_asked.set()

    def pause(self) -> None:
        """Take no new work until ``resume``."""
        if self.state is AgentState.RUNNING:
            self._set_state(AgentState.PAUSED)
            self._told.set()  # the ledger and whoever waits for it learn it with a beat of its own

    def resume(self) -> None:
        """Take work again."""
        if self.state is AgentState.PAUSED:
            self._set_state(AgentState.RUNNING)
            self._told.set()
            self._claimer.look()

    def _set_state(self, state: AgentState) -> None:
        self.state = state
        self._announcer.state = state

    async def _registered(self) -> bool:
        """Register as soon as the ledger is there; false when told to leave before."""
        registering = asyncio.create_task(until_reachable(self._register))
        leaving = asyncio.create_task(self._drain_asked.wait())
        try:
            await asyncio.wait({registering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if registering.done():
                await registering
                return True
            return False
        finally:
            registering.cancel()
            leaving.cancel()

    async def _register(self) -> None:
        record = AgentRecord(
            agent_id=self._agent.id,
            incarnation=self._parts.incarnation,
            capabilities=self._agent.capabilities,
            description=self._agent.description,
            slots=self._agent.slots,
            singleton=self._agent.singleton,
            version=__version__,
            config_sha256=self._parts.configuration.sha256,
            interval_s=self._beat_seconds,
        )
        await self._ledger.register(record)
        await self._beat_once()

    async def _subscribe(self) -> None:
        topics = MeshTopics(self._agent.tenant)
        for pool in (*self._agent.capabilities, agent_bound(self._agent.id)):
            await self._connection.subscribe(topics.wake(pool), self._claimer.on_wake, qos=0)
        await self._connection.subscribe(topics.control(self._agent.id), self._on_control)
        await self._announcer.watch(self._connection)
        await self._intake.serve_protocol(self._agent.id)

    async def _on_control(self, _: Delivery) -> None:
        """Somebody says that the ledger holds a command: look now instead of at the next beat."""
        self._told.set()

    async def _say_available(self) -> None:
        """After every (re)connection: subscriptions were granted before this runs."""
        if self.state in (AgentState.RUNNING, AgentState.PAUSED):
            await self._announcer.publish_status(self._connection, "available")
            await self._announcer.publish_presence(self._connection)
            self._claimer.look()
        if self._connection.state.reconnects > 0:
            self._reconciler.broker_is_back()

    async def _repeat_status(self) -> None:
        while True:
            await asyncio.sleep(self._parts.configuration.mqtt.heartbeat_interval_secs)
            with contextlib.suppress(Agent2389Error):
                await self._announcer.publish_status(self._connection, "available")

    # beat ------------------------------------------------------------------------

    async def _beats(self) -> None:
        count = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    min(1.0, self._beat_seconds) if count < FIRST_BEATS else self._beat_seconds
                ):
                    await self._told.wait()
                    # Hints come from anybody: at most one more beat a second.
                    await asyncio.sleep(HINT_PAUSE_SECONDS)
            self._told.clear()
            count += 1
            try:
                await self._beat_once()
            except Unreachable as error:
                log.warning("beat missed", reason=str(error))
                self._claimer.poll_seconds = EAGER_POLL_SECONDS
            with contextlib.suppress(Agent2389Error):
                await self._announcer.publish_presence(self._connection)

    async def _beat_once(self) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        held = tuple(running.claim.fence for running in self._running.values())
        self._announcer.load = Load(len(self._running), self._total)
        reply = await self._ledger.beat(
            Beat(
                incarnation=self._parts.incarnation,
                state=AgentState.RUNNING if self.state is AgentState.STARTING else self.state,
                free_slots=max(self._agent.slots - len(self._running), 0),
                held=held,
                known_peers=self._peers_digest,
            )
        )
        self.last_beat = surroundings.now().timestamp()
        self._obey(reply, asked_at)
        if not reply.known:
            await self._register()
        await self._serve_pools_unless(ops_alive=reply.ops_alive)
        if reply.due:
            await self._chores.run_due(reply.due)

    def _obey(self, reply: BeatReply, asked_at: float) -> None:
        if reply.peers is not None:
            self._claimer.peers = reply.peers
            self._peers_digest = reply.peers_digest
        for task_id, verdict in reply.tasks.items():
            running = self._running.get(task_id)
            if running is None:
                continue
            if verdict == "ok":
                running.renewed(asked_at)
            else:
                running.stop(StopReason(verdict))
        away = not self._connection.state.connected
        self._claimer.poll_seconds = EAGER_POLL_SECONDS if reply.backlog or away else POLL_SECONDS
        if reply.backlog and self.free_slots > 0:
            self._claimer.look()
        if reply.next_due_seconds is not None and reply.next_due_seconds < self._beat_seconds:
            delay = max(reply.next_due_seconds, 0.0)
            asyncio.get_running_loop().call_later(delay, self._claimer.look)
        self._heed(reply.desired_state)

    def _heed(self, wish: AgentState | None) -> None:
        match wish:
            case AgentState.PAUSED:
                self.pause()
            case AgentState.RUNNING:
                self.resume()
            case AgentState.DRAINING:
                self._drain_asked.set()
            case AgentState.STOPPED:
                self._release_all()
                self._drain_asked.set()
            case AgentState.RESTARTING:
                self.restart_asked = True
                self._drain_asked.set()
            case _:
                pass

    async def _serve_pools_unless(self, *, ops_alive: bool) -> None:
        """Agents do intake only while no ops process lives: N readers would mean N receipts."""
        if ops_alive == self._serves_pools:
            if ops_alive:
                await self._intake.leave_pools()
            else:
                await self._intake.serve_pools(self._agent.capabilities)
            self._serves_pools = not ops_alive

    async def _watch_leases(self) -> None:
        """Stop work whose lease could not be extended: somebody else may own it soon."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LEASE_CHECK_SECONDS)
            for running in list(self._running.values()):
                if loop.time() >= running.lease_deadline:
                    running.stop(StopReason.LOST)

    # tasks -----------------------------------------------------------------------

    async def _take(self, claim: Claim) -> None:
        self._parts.observer.claimed("won")
        running = Running(claim, asyncio.get_running_loop().time())
        task_id = claim.fence.task_id
        self._running[task_id] = running
        running.job = asyncio.create_task(self._work(running), name=f"task-{task_id}")
        pool = claim.capability if claim.bound_agent is None else agent_bound(claim.bound_agent)
        await self._dispatcher.ring_taken(claim.tenant, pool, task_id, claim.fence.epoch)
        claimed = Change(
            tenant=claim.tenant,
            job_id=claim.job_id,
            task_id=task_id,
            type="task.claimed",
            at=surroundings.now(),
            agent_id=self._agent.id,
            data={"epoch": claim.fence.epoch, "hop": claim.hop},
        )
        await self._dispatcher.perform(Effects(changes=(claimed,)))

    async def _work(self, running: Running) -> None:
        claim = running.claim
        log.info("task begins", task_id=claim.fence.task_id, job_id=claim.job_id, hop=claim.hop)
        outcome = "lost"
        try:
            outcome = await self._run_task.run(running)
        finally:
            self._running.pop(claim.fence.task_id, None)
            self._total += 1
            seconds = asyncio.get_running_loop().time() - running.started
            self._parts.observer.finished(outcome, seconds)
            log.info("task ends", task_id=claim.fence.task_id, outcome=outcome, seconds=round(seconds, 3))
            self._claimer.slot_freed()

    # drain -----------------------------------------------------------------------

    def _release_all(self) -> None:
        for running in list(self._running.values()):
            running.stop(StopReason.DRAIN)

    async def _drain(self) -> None:
        self._set_state(AgentState.DRAINING)
        await self._claimer.settled()
        log.info("draining", running=len(self._running))
        with contextlib.suppress(Unreachable):
            await self._beat_once()
        if not await self._all_ended(self._parts.configuration.lifecycle.drain_timeout_secs):
            log.warning("drain timed out, tasks are released", running=len(self._running))
            self._release_all()
            await self._all_ended(RELEASE_SECONDS)

    async def _all_ended(self, seconds: float) -> bool:
        """Whether every task that runs now ended in time."""
        jobs = [running.job for running in self._running.values() if running.job is not None]
        if not jobs:
            return True
        _, pending = await asyncio.wait(jobs, timeout=seconds)
        return not pending

    async def _leave(self) -> None:
        """The own stop is committed first; only then is the agent id unavailable, if nobody else has it."""
        self._set_state(AgentState.STOPPED)
        alone = True
        with contextlib.suppress(Agent2389Error):
            alone = await self._ledger.stopped(self._parts.incarnation)
        with contextlib.suppress(Agent2389Error):
            if alone:
                await self._announcer.publish_status(self._connection, "unavailable")
            await self._announcer.clear_presence(self._connection)
            await self._dispatcher.flush()
