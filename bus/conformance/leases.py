"""Leases: a delivery is ours for as long as we say so, and no longer."""

from __future__ import annotations

import asyncio

import pytest

from bus.conformance.bench import Bench, bodies, case, same
from bus.contract import Delivery
from bus.errors import LeaseLostError

__all__ = ["LeaseTests"]


class LeaseTests:
    """L01 and L03 as far as a bus can keep them, and crashes seen from inside one process.

    A crashed consumer is one that is never used again nor closed.
    """

    @case("lease", delivers=False)
    async def test_a_lease_ends_with_its_time_or_its_process(self, bench: Bench) -> None:
        """A lease has a length, or ends with the consumer's process and so can be seen to end from another."""
        assert (await bench.consumer()).lease is not None or bench.caps.processes

    @case("lease", "shared")
    async def test_l01_an_extended_lease_holds(self, bench: Bench) -> None:
        """A delivery extended in time is nobody else's, for three times the lease or almost to its ceiling."""
        holder = await bench.feed(bodies(2))
        other = await bench.consumer(bus=await bench.connect())
        if holder.lease is None:
            pytest.skip("lease has no length here: there is nothing to extend")
        held = await bench.take(holder, 2)
        step, longest = holder.lease / 3, bench.caps.lease_ceiling or float("inf")
        for _ in range(int(min(10, longest / step - 1))):
            assert await holder.extend(held) == []
            await bench.watch(other, step)
        await holder.ack(held)
        await bench.watch(other, holder.lease * 1.1)

    @case("lease", "shared")
    async def test_a_crashed_consumer_loses_its_messages_to_another(self, bench: Bench) -> None:
        """When a lease ends unextended the message goes to another consumer, with the same id, and no earlier."""
        crashed = await bench.feed(bodies(3))
        bench.require_length(crashed)
        other = await bench.consumer(bus=await bench.connect())
        taken = await bench.take(crashed, 3)
        await bench.nothing(other)
        bench.expire(crashed)
        again = await bench.take(other, 3)
        assert {(d.id, d.body) for d in again} == {(d.id, d.body) for d in taken}
        await other.ack(again)
        await bench.nothing(other)

    @case("lease", "shared", "attempts")
    async def test_a_crash_counts_as_an_attempt(self, bench: Bench) -> None:
        """``attempt`` counts the deliveries of consumers that crashed and of those that nacked."""
        for attempt in range(1, 4):
            consumer = await (bench.consumer() if attempt > 1 else bench.feed(bodies(1)))
            delivery = await bench.one(consumer)
            assert delivery.attempt == attempt
            bench.expire(consumer)
        consumer = await bench.consumer()
        delivery = await bench.one(consumer)
        assert delivery.attempt == 4
        await consumer.nack([delivery])
        assert (await bench.one(consumer)).attempt == 5

    @case("lease", "shared", lacks=["attempts"])
    async def test_without_attempts_not_all_are_counted(self, bench: Bench) -> None:
        """Without ``attempts`` either nacks or crashes are not counted; if both were it would have to be declared."""
        consumer = await bench.feed(bodies(1))
        await consumer.nack([await bench.one(consumer)])
        await bench.one(consumer)
        bench.expire(consumer)
        again = await bench.one(await bench.consumer())
        assert 1 <= again.attempt < 3, "nack and crash were both counted: declare attempts"

    @case("lease", "shared")
    async def test_a_blocked_receive_wakes_when_a_lease_ends(self, bench: Bench) -> None:
        """A consumer already waiting receives what a crashed one held."""
        crashed = await bench.feed(bodies(1))
        await bench.one(crashed)
        other = await bench.consumer()
        waiting = asyncio.create_task(other.receive())
        await asyncio.wait({waiting}, timeout=0.01)
        bench.expire(crashed)
        async with asyncio.timeout(bench.target.patience):
            same(await waiting, bodies(1))

    @case("lease", "shared")
    async def test_l03_late_settlement_is_refused(self, bench: Bench) -> None:
        """Once another consumer has a message, ack, nack and release of the old one are LeaseLostErrors naming it."""
        late = await bench.feed(bodies(3))
        bench.require_length(late)
        other = await bench.consumer(bus=await bench.connect())
        lost = await bench.take(late, 3)
        bench.expire(late)
        taken = await bench.take(other, 3)
        for settle, delivery in ((late.ack, lost[0]), (late.nack, lost[1]), (late.release, lost[2])):
            with pytest.raises(LeaseLostError) as caught:
                await settle([delivery])
            assert caught.value.deliveries == (delivery,)
        assert await late.extend(lost) == lost
        await bench.nothing(late)
        await other.ack(taken)
        await bench.nothing(other)

    @case("lease", "shared")
    async def test_a_batch_is_settled_but_for_the_lost(self, bench: Bench) -> None:
        """Where some of a batch were lost the others are settled, and the error names exactly the lost ones."""
        consumer = await bench.feed(bodies(2))
        lost = await bench.take(consumer, 2)
        bench.expire(consumer)
        other = await bench.consumer(bus=await bench.connect())
        theirs = await bench.take(other, 2)
        await other.extend(theirs)
        await bench.publish(*bodies(2, start=2))
        ours = await bench.take(consumer, 2)
        same(ours, bodies(2, start=2))
        assert await consumer.extend([*lost, *ours]) == lost
        with pytest.raises(LeaseLostError) as caught:
            await consumer.ack([lost[0], ours[0], lost[1], ours[1]])
        assert set(caught.value.deliveries) == set(lost)
        await other.close()
        await consumer.close()
        await bench.drain(await bench.consumer(), bodies(2))

    @case("lease")
    async def test_ack_after_an_expiry_nobody_noticed(self, bench: Bench) -> None:
        """A late ack either holds for ever or is a LeaseLostError and the message comes again: never both."""
        consumer = await bench.feed(bodies(1))
        if consumer.lease is None:
            pytest.skip("lease has no length here: it cannot expire")
        delivery = await bench.one(consumer)
        if bench.target.clock is None:
            pytest.skip("lease: without a manual clock nobody can be kept from noticing")
        bench.expire(consumer)
        lost: tuple[Delivery, ...] = ()
        try:
            await consumer.ack([delivery])
        except LeaseLostError as error:
            lost = error.deliveries
        if lost:
            assert lost == (delivery,)
            await bench.drain(consumer, bodies(1))
        else:
            await bench.watch(consumer, consumer.lease * 1.1)

    @case("lease", "shared", "lease_ceiling")
    async def test_a_lease_ends_at_its_ceiling(self, bench: Bench) -> None:
        """A lease extended for ever ends at the declared ceiling."""
        ceiling = bench.caps.lease_ceiling
        consumer = await bench.feed(bodies(1))
        assert ceiling is not None
        assert consumer.lease is not None
        if bench.target.clock is None and ceiling > bench.target.patience:
            pytest.skip(f"lease_ceiling of {ceiling:g} s is longer than the target's patience")
        held = [await bench.one(consumer)]
        other = await bench.consumer()
        step, passed = consumer.lease / 2, 0.0
        while not await bench.pass_time(other, step):
            passed += step
            assert passed <= ceiling + consumer.lease, f"the lease went on past the declared ceiling of {ceiling:g} s"
            await consumer.extend(held)
        assert passed + step >= ceiling, f"the lease ended after {passed + step:g} s of {ceiling:g}"

    @case("lease", "shared", lacks=["lease_ceiling"])
    async def test_without_a_ceiling_a_lease_goes_on(self, bench: Bench) -> None:
        """Without ``lease_ceiling`` a lease can be extended for as long as one likes."""
        holder = await bench.feed(bodies(1))
        other = await bench.consumer()
        if holder.lease is None or bench.target.clock is None:
            pytest.skip("lease: for ever can only be waited for with a manual clock and a lease with a length")
        held = [await bench.one(holder)]
        for _ in range(100):
            bench.target.clock.advance(holder.lease / 2)
            assert await holder.extend(held) == []
        await bench.nothing(other)
        await holder.ack(held)
        await bench.watch(other, holder.lease * 1.1)

    @case("lease", "nack_delay")
    async def test_settling_ends_the_lease(self, bench: Bench) -> None:
        """A nacked message with a delay longer than the lease does not come when the lease would have ended."""
        consumer = await bench.feed(bodies(1))
        ceiling = bench.caps.nack_delay
        assert ceiling is not None
        if consumer.lease is None or bench.target.clock is None or ceiling < consumer.lease * 4:
            pytest.skip("lease and nack_delay: needs a manual clock and a delay longer than the lease")
        await consumer.nack([await bench.one(consumer)], delay=consumer.lease * 4)
        await bench.watch(consumer, consumer.lease * 2)
        await bench.watch(consumer, consumer.lease)
        bench.target.clock.advance(consumer.lease * 2)
        await bench.drain(consumer, bodies(1))

    @case(lacks=["lease"], delivers=False)
    async def test_without_lease_nothing_is_extended(self, bench: Bench) -> None:
        """Without ``lease`` a consumer has none, and ``extend`` reports nothing lost."""
        consumer = await bench.consumer()
        assert consumer.lease is None
        assert await consumer.extend([]) == []
        await consumer.close()
        if bench.delivers:
            feeding = await bench.feed(bodies(1))
            assert await feeding.extend([await bench.one(feeding)]) == []
