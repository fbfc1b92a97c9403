"""Board and a real broker without persistence are brought in line, both ways."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent2389.broker.port import Broker, Connection, Delivery, Message
from agent2389.errors import Unreachable
from agent2389.telemetry import surroundings
from agent2389.upkeep.chores import INTERVALS, Chores
from agent2389.upkeep.dispatch import Dispatcher
from agent2389.upkeep.reconcile import Reconciled, Reconciler
from agent2389.upkeep.retained import heard
from agent2389.wire.topics import MeshTopics
from tests.support.brokers import RealPlace
from tests.support.jobs import join, new_job
from tests.support.stepped import SteppedMemory
from tests.support.waiting import until

TOPICS = MeshTopics("default")


class House:
    """A ledger, a broker process, and one process' way to both."""

    def __init__(self, place: RealPlace) -> None:
        self.place = place
        self.ledger = SteppedMemory()
        self.broker: Broker = place.client()

    async def open(self, name: str = "house") -> None:
        self.connection = await self.broker.connect(name)
        await self.connection.wait_connected(10)
        self.dispatcher, self.reconciler = self.process(self.connection)

    def process(self, connection: Connection) -> tuple[Dispatcher, Reconciler]:
        dispatcher = Dispatcher(self.ledger, connection)
        return dispatcher, Reconciler(self.ledger, connection, dispatcher)

    async def end_jobs(self, *names: str) -> None:
        """Jobs whose result is on the board and on the broker."""
        for name in names:
            await self.ledger.submit(new_job(name))
            await self.ledger.cancel(name, "me")
        await self.dispatcher.flush()

    async def held(self) -> dict[str, bytes]:
        filters = (*TOPICS.board_filters(), TOPICS.presence_filter())
        return await heard(self.connection, filters, TOPICS.probe("test", "test"))

    async def forget(self, *topics: str) -> None:
        for topic in topics:
            await self.connection.publish(Message(topic, b"", retain=True))

    async def retain(self, topic: str, payload: bytes = b"{}") -> None:
        await self.connection.publish(Message(topic, payload, retain=True))


@asynccontextmanager
async def house_on(folder: Path) -> AsyncIterator[House]:
    place = RealPlace(folder)
    async with place.running():
        house = House(place)
        try:
            await house.open()
            yield house
        finally:
            await house.broker.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with house_on(tmp_path) as opened:
        yield opened


async def test_a_broker_in_line_is_left_alone(house: House) -> None:
    await house.end_jobs("one", "two")
    assert await house.reconciler.compare_all() == Reconciled(0, 0)
    assert await house.reconciler.compare() == Reconciled(0, 0)


async def test_only_what_is_missing_is_sent_again(house: House) -> None:
    await house.end_jobs("one", "two", "three")
    before = await house.held()
    await house.forget(TOPICS.result("two"))
    again: list[str] = []

    async def on_result(delivery: Delivery) -> None:
        again.append(delivery.topic)

    witness = await house.broker.connect("witness")
    await witness.wait_connected(10)
    assert await house.reconciler.compare_all() == Reconciled(1, 0)
    assert await house.held() == before
    await witness.subscribe(TOPICS.result_filter(), on_result)
    await until(lambda: len(again) == 3)
    assert await house.reconciler.compare_all() == Reconciled(0, 0)
    assert len(again) == 3


async def test_what_shows_another_payload_is_put_right(house: House) -> None:
    await house.end_jobs("one")
    before = await house.held()
    await house.retain(TOPICS.result("one"), b'{"forged": true}')
    assert (await house.reconciler.compare_all()).resent == 1
    assert await house.held() == before


@pytest.mark.parametrize(
    "topic",
    [TOPICS.open("research", "task-1", 1), TOPICS.claim("task-1", 4), TOPICS.result("nobody")],
    ids=["open", "claim", "result"],
)
async def test_what_the_ledger_does_not_know_is_cleared(house: House, topic: str) -> None:
    await house.end_jobs("one")
    await house.retain(topic)
    assert await house.reconciler.compare_all() == Reconciled(0, 1)
    assert list(await house.held()) == [TOPICS.result("one")]


