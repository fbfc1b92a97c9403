"""Who else is on the broker: told by ops on one retained topic, so that agents need not follow everybody."""

import asyncio

from agent2389.broker.port import Connection, Delivery, Message, PublishRefused
from agent2389.errors import Unreachable
from agent2389.upkeep.neighbours import Neighbours
from agent2389.wire.mesh import Roster, Stranger, encode, read_roster
from agent2389.wire.names import is_capability
from agent2389.wire.status import ForeignStatus
from agent2389.wire.topics import MeshTopics

TELL_SECONDS = 1.0
MOST = 500


class RosterTeller:
    """Publishes the foreign agents that are available, whenever that changes."""

    def __init__(self, neighbours: Neighbours, connection: Connection, tenant: str) -> None:
        self._neighbours = neighbours
        self._connection = connection
        self._topic = MeshTopics(tenant).neighbours()
        self._told: bytes | None = None
        connection.on_connected(self._forget)

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            await asyncio.sleep(TELL_SECONDS)  # first, so that the retained statuses have come
            await self.tell()

    async def tell(self) -> None:
        """Publish the list if it differs from the one told last; an empty one is a clear."""
        listed = tuple(_stranger(status) for status in self._neighbours.available()[:MOST])
        body = encode(Roster(listed)) if listed else b""
        if body == self._told:
            return
        try:
            await self._connection.publish(Message(self._topic, body, retain=True))
        except (Unreachable, PublishRefused):
            return  # told again at the next look
        self._told = body

    async def _forget(self) -> None:
        """A broker that was restarted may have lost it."""
        self._told = None


class RosterReader:
    """What an agent knows of foreign agents."""

    def __init__(self) -> None:
        self._listed: tuple[Stranger, ...] = ()

    @classmethod
    async def listening(cls, connection: Connection, tenant: str) -> "RosterReader":
        """A reader that hears the list from now on."""
        reader = cls()
        await connection.subscribe(MeshTopics(tenant).neighbours(), reader._on_roster)
        return reader

    def strangers(self) -> tuple[Stranger, ...]:
        """The list as it was told last."""
        return self._listed

    async def _on_roster(self, delivery: Delivery) -> None:
        self._listed = read_roster(delivery.payload)


def _stranger(status: ForeignStatus) -> Stranger:
    names = (name.lower() for name in status.capabilities)
    return Stranger(
        agent_id=status.agent_id,
        capabilities=tuple(name for name in names if is_capability(name)),
        description=(status.description or "")[:500],
    )
