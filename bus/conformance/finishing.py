"""``finish``: the result first, then the acknowledgement; on some buses both at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bus.conformance.bench import Bench, bodies, case
from bus.contract import Consumer, Delivery, Message, Producer
from bus.errors import LeaseLostError, TooLargeError, UnreachableError
from bus.registry import connect

__all__ = ["FinishingTests"]


class _Unreachable(Producer):
    """Of a bus that is down."""

    async def publish_many(self, messages: Sequence[Message]) -> None:
        raise UnreachableError("down")

    async def close(self) -> None:
        pass


class FinishingTests:
    """I5: an acknowledgement only after the confirmed publish of what came of it."""

    @case(lacks=["finite"])
    async def test_finish_publishes_and_acknowledges(self, bench: Bench) -> None:
        """After ``finish`` the messages are there, in their topics, and the deliveries never come again."""
        consumer = await bench.feed(bodies(3))
        first, second = bench.name(), bench.name()
        readers = [await bench.consumer(topic=first), await bench.consumer(topic=second)]
        messages = [Message(first, b'"a"'), Message(second, b'"b"'), Message(first, b'"c"')]
        await consumer.finish(await bench.take(consumer, 3), messages, await bench.producer())
        await bench.drain(readers[0], [b'"a"', b'"c"'])
        await bench.drain(readers[1], [b'"b"'])
        await consumer.close()
        await bench.nothing(await bench.consumer())

    @case()
    async def test_finish_across_buses(self, bench: Bench) -> None:
        """The producer may belong to another bus, and there may be nothing to publish."""
        consumer = await bench.feed(bodies(2))
        first, second = await bench.take(consumer, 2)
        async with connect(f"memory:{bench.topic}-other") as other:
            await consumer.finish([first], [Message("done", b'"a"')], await other.producer())
            await consumer.finish([second], [], await other.producer())
            reader = await other.consumer("done", "g")
            assert [delivery.body for delivery in await reader.receive(10, timeout=bench.target.patience)] == [b'"a"']
        await bench.nothing(consumer)

    @case()
    async def test_finish_does_not_acknowledge_what_it_could_not_publish(self, bench: Bench) -> None:
        """When publishing fails the delivery stays ours, unsettled: it can be finished later or handed back."""
        consumer = await bench.feed(bodies(2))
        first, second = await bench.take(consumer, 2)
        with pytest.raises(UnreachableError):
            await consumer.finish([first, second], [Message("done", b"{}")], _Unreachable())
        await consumer.release([first])
        await consumer.finish([second], [], _Unreachable())
        await bench.drain(consumer, [first.body])

    @case("max_size", lacks=["finite"])
    async def test_finish_with_a_message_too_large(self, bench: Bench) -> None:
        """A message over the size limit publishes nothing and settles nothing."""
        size = bench.caps.max_size or 0
        consumer = await bench.feed(bodies(1))
        done = bench.name()
        reader = await bench.consumer(topic=done)
        delivery = await bench.one(consumer)
        messages = [Message(done, b"{}"), Message(done, b"x" * (size + 1))]
        with pytest.raises(TooLargeError):
            await consumer.finish([delivery], messages, await bench.producer())
        await bench.nothing(reader)
        await consumer.finish([delivery], [Message(done, b'"shorter"')], await bench.producer())
        await bench.drain(reader, [b'"shorter"'])
        await consumer.close()
        await bench.nothing(await bench.consumer())

    @case("atomic_finish", "lease", "shared", lacks=["finite"])
    async def test_l03_atomic_finish_of_a_lost_lease_publishes_nothing(self, bench: Bench) -> None:
        """With ``atomic_finish`` one lost lease of a batch means: nothing published, nothing acknowledged."""
        late, lost, held = await self._lose_one(bench)
        done = bench.name()
        reader = await bench.consumer(topic=done)
        with pytest.raises(LeaseLostError) as caught:
            await late.finish([lost, held], [Message(done, b'"late"')], await bench.producer())
        assert caught.value.deliveries == (lost,)
        await bench.nothing(reader)
        await late.finish([held], [Message(done, b'"good"')], await bench.producer())
        await bench.drain(reader, [b'"good"'])
        await late.close()
        await bench.nothing(await bench.consumer())

    @case("lease", "shared", lacks=["atomic_finish", "finite"])
    async def test_l03_finish_of_a_lost_lease_publishes_first(self, bench: Bench) -> None:
        """Without ``atomic_finish`` the messages are published although a lease is lost, which is then reported."""
        late, lost, held = await self._lose_one(bench)
        done = bench.name()
        reader = await bench.consumer(topic=done)
        with pytest.raises(LeaseLostError) as caught:
            await late.finish([lost, held], [Message(done, b'"late"')], await bench.producer())
        assert caught.value.deliveries == (lost,)
        await bench.drain(reader, [b'"late"'])
        await late.close()
        await bench.nothing(await bench.consumer())

    async def _lose_one(self, bench: Bench) -> tuple[Consumer, Delivery, Delivery]:
        """A consumer, a delivery it lost to another (which has acknowledged it), and one it still holds."""
        late = await bench.feed(bodies(1))
        lost = await bench.one(late)
        bench.expire(late)
        other = await bench.consumer(bus=await bench.connect())
        await bench.drain(other, [lost.body])
        await other.close()
        await bench.publish(b'"held"')
        return late, lost, await bench.one(late)
