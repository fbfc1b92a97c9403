"""The broker in memory has the measured habits of a stock Mosquitto."""

from agent2389.broker.memory import MemoryBroker
from agent2389.broker.memory_server import MemoryServer
from agent2389.broker.port import Delivery, Message
from tests.support.waiting import until


class Heard(list[Delivery]):
    async def __call__(self, delivery: Delivery) -> None:
        self.append(delivery)


async def test_twenty_unacknowledged_messages_hold_back_qos_1_and_nothing_else() -> None:
    broker, heard = MemoryBroker(MemoryServer()), Heard()
    by_hand = await broker.connect("by-hand", manual_acknowledgement=True)
    await by_hand.subscribe("work/+", heard)
    await by_hand.wait_connected(1)
    for number in range(25):
        await by_hand.publish(Message(f"work/{number}", b"x"))
    await by_hand.publish(Message("work/bell", b"x", qos=0))
    await until(lambda: heard[-1].topic == "work/bell")
    assert len(heard) == 21
    await heard[0].acknowledge()
    await heard[0].acknowledge()
    await until(lambda: len(heard) == 22)
    assert heard[-1].topic == "work/20"
    await broker.close()


async def test_a_new_subscriber_gets_1020_of_5000_retained_messages() -> None:
    server = MemoryServer()
    broker, heard, fast = MemoryBroker(server), Heard(), Heard()
    writer = await broker.connect("writer")
    await writer.wait_connected(1)
    for number in range(5000):
        server.publish(Message(f"jobs/{number}", b"x", retain=True))
    late = await broker.connect("late")
    await late.subscribe("jobs/+", heard)
    await late.wait_connected(1)
    await until(lambda: len(heard) == 1020)
    await writer.publish(Message("jobs/after", b"x"))
    await until(lambda: heard[-1].topic == "jobs/after")
    assert (len(heard), server.dropped) == (1021, 3980)
    await writer.subscribe("jobs/+", fast, qos=0)
    await until(lambda: len(fast) == 5000)
    await broker.close()


async def test_a_second_client_of_one_id_takes_the_place_and_the_will_is_told() -> None:
    server = MemoryServer()
    one, two, heard = MemoryBroker(server), MemoryBroker(server), Heard()
    first = await one.connect("same", will=Message("will", b"gone"))
    await first.wait_connected(1)
    second = await two.connect("same")
    await second.subscribe("will", heard)
    await second.wait_connected(1)
    await until(lambda: first.state.last_error)
    assert first.state.last_error == "another process uses this client id"
    third, later = await two.connect("third"), Heard()
    await third.subscribe("will", later)
    await third.wait_connected(1)
    server.drop("same", "cut")
    await until(lambda: not second.state.connected)
    assert not later, "the second one left no will"
    await one.close()
    await two.close()
