"""What a broker does with messages when nobody looks: tried out, on topics of our own."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from agent2389.broker.port import Connection, Delivery, Message, PublishRefused
from agent2389.errors import Unreachable
from agent2389.proving.doctor import Check, Warned
from agent2389.upkeep.retained import heard
from agent2389.wire.limits import MAX_MESSAGE_BYTES
from agent2389.wire.mesh import read_mesh
from agent2389.wire.names import new_uuid7
from agent2389.wire.status import read_status
from agent2389.wire.topics import MeshTopics, conversation, protocol_status_filter

ECHO_SECONDS = 3.0
QUEUED = 1100
"""More than the 1,020 messages that a stock Mosquitto keeps for one client."""
QUIET_SECONDS = 1.0
ROUNDS = 15
STALL_SECONDS = 0.03
SETTLE_SECONDS = 0.5

Connect = Callable[..., Awaitable[Connection]]
"""A connection under a name, ``manual`` to acknowledge by hand; each check takes its own."""


def broker_checks(connect: Connect, tenant: str, mesh_id: str | None) -> dict[str, Check]:
    """Checks of one broker; ``mesh_id`` is the ledger's, where one is known."""
    patient = _Patient(connect, MeshTopics(tenant))

    async def one_mesh() -> Warned | None:
        return await patient.other_meshes(mesh_id)

    checks: dict[str, Check] = {
        "rights": patient.rights,
        "queue": patient.queue,
        "size": patient.size,
        "no-delay": patient.no_delay,
        "shared subscriptions": patient.shared_subscriptions,
    }
    return checks | {"one mesh": one_mesh} if mesh_id else checks


class _Patient:
    def __init__(self, connect: Connect, topics: MeshTopics) -> None:
        self._connect = connect
        self._topics = topics

    def _probe(self) -> str:
        return self._topics.probe("doctor", new_uuid7())

    async def rights(self) -> Warned | None:
        """A denied publish or subscription shows no error on MQTT 3.1.1, so each must be heard."""
        connection = await self._connect("rights")
        mine = f"doctor-{new_uuid7()}"
        denied = [
            topic.replace(mine, "…")
            for topic in (
                self._probe(),
                self._topics.wake(mine),
                self._topics.open(mine, mine, 0),
                self._topics.claim(mine, 0),
                self._topics.event(mine),
                self._topics.receipt(mine),
                self._topics.result(mine),
                conversation(mine, mine),
            )
            if not await _echoes(connection, topic)
        ]
        if not denied:
            return None
        return Warned(
            "rights",
            f"nothing comes back from {', '.join(denied)}: the broker denies it without a word",
            "give this login read and write there: agent2389 broker acl",
        )

    async def queue(self) -> Warned | None:
        """A reader that does not keep up; what the broker keeps for it."""
        topic = self._probe()
        speaker, reader = await self._connect("queue"), await self._connect("reader", manual=True)
        count, last, goes_on = 0, time.monotonic(), asyncio.Event()

        async def on_message(delivery: Delivery) -> None:
            nonlocal count, last
            await goes_on.wait()
            await delivery.acknowledge()
            count, last = count + 1, time.monotonic()

        await reader.subscribe(topic, on_message)
        for start in range(0, QUEUED, 100):
            await asyncio.gather(*(speaker.publish(Message(topic, b"x")) for _ in range(start, start + 100)))
        last = time.monotonic()
        goes_on.set()
        while count < QUEUED and time.monotonic() - last < QUIET_SECONDS:
            await asyncio.sleep(0.02)
        if count >= QUEUED:
            return None
        return Warned(
            "queue",
            f"of {QUEUED} acknowledged messages to a slow reader {QUEUED - count} were dropped silently",
            "set max_queued_messages 10000 on the broker; the mesh polls the ledger, others lose messages",
        )

    async def size(self) -> Warned | None:
        """The largest message of the mesh, and back."""
        if await _echoes(await self._connect("size"), self._probe(), b"x" * MAX_MESSAGE_BYTES):
            return None
        return Warned(
            "size",
            f"a message of {MAX_MESSAGE_BYTES // 1024} KiB does not pass the broker",
            "set message_size_limit and max_packet_size to 1 MiB, so that the mesh itself can refuse",
        )

    async def no_delay(self) -> Warned | None:
        """Publish and hear it on one connection: with no-delay on one side only each waits for the other."""
        connection = await self._connect("delay")
        topic, came, took = self._probe(), asyncio.Event(), []

        async def on_message(_: Delivery) -> None:
            came.set()

        await connection.subscribe(topic, on_message)
        for _ in range(ROUNDS):
            came.clear()
            began = time.perf_counter()
            await connection.publish(Message(topic, b"echo"))
            async with asyncio.timeout(ECHO_SECONDS):
                await came.wait()
            took.append(time.perf_counter() - began)
        if min(took) > STALL_SECONDS or statistics.median(took) < STALL_SECONDS:
            return None  # quick, or as slow as the way there is long
        return Warned(
            "no-delay",
            f"an echo takes {statistics.median(took) * 1000:.0f} ms, at best {min(took) * 1000:.0f} ms: "
            "a side waits to fill its packets",
            "set_tcp_nodelay true on the broker, and TCP_NODELAY on whatever stands in between",
        )

    async def shared_subscriptions(self) -> Warned | None:
        """Whether a new ``$share`` subscriber gets retained messages, as before Mosquitto 2.0.13."""
        connection = await self._connect("share")
        topic = self._probe()
        got: list[bytes] = []

        async def on_message(delivery: Delivery) -> None:
            if delivery.payload:
                got.append(delivery.payload)

        await connection.publish(Message(topic, b"kept", retain=True))
        try:
            await connection.subscribe(f"$share/doctor/{topic}", on_message)
            await asyncio.sleep(SETTLE_SECONDS)
        finally:
            await connection.publish(Message(topic, b"", retain=True))
        if not got:
            return None
        return Warned(
            "shared subscriptions",
            "the broker hands retained messages to shared subscriptions, as Mosquitto before 2.0.13",
            "update the broker before anybody relies on $share; the mesh uses none",
            harmless=True,
        )

    async def other_meshes(self, mesh_id: str | None) -> Warned | None:
        """Whose mesh the tenant's topics say it is."""
        connection = await self._connect("mesh")
        filters = (self._topics.mesh(), protocol_status_filter())
        held = await heard(connection, filters, self._probe())
        said: dict[str, str | None] = {}
        for topic, payload in held.items():
            mesh = read_mesh(payload) if topic == self._topics.mesh() else None
            status = None if mesh else read_status(payload)
            if mesh is not None:
                said[topic] = mesh.mesh_id
            elif status is not None and status.status == "available":
                said[topic] = status.mesh_id
        others = sorted(topic for topic, other in said.items() if other not in (None, mesh_id))
        if not others:
            return None
        return Warned(
            "one mesh",
            f"another ledger's mesh speaks on this tenant's topics: {', '.join(others[:3])}",
            "give each mesh a tenant or a broker of its own; if it is gone: "
            f"mosquitto_pub -r -n -t {others[0]}",
        )


async def _echoes(connection: Connection, topic: str, payload: bytes = b"echo") -> bool:
    came = asyncio.Event()

    async def on_message(delivery: Delivery) -> None:
        if delivery.payload == payload:
            came.set()

    try:
        await connection.subscribe(topic, on_message)
        await connection.publish(Message(topic, payload))
        async with asyncio.timeout(ECHO_SECONDS):
            await came.wait()
    except (TimeoutError, PublishRefused, Unreachable):
        return False
    finally:
        await connection.unsubscribe(topic)
    return True
