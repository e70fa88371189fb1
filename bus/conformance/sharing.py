"""Who gets what: groups, consumers that share one, broadcasts, and what was published before they came."""

from __future__ import annotations

import asyncio

import pytest

from bus.conformance.bench import Bench, bodies, case, same
from bus.contract import Consumer, Delivery
from bus.errors import UnsupportedError

__all__ = ["SharingTests"]


class SharingTests:
    """C06, C12, C14 and broadcasts."""

    @case("groups")
    async def test_c12_every_group_gets_everything(self, bench: Bench) -> None:
        """Three groups, on different connections, each receive every message once."""
        buses = [bench.bus, await bench.connect(), await bench.connect()]
        if bench.caps.finite:
            await bench.publish(*bodies(30))
        consumers = [await bench.consumer(f"group-{n}", bus=bus) for n, bus in enumerate(buses)]
        if not bench.caps.finite:
            await bench.publish(*bodies(30))
        await asyncio.gather(*(bench.drain(consumer, bodies(30)) for consumer in consumers))

    @case("groups", lacks=["finite"])
    async def test_c12_groups_settle_for_themselves(self, bench: Bench) -> None:
        """What one group acknowledges, nacks or holds changes nothing for another."""
        first, second = await bench.consumer("one"), await bench.consumer("two")
        await bench.publish(*bodies(6))
        acked = await bench.take(first, 2)
        await first.ack(acked)
        again = await bench.take(first, 2)
        await first.nack(again)
        taken = await bench.take(second, 6)
        same(taken, bodies(6))
        if bench.caps.attempts:
            assert {delivery.attempt for delivery in taken} == {1}
        await second.ack(taken)
        gone = {delivery.body for delivery in acked}
        same(await bench.take(first, 4), [body for body in bodies(6) if body not in gone])
        await bench.nothing(second)

    @case(lacks=["groups"])
    async def test_without_groups_a_second_group_does_not_get_everything(self, bench: Bench) -> None:
        """Without ``groups`` a second group is refused, or the two do not both get everything."""
        first = await bench.feed(bodies(10))
        try:
            second = await bench.consumer("another")
        except UnsupportedError:
            return
        got = [await _all(bench, first), await _all(bench, second)]
        assert [len(each) for each in got] != [10, 10], "each group got everything: declare groups"

    @case("shared")
    async def test_c06_consumers_share_without_duplicates(self, bench: Bench) -> None:
        """Four consumers of one group on two connections receive 400 messages between them, each once."""
        other = await bench.connect()
        consumers = [await bench.consumer(bus=bus) for bus in (bench.bus, bench.bus, other, other)]
        got: list[Delivery] = []

        async def work(consumer: Consumer, limit: int) -> None:
            while batch := await consumer.receive(limit, timeout=bench.target.patience):
                got.extend(batch)
                await consumer.ack(batch)
                if len(got) >= 400:
                    await asyncio.gather(*(each.close() for each in consumers))

        await bench.publish(*bodies(400))
        await asyncio.gather(*(work(consumer, limit) for limit, consumer in enumerate(consumers, 1)))
        same(got, bodies(400))
        if bench.caps.attempts:
            assert {delivery.attempt for delivery in got} == {1}
        await bench.nothing(await bench.consumer())

    @case(lacks=["shared"])
    async def test_without_shared_consumers_do_not_share(self, bench: Bench) -> None:
        """Without ``shared`` a second consumer of a group is refused, or they do not divide the messages cleanly."""
        first = await bench.feed(bodies(10))
        try:
            second = await bench.consumer()
        except UnsupportedError:
            return
        held = await bench.one(first)
        rest = await _all(bench, second)
        assert sorted([held.body, *rest]) != sorted(bodies(10)), "the consumers shared the messages: declare shared"

    @case("retained")
    async def test_c14_published_before_anybody_listened(self, bench: Bench) -> None:
        """Messages of a topic without consumers, from a connection already closed, go to the first group."""
        async with bench.target.connect() as earlier, await earlier.producer() as producer:
            for body in bodies(10):
                await producer.publish(bench.topic, body)
        await bench.drain(await bench.consumer(), bodies(10))

    @case(lacks=["retained", "finite"])
    async def test_c14_without_retained_the_past_is_gone(self, bench: Bench) -> None:
        """Without ``retained`` the first group receives only what is published after it exists."""
        await bench.publish(*bodies(5))
        consumer = await bench.consumer()
        await bench.nothing(consumer)
        await bench.publish(*bodies(5, start=5))
        await bench.drain(consumer, bodies(5, start=5))

    @case("replay", "groups")
    async def test_a_later_group_receives_what_is_stored(self, bench: Bench) -> None:
        """A group made while another has everything in flight receives everything too, and what comes after."""
        first = await bench.feed(bodies(10))
        held = await bench.take(first, 10)
        later = await bench.consumer("later")
        await bench.drain(later, bodies(10))
        await first.ack(held)
        if not bench.caps.finite:
            await bench.publish(*bodies(2, start=10))
            await bench.drain(later, bodies(2, start=10))
            await bench.drain(first, bodies(2, start=10))

    @case("groups", lacks=["replay", "finite"])
    async def test_without_replay_a_later_group_gets_nothing_of_the_past(self, bench: Bench) -> None:
        """Without ``replay`` a group made later receives only what is published after it exists."""
        first = await bench.feed(bodies(10))
        held = await bench.take(first, 10)
        later = await bench.consumer("later")
        await bench.nothing(later)
        await first.ack(held)
        await bench.publish(*bodies(2, start=10))
        await bench.drain(later, bodies(2, start=10))

    @case("broadcast", lacks=["finite"])
    async def test_a_broadcast_reaches_everybody_listening(self, bench: Bench) -> None:
        """Every broadcast consumer receives everything published while it is open, and no group loses by it."""
        group = await bench.consumer()
        first = await bench.consumer(None)
        second = await bench.consumer(None, bus=await bench.connect())
        assert first.group is None
        await bench.publish(*bodies(5))
        late = await bench.consumer(None)
        await bench.drain(first, bodies(5))
        await first.close()
        await bench.publish(*bodies(5, start=5))
        await bench.drain(second, bodies(10))
        await bench.drain(late, bodies(5, start=5))
        await bench.drain(group, bodies(10))

    @case("broadcast", "retained", lacks=["finite"])
    async def test_a_broadcast_uses_nothing_up(self, bench: Bench) -> None:
        """What only broadcast consumers have received is still there for the first group."""
        listener = await bench.consumer(None)
        await bench.publish(*bodies(5))
        await bench.drain(listener, bodies(5))
        await listener.close()
        await bench.drain(await bench.consumer(), bodies(5))

    @case(lacks=["broadcast"], delivers=False)
    async def test_without_broadcast_it_is_refused(self, bench: Bench) -> None:
        """Without ``broadcast`` a consumer without a group is an UnsupportedError."""
        with pytest.raises(UnsupportedError):
            await bench.bus.consumer(bench.topic, None)


async def _all(bench: Bench, consumer: Consumer) -> list[bytes]:
    """Receive and acknowledge until nothing comes."""
    got: list[bytes] = []
    while batch := await consumer.receive(100, timeout=bench.target.quiet):
        await consumer.ack(batch)
        got += [delivery.body for delivery in batch]
    return got
