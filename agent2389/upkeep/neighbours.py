"""Agents on the broker that are not ours, as their retained statuses tell."""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec

from agent2389.broker.port import Connection, Delivery
from agent2389.errors import Unreachable
from agent2389.telemetry import surroundings
from agent2389.wire.status import ForeignStatus, read_status
from agent2389.wire.topics import parse_protocol_agent, protocol_status, protocol_status_filter

USUAL_INTERVAL = 900.0
"""Seconds between two heartbeats of an agent that does not say its own interval."""
MISSED_BEATS = 2


class Neighbour(msgspec.Struct, frozen=True):
    """One agent's last status and when that was said."""

    status: ForeignStatus
    at: datetime

    def is_available(self, now: datetime) -> bool:
        """By its will, and by twice its own interval: others may beat every 15 minutes."""
        interval = self.status.interval_s or USUAL_INTERVAL
        return self.status.status == "available" and now - self.at <= timedelta(
            seconds=interval * MISSED_BEATS
        )


class Neighbours:
    """Follows single agents, or with ``follow_all`` everybody (one process of a mesh does that)."""

    def __init__(
        self,
        connection: Connection,
        own_mesh: Callable[[], Awaitable[str]],
        *,
        on_available: Callable[[str], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._own_mesh = own_mesh
        self._own: str | None = None
        self._on_available = on_available
        self._known: dict[str, Neighbour] = {}
        self._followed: set[str] = set()

    def is_available(self, agent_id: str) -> bool:
        """Whether a task may be sent there now."""
        found = self._known.get(agent_id)
        return found is not None and found.is_available(surroundings.now())

    def available(self) -> tuple[ForeignStatus, ...]:
        """Everybody who would take a task now, by name."""
        now = surroundings.now()
        return tuple(found.status for _, found in sorted(self._known.items()) if found.is_available(now))

    async def follow(self, agent_id: str) -> None:
        """Hear one agent's status from now on."""
        if protocol_status_filter() not in self._followed:
            await self._subscribe(protocol_status(agent_id))

    async def follow_all(self) -> None:
        """Hear every agent's status from now on."""
        await self._subscribe(protocol_status_filter())

    async def _subscribe(self, topic: str) -> None:
        if topic in self._followed:
            return
        self._followed.add(topic)
        with contextlib.suppress(Unreachable):  # a lost connection subscribes when it comes back
            await self._connection.subscribe(topic, self._on_status)

    async def _on_status(self, delivery: Delivery) -> None:
        agent_id = parse_protocol_agent(delivery.topic)
        status = read_status(delivery.payload) if delivery.payload else None
        if agent_id is None or status is None or await self._is_ours(status):
            self._known.pop(agent_id or "", None)
            return
        self._known[agent_id] = Neighbour(status, _time_of(status, surroundings.now()))
        if self.is_available(agent_id):
            await self._on_available(agent_id)

    async def _is_ours(self, status: ForeignStatus) -> bool:
        if status.mesh_id is None:
            return False
        if self._own is None:
            with contextlib.suppress(Unreachable):
                self._own = await self._own_mesh()
        return status.mesh_id == self._own


def _time_of(status: ForeignStatus, heard: datetime) -> datetime:
    """When it was said; a clock that runs ahead, or no readable time, counts as now."""
    try:
        said = datetime.fromisoformat(status.timestamp or "")
    except ValueError:
        return heard
    return min(said, heard) if said.tzinfo is not None else heard