async def test_presence_of_processes_that_ended_is_cleared(house: House) -> None:
    living = await join(house.ledger, "here")
    stopped = await join(house.ledger, "there")
    await house.ledger.stopped(stopped)
    for name, incarnation in (("here", living), ("there", stopped), ("never", "unknown")):
        await house.retain(TOPICS.presence(name, incarnation))
    assert (await house.reconciler.compare_all()).cleared == 2
    assert list(await house.held()) == [TOPICS.presence("here", living)]


async def test_the_interval_compares_results_in_slices(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.upkeep.reconcile.SLICE", 2)
    names = [f"job-{number}" for number in range(5)]
    await house.end_jobs(*names)
    await house.forget(*map(TOPICS.result, names))
    assert [(await house.reconciler.compare()).resent for _ in range(4)] == [2, 2, 1, 0]
    assert len(await house.held()) == 5


async def test_a_large_answer_that_was_cut_short_sends_nothing_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past a queue's limit a broker leaves topics out; each is asked for once more by its own name."""
    monkeypatch.setattr("agent2389.upkeep.reconcile.FEW", 0)
    await house.end_jobs("one", "two")
    await house.forget(TOPICS.result("two"))
    whole = house.reconciler._heard

    async def cut(filters: tuple[str, ...]) -> dict[str, bytes]:
        return {} if TOPICS.result_filter() in filters else await whole(filters)

    monkeypatch.setattr(house.reconciler, "_heard", cut)
    assert (await house.reconciler.compare_all()).resent == 1


async def test_after_a_restart_without_persistence_everything_is_there_again(tmp_path: Path) -> None:
    place = RealPlace(tmp_path)
    house = House(place)
    async with place.running():
        await house.open()
        house.connection.on_connected(back(house.reconciler))
        await house.end_jobs("one", "two")
        before = await house.held()
        await place.kill()
    (tmp_path / "broker" / "mosquitto.db").unlink(missing_ok=True)
    async with place.running():
        await house.connection.wait_connected(20)
        assert await house.held() == {}, "the broker forgot"
        running = asyncio.create_task(house.reconciler.run())
        try:
            await until(lambda: same(house, before))
        finally:
            running.cancel()
            await house.broker.close()


async def test_of_many_processes_one_compares_after_a_restart(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.upkeep.reconcile.SETTLE_SECONDS", 0.05)
    processes = [house.reconciler, *(house.process(house.connection)[1] for _ in range(4))]
    ours = await asyncio.gather(*(process._is_ours(surroundings.elapsed()) for process in processes))
    assert ours == [True, False, False, False, False]


async def test_a_run_from_before_the_restart_does_not_count(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.upkeep.reconcile.SETTLE_SECONDS", 0.05)
    assert await house.ledger.take_chore("reconcile-all", 0.0)
    asked = asyncio.create_task(house.reconciler._is_ours(surroundings.elapsed()))
    await asyncio.sleep(0)
    assert not asked.done(), "somebody compared a moment ago"
    await house.ledger.advance(1.0)
    assert await asked


async def test_a_broker_that_is_away_is_no_reason_to_send(house: House) -> None:
    await house.end_jobs("one")
    await house.place.kill()
    await until(lambda: not house.connection.state.connected)
    with pytest.raises(Unreachable):
        await house.reconciler.compare_all()
    (row,) = await house.ledger.board_shown(("result",))
    assert row.sent


async def test_the_chore_runs_it_and_an_agent_is_told_when_it_is_late(house: House) -> None:
    await house.end_jobs("one")
    await house.forget(TOPICS.result("one"))
    assert "reconcile" in INTERVALS
    chores = Chores(house.ledger, house.dispatcher, reconciler=house.reconciler)
    await chores.run_due(["reconcile"])
    assert list(await house.held()) == [TOPICS.result("one")]


async def same(house: House, before: dict[str, bytes]) -> bool:
    return await house.held() == before


def back(reconciler: Reconciler) -> Callable[[], Awaitable[None]]:
    async def hook() -> None:
        reconciler.broker_is_back()

    return hook
