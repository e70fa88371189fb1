"""What the memory bus promises beyond the contract: threads, retention, order of redelivery, options."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bus import Bus, BusURLError, Delivery, Message, TooLargeError, connect
from bus.conformance import ManualClock
from bus.memory.group import Entry, Stored


def _url(options: str = "") -> str:
    return f"memory:{uuid.uuid4()}{options}"


def _in_threads(*steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run each step in a thread and an event loop of its own, and raise what one raised."""
    errors: list[BaseException] = []

    def run(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            asyncio.run(step())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive(), "a thread hangs"
    for error in errors:
        raise error


def test_threads_share_without_loss_or_duplicates() -> None:
    """Four producers and four consumers, each in a loop and thread of its own, pass 8,000 messages once each."""
    url = _url()
    got: list[bytes] = []
    total = 8000

    async def produce(number: int) -> None:
        async with connect(url) as bus, await bus.producer() as producer:
            for start in range(0, 2000, 10):
                messages = [Message("t", b"%d" % (number * 2000 + start + n)) for n in range(10)]
                await producer.publish_many(messages)

    async def consume() -> None:
        async with connect(url) as bus, await bus.consumer("t", "g") as consumer:
            while len(got) < total:
                batch = await consumer.receive(7, timeout=0.1)
                await consumer.ack(batch)
                got.extend(delivery.body for delivery in batch)

    _in_threads(*(lambda n=n: produce(n) for n in range(4)), *([consume] * 4))

    assert sorted(map(int, got)) == list(range(total))


def test_a_publish_wakes_a_consumer_in_another_thread() -> None:
    """A consumer blocked without a timeout in one thread receives what another thread publishes."""
    url = _url()
    listening = threading.Event()
    got: list[Delivery] = []

    async def consume() -> None:
        async with connect(url) as bus, await bus.consumer("t", "g") as consumer:
            asyncio.get_running_loop().call_later(0.05, listening.set)
            for _ in range(2):
                got.extend(await consumer.receive())

    async def produce() -> None:
        async with connect(url) as bus, await bus.producer() as producer:
            await asyncio.to_thread(listening.wait, 10.0)
            await producer.publish("t", b"1")
            await producer.publish("t", b"2", delay=0.05)

    _in_threads(consume, produce)

    assert [delivery.body for delivery in got] == [b"1", b"2"]


def test_a_consumer_whose_loop_is_gone_is_no_trouble() -> None:
    """A consumer that was blocked when its event loop was closed does not stop others from publishing."""
    url = _url()

    async def vanish() -> None:
        consumer = await connect(url).consumer("t", "g")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await consumer.receive()

    async def go_on() -> None:
        async with connect(url) as bus, await bus.producer() as producer, await bus.consumer("t", "g") as consumer:
            await producer.publish("t", b"1")
            assert [delivery.body for delivery in await consumer.receive()] == [b"1"]

    asyncio.run(vanish())
    asyncio.run(go_on())


def test_buses_of_one_name_are_one() -> None:
    """The name decides which messages one sees; no name is a name too; closing the bus keeps the messages."""

    async def check() -> None:
        topic = f"t{uuid.uuid4().hex}"
        async with connect("memory:") as bus, await bus.producer() as producer:
            await producer.publish(topic, b"1")
        async with connect("memory:") as same, connect(_url()) as other:
            assert (await same.depth(topic, "g")).ready == 1
            assert (await other.depth(topic, "g")).ready == 0

    asyncio.run(check())


def test_ack_after_an_unnoticed_expiry_holds() -> None:
    """When the lease ended but nobody took the message, its holder may still extend, finish and acknowledge it."""

    async def check() -> None:
        clock = ManualClock()
        async with connect(_url("?lease=10s"), clock=clock) as bus, await bus.producer() as producer:
            consumer = await bus.consumer("t", "g")
            await producer.publish_many([Message("t", b"%d" % n) for n in range(3)])
            first, second, third = await consumer.receive(3)
            clock.advance(11.0)
            assert (await bus.depth("t", "g")).ready == 3
            assert await consumer.extend([first]) == []
            assert (await bus.depth("t", "g")).in_flight == 1
            await consumer.ack([first, second])
            await consumer.finish([third], [Message("done", b"{}")], producer)
            assert (await bus.depth("t", "g")).total == 0
            assert (await bus.depth("done", "g")).ready == 1

    asyncio.run(check())


def test_redelivered_messages_come_before_younger_ones() -> None:
    """What was handed back or expired comes in its place in the order of publishing."""

    async def check() -> None:
        clock = ManualClock()
        async with connect(_url("?lease=10s"), clock=clock) as bus, await bus.producer() as producer:
            consumer = await bus.consumer("t", "g")
            await producer.publish_many([Message("t", b"%d" % n) for n in range(8)])
            taken = await consumer.receive(6)
            await consumer.nack([taken[4], taken[1]])
            await consumer.release([taken[2]])
            await consumer.nack([taken[0]], delay=5.0)
            assert [delivery.body for delivery in await consumer.receive(4)] == [b"1", b"2", b"4", b"6"]
            clock.advance(11.0)
            assert [delivery.body for delivery in await consumer.receive(9)] == [b"%d" % n for n in range(8)]

    asyncio.run(check())


def test_a_message_stays_until_every_group_is_done_with_it() -> None:
    """The stored messages of a topic are those some group has not acknowledged, or all while there is no group."""

    async def check() -> None:
        async with connect(_url()) as bus, await bus.producer() as producer:
            await producer.publish_many([Message("t", b"%d" % n) for n in range(3)])
            assert len(await bus.peek("t")) == 3
            one = await bus.consumer("t", "one")
            two = await bus.consumer("t", "two")
            await one.ack(await one.receive(3))
            await two.ack((await two.receive(3))[:2])
            assert [peeked.body for peeked in await bus.peek("t")] == [b"2"]
            three = await bus.consumer("t", "three")
            assert [delivery.body for delivery in await three.receive(3)] == [b"2"]

    asyncio.run(check())


def test_nothing_is_kept_of_what_is_settled() -> None:
    """After thousands of messages nacked, delayed, extended, abandoned and finished, no object of them is left."""

    async def use(bus: Bus, clock: ManualClock) -> None:
        producer = await bus.producer()
        consumers = [await bus.consumer("t", group) for group in ("one", "two", None)]
        for _ in range(20):
            await producer.publish_many([Message("t", b"x", delay=n % 3) for n in range(100)])
            clock.advance(4.0)
            for consumer in consumers:
                taken = await consumer.receive(100)
                await consumer.extend(taken[:30])
                await consumer.nack(taken[30:60], delay=1.0, reason="again")
                await consumer.release(taken[60:80])
                clock.advance(31.0)
                again = await consumer.receive(100)
                assert len(again) == 100
                await consumer.finish(again, [], producer)
        await bus.close()

    async def check() -> None:
        clock = ManualClock()
        bus = connect(_url(), clock=clock)
        before = _objects()
        await use(bus, clock)
        assert _objects() == before

    asyncio.run(check())


def _objects() -> int:
    gc.collect()
    return sum(isinstance(each, Entry | Stored | Delivery) for each in gc.get_objects())


def test_an_idle_consumer_does_not_poll() -> None:
    """By the system's clock a blocked receive sleeps until something is due: it does not wake up to look."""

    async def check() -> None:
        async with connect(_url()) as bus:
            consumer = await bus.consumer("t", "g")
            waiting = asyncio.create_task(consumer.receive())
            await asyncio.wait({waiting}, timeout=0.05)
            loop = asyncio.get_running_loop()
            assert [timer for timer in getattr(loop, "_scheduled") if not timer.cancelled()] == []  # noqa: B009
            waiting.cancel()

    asyncio.run(check())


def test_ids_are_forgotten_after_the_window() -> None:
    """The ids kept to drop repetitions are those of the window, and none without one."""

    async def check() -> None:
        clock = ManualClock()
        for options, copies in (("?dedupe=10s", 1), ("?dedupe=0", 2)):
            async with connect(_url(options), clock=clock) as bus, await bus.producer() as producer:
                assert bus.capabilities.dedupe == (10.0 if copies == 1 else None)
                for _ in range(2):
                    await producer.publish("t", b"x", id="a")
                assert (await bus.depth("t", "g")).ready == copies
                clock.advance(10.5)
                await producer.publish("t", b"x", id="a")
                assert (await bus.depth("t", "g")).ready == copies + 1

    asyncio.run(check())


def test_the_size_limit_is_the_option() -> None:
    """``max_size`` of the URL is declared and kept."""

    async def check() -> None:
        async with connect(_url("?max_size=1KiB")) as bus, await bus.producer() as producer:
            assert bus.capabilities.max_size == 1024
            await producer.publish("t", b"x" * 1024)
            with pytest.raises(TooLargeError, match="max_size"):
                await producer.publish("t", b"x" * 1025)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory:x?leese=3", "did you mean 'lease'"),
        ("memory:x?lease=0", "lease"),
        ("memory:x?lease=soon", "duration"),
        ("memory:x?max_size=0", "at least 1 byte"),
        ("memory:x?dedupe=-1s", "negative"),
        ("memory://orders", "memory:orders"),
        ("memory://me@orders", "memory:orders"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, says: str) -> None:
    """A wrong option or a host is a BusURLError that says what to write."""
    with pytest.raises(BusURLError, match=says):
        connect(url)


def test_waiting_consumers_are_woken_once_each() -> None:
    """Of twenty consumers waiting in one loop, ten messages wake ten, and the others go on waiting."""

    async def check() -> None:
        async with connect(_url()) as bus, await bus.producer() as producer:
            consumers = [await bus.consumer("t", "g") for _ in range(20)]
            waiting = [asyncio.create_task(consumer.receive(1)) for consumer in consumers]
            await asyncio.sleep(0)
            await producer.publish_many([Message("t", b"%d" % n) for n in range(10)])
            done, pending = await asyncio.wait(waiting, timeout=0.1)
            assert sorted(delivery.body for task in done for delivery in task.result()) == [
                b"%d" % n for n in range(10)
            ]
            assert len(pending) == 10
            await bus.close()
            assert [await task for task in pending] == [[]] * 10

    asyncio.run(check())


def test_health_after_close_is_bad() -> None:
    """A closed bus says that it is closed."""

    async def check() -> None:
        bus = connect(_url())
        assert (await bus.health()).ok
        await bus.close()
        assert not (await bus.health()).ok

    asyncio.run(check())
