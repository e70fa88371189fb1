"""The end of input: of a source that has one, everything yielded and settled; of any other, never."""

from __future__ import annotations

import asyncio

from bus.conformance.bench import Bench, bodies, case, same

__all__ = ["EndingTests"]


class EndingTests:
    """C15."""

    @case("finite")
    async def test_c15_the_end_is_everything_settled(self, bench: Bench) -> None:
        """A finite source has ended when all of it was yielded and acknowledged, not before."""
        consumer = await bench.feed(bodies(10))
        assert not consumer.ended
        taken = await bench.take(consumer, 10)
        await consumer.ack(taken[:9])
        await bench.nothing(consumer)
        assert not consumer.ended, "ended with a message unsettled"
        await consumer.ack(taken[9:])
        async with asyncio.timeout(bench.target.patience):
            assert await consumer.receive() == []
        assert consumer.ended

    @case("finite")
    async def test_c15_at_the_end_receive_waits_for_the_unsettled(self, bench: Bench) -> None:
        """A ``receive`` at the end of input waits for what is in flight, gets it when nacked, and ends when acked."""
        consumer = await bench.feed(bodies(2))
        first, second = await bench.take(consumer, 2)
        waiting = asyncio.create_task(consumer.receive())
        await asyncio.wait({waiting}, timeout=bench.target.quiet)
        assert not waiting.done()
        await consumer.nack([first])
        async with asyncio.timeout(bench.target.patience):
            again = await waiting
            same(again, [first.body])
            waiting = asyncio.create_task(consumer.receive())
            await consumer.ack(again)
            await consumer.ack([second])
            assert await waiting == []
        assert consumer.ended

    @case("finite", "nack_delay")
    async def test_c15_a_delayed_message_is_not_the_end(self, bench: Bench) -> None:
        """A message nacked with a delay keeps the source from ending until it came again and was settled."""
        consumer = await bench.feed(bodies(1))
        await consumer.nack([await bench.one(consumer)], delay=0.05)
        await bench.watch(consumer, 0.01)
        assert not consumer.ended
        if bench.target.clock:
            bench.target.clock.advance(1.0)
        await bench.drain(consumer, bodies(1))
        assert consumer.ended

    @case("finite", delivers=False)
    async def test_c15_an_empty_source_ends_at_once(self, bench: Bench) -> None:
        """A source with nothing in it ends without waiting."""
        await bench.producer()
        consumer = await bench.consumer()
        async with asyncio.timeout(bench.target.patience):
            assert await consumer.receive() == []
        assert consumer.ended

    @case("finite", lacks=["retained"], delivers=False)
    async def test_c15_finite_without_retained_yields_nothing(self, bench: Bench) -> None:
        """Where a source ends before anything can be published to it, what is published is not received."""
        await bench.publish(*bodies(5))
        consumer = await bench.consumer()
        await bench.publish(*bodies(5, start=5))
        assert await consumer.receive(10, timeout=bench.target.patience) == []
        assert consumer.ended

    @case(lacks=["finite"])
    async def test_c15_any_other_source_never_ends(self, bench: Bench) -> None:
        """Without ``finite`` a consumer that has settled everything has not ended, and receives what comes later."""
        consumer = await bench.consumer()
        assert not consumer.ended
        for start in (0, 5):
            await bench.publish(*bodies(5, start=start))
            await bench.drain(consumer, bodies(5, start=start))
            assert not consumer.ended
