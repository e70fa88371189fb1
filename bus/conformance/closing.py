"""``close``: at any moment, any number of times, leaving everything to others."""

from __future__ import annotations

import asyncio

import pytest

from bus.conformance.bench import Bench, bodies, case, same
from bus.contract import Delivery
from bus.errors import BusError, ClosedError

__all__ = ["ClosingTests"]


class ClosingTests:
    """C07, C08, and what close gives back."""

    @case(lacks=["finite"])
    async def test_c07_close_while_receive_waits(self, bench: Bench) -> None:
        """Closing the consumer lets a blocked ``receive`` return an empty list."""
        consumer = await bench.consumer()
        waiting = [asyncio.create_task(consumer.receive(5))]
        await asyncio.wait(waiting, timeout=bench.target.quiet)
        assert not waiting[0].done(), "receive returned though it was given no timeout"
        await consumer.close()
        async with asyncio.timeout(bench.target.patience):
            assert await waiting[0] == []
        assert consumer.ended

    @case(lacks=["finite"])
    async def test_c07_closing_the_bus_while_receive_waits(self, bench: Bench) -> None:
        """Closing the bus closes its consumers and producers, also one whose ``receive`` is blocked."""
        bus = await bench.connect()
        consumer, producer = await bench.consumer(bus=bus), await bus.producer()
        waiting = [asyncio.create_task(consumer.receive(5))]
        await asyncio.wait(waiting, timeout=bench.target.quiet)
        await bus.close()
        async with asyncio.timeout(bench.target.patience):
            assert await waiting[0] == []
        assert consumer.ended
        with pytest.raises(ClosedError):
            await producer.publish(bench.topic, b"{}")

    @case(delivers=False)
    async def test_c07_close_before_the_first_receive(self, bench: Bench) -> None:
        """A consumer, a producer and a bus may be closed unused, twice, and at the same time."""
        bus = await bench.connect()
        consumer, producer = await bench.consumer(bus=bus), await bus.producer()
        await asyncio.gather(consumer.close(), consumer.close(), producer.close(), producer.close())
        await consumer.close()
        await producer.close()
        await asyncio.gather(bus.close(), bus.close())
        await bus.close()

    @case(delivers=False)
    async def test_c07_a_bus_never_opened_may_be_closed(self, bench: Bench) -> None:
        """Closing what was never opened does nothing; opening twice does nothing more than opening once."""
        await bench.target.connect().close()
        await bench.bus.open()
        await bench.bus.open()

    @case(delivers=False)
    async def test_c08_after_close(self, bench: Bench) -> None:
        """After close ``receive`` is empty at once and publishing is a ClosedError; so is using a closed bus."""
        bus = await bench.connect()
        consumer, producer = await bench.consumer(bus=bus), await bus.producer()
        await consumer.close()
        async with asyncio.timeout(bench.target.patience):
            assert await consumer.receive() == []
        assert consumer.ended
        await producer.close()
        with pytest.raises(ClosedError):
            await producer.publish(bench.topic, b"{}")
        await bus.close()
        with pytest.raises(ClosedError):
            await bus.producer()
        with pytest.raises(ClosedError):
            await bus.consumer(bench.topic, "g")

    @case(lacks=["finite"])
    async def test_close_hands_back_what_is_unsettled(self, bench: Bench) -> None:
        """What a consumer holds when it closes goes to another at once, and does not count as an attempt."""
        consumer = await bench.feed(bodies(10))
        held = await bench.take(consumer, 4)
        await consumer.ack(held[:1])
        await consumer.close()
        rest = [body for body in bodies(10) if body != held[0].body]
        got = await bench.drain(await bench.consumer(bus=await bench.connect()), rest)
        if bench.caps.attempts and not bench.caps.release_counts:
            assert {delivery.attempt for delivery in got} == {1}

    @case(lacks=["finite"])
    async def test_settling_after_close_does_no_harm(self, bench: Bench) -> None:
        """An ack after close comes too late: it does nothing or is a BusError, and the message comes again."""
        consumer = await bench.feed(bodies(2))
        held = await bench.take(consumer, 2)
        await consumer.close()
        for settle in (consumer.ack, consumer.nack, consumer.release):
            try:
                await settle(held)
            except BusError:
                continue
        await bench.drain(await bench.consumer(), bodies(2))

    @case(lacks=["finite"])
    async def test_closing_is_quick_and_concurrent(self, bench: Bench) -> None:
        """Ten consumers opened, receiving and closed all at once lose nothing."""
        await (await bench.feed(bodies(50))).close()
        async with asyncio.timeout(bench.target.patience * 2):
            for _ in range(3):
                consumers = await asyncio.gather(*(bench.consumer() for _ in range(10))) if bench.caps.shared else []
                receiving = [asyncio.create_task(consumer.receive(5)) for consumer in consumers]
                await asyncio.sleep(0)
                await asyncio.gather(*(consumer.close() for consumer in consumers))
                for batch in await asyncio.gather(*receiving):
                    same(batch, [body for body in bodies(50) if body in {delivery.body for delivery in batch}])
        await bench.drain(await bench.consumer(), bodies(50))

    @case(lacks=["finite"])
    async def test_consumers_may_come_and_go(self, bench: Bench) -> None:
        """Read in small portions, each by a new consumer on a new connection, everything comes once."""
        await (await bench.feed(bodies(60))).close()
        got: list[Delivery] = []
        for _ in range(6):
            async with bench.target.connect() as bus, await bench.consumer(bus=bus) as consumer:
                taken = await bench.take(consumer, min(15, 60 - len(got)))
                await consumer.ack(taken[:10])
                got += taken[:10]
        same(got, bodies(60))
        await bench.nothing(await bench.consumer())

    @case(delivers=False)
    async def test_i7_close_leaves_nothing_running(self, bench: Bench) -> None:
        """A closed bus leaves no asyncio task behind."""
        before = asyncio.all_tasks()
        for _ in range(3):
            bus = await bench.connect()
            consumer, producer = await bench.consumer(bus=bus), await bus.producer()
            await producer.publish(bench.topic, b"{}")
            await consumer.receive(1, timeout=bench.target.quiet)
            await bus.close()
        assert asyncio.all_tasks() <= before
