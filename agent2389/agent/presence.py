"""What an agent tells the broker about itself: protocol status, will, mesh presence."""

import asyncio
from typing import Literal

import msgspec

from agent2389 import __version__
from agent2389.broker.port import Connection, Delivery, Message
from agent2389.config.model import AgentConfiguration
from agent2389.errors import Agent2389Error
from agent2389.ledger.states import AgentState
from agent2389.telemetry import surroundings
from agent2389.wire.mesh import Presence, encode
from agent2389.wire.status import Status, read_status, timestamp
from agent2389.wire.topics import MeshTopics, protocol_status


class Load(msgspec.Struct, frozen=True):
    """How busy the process is."""

    running: int
    total: int


class Announcer:
    """Builds and publishes the status of one process."""

    def __init__(self, configuration: AgentConfiguration, incarnation: str, mesh_id: str) -> None:
        self._configuration = configuration
        self._incarnation = incarnation
        self._mesh_id = mesh_id
        self._started_at = timestamp()
        self._topics = MeshTopics(configuration.agent.tenant)
        self.state = AgentState.STARTING
        self.load = Load(0, 0)

    @property
    def probe_topic(self) -> str:
        """Where this process speaks to itself."""
        return self._topics.probe(self._configuration.agent.id, self._incarnation)

    def will(self) -> Message:
        """FR-004: what the broker publishes when this connection dies."""
        return self._status("unavailable")

    async def publish_status(
        self, connection: Connection, status: Literal["available", "unavailable"]
    ) -> None:
        """The retained protocol status. Raises ``Unreachable``."""
        await connection.publish(self._status(status))

    async def publish_presence(self, connection: Connection) -> None:
        """The retained presence of this incarnation."""
        agent = self._configuration.agent
        message = Presence(
            agent_id=agent.id,
            incarnation=self._incarnation,
            state=self.state,
            capabilities=agent.capabilities,
            slots=agent.slots,
            free_slots=max(agent.slots - self.load.running, 0),
            version=__version__,
            timestamp=timestamp(),
        )
        topic = self._topics.presence(agent.id, self._incarnation)
        await connection.publish(Message(topic, encode(message), qos=0, retain=True))

    async def clear_presence(self, connection: Connection) -> None:
        """This incarnation is gone."""
        topic = self._topics.presence(self._configuration.agent.id, self._incarnation)
        await connection.publish(Message(topic, b"", retain=True))

    async def watch(self, connection: Connection) -> None:
        """Contradict an ``unavailable`` that concerns another incarnation of this agent id."""

        async def on_status(delivery: Delivery) -> None:
            status = read_status(delivery.payload) if delivery.payload else None
            concerns_other = status is not None and status.incarnation != self._incarnation
            if status is None or status.status != "unavailable" or not concerns_other:
                return
            asyncio.get_running_loop().create_task(self._contradict(connection))

        await connection.subscribe(protocol_status(self._configuration.agent.id), on_status)

    async def _contradict(self, connection: Connection) -> None:
        await asyncio.sleep(surroundings.chance().random())  # replicas must not all answer at once
        if self.state is AgentState.RUNNING:
            try:
                await self.publish_status(connection, "available")
            except Agent2389Error:
                return  # the next heartbeat says it again

    def _status(self, status: Literal["available", "unavailable"]) -> Message:
        agent = self._configuration.agent
        now = timestamp()
        body = Status(
            agent_id=agent.id,
            status=status,
            timestamp=now,
            capabilities=agent.capabilities,
            description=agent.description,
            health="ok" if status == "available" else "stopped",
            load=round(self.load.running / agent.slots, 3),
            last_updated=now,
            handles=agent.capabilities,
            metadata={},
            incarnation=self._incarnation,
            mesh_id=self._mesh_id,
            state=self.state if status == "available" else AgentState.STOPPED,
            version=__version__,
            config_sha256=self._configuration.sha256,
            tasks_running=self.load.running,
            tasks_total=self.load.total,
            slots=agent.slots,
            started_at=self._started_at,
            interval_s=self._configuration.mqtt.heartbeat_interval_secs,
        )
        return Message(protocol_status(agent.id), msgspec.json.encode(body), retain=True)
