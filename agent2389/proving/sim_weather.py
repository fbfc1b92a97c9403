"""The bus as it was measured: late, lossy at QoS 0, doubled at QoS 1, acknowledged without effect."""

import random
from collections import deque
from collections.abc import Callable

import msgspec

from agent2389.broker.memory_server import Weather
from agent2389.broker.port import Message
from agent2389.wire.topics import parse_job_topic


class Climate(msgspec.Struct, frozen=True):
    """How bad it is: probabilities for each message, seconds of ordinary delay."""

    delay: float = 0.02
    spike: float = 0.0
    loss: float = 0.0
    double: float = 0.0
    swallow: float = 0.0


CALM = Climate()
TENANT = "default"


class BadWeather(Weather):
    """Draws the fate of every message. ``climate`` may change while it blows."""

    def __init__(self, chance: random.Random, climate: Climate, note: Callable[[str], None]) -> None:
        self._chance = chance
        self._note = note
        self.climate = climate
        self.swallowed = 0
        self.kept: deque[Message] = deque(maxlen=64)
        """The last retained messages, clears too: a client that reconnects may send one again."""

    def sending(self, client_id: str, message: Message) -> float:  # noqa: ARG002 - all alike
        """Seconds to the broker."""
        return self._delay()

    def takes(self, client_id: str, message: Message) -> bool:
        """A submission may be acknowledged and be gone: the broker died before it wrote it down."""
        if message.retain:
            self.kept.append(message)
            self._note(f"bus: {client_id} {message.topic} {len(message.payload)} bytes retained")
        if parse_job_topic(message.topic, TENANT) is None or self._chance.random() >= self.climate.swallow:
            return True
        self.swallowed += 1
        return False

    def arrivals(self, client_id: str, message: Message) -> tuple[float, ...]:  # noqa: ARG002
        """Seconds to the client of each copy."""
        climate = self.climate
        if message.qos == 0 and self._chance.random() < climate.loss:
            return ()
        if message.qos > 0 and self._chance.random() < climate.double:
            return (self._delay(), self._delay())
        return (self._delay(),)

    def _delay(self) -> float:
        if self._chance.random() < self.climate.spike:
            return self._chance.uniform(0.5, 4.0)
        return self._chance.uniform(0.0005, self.climate.delay)
