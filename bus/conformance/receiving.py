"""Receiving and settling: lazy, each message settled once, handed back without loss."""

from __future__ import annotations

import asyncio
import time

from bus.conformance.bench import Bench, bodies, case, same
from bus.contract import Consumer, Delivery

__all__ = ["ReceivingTests"]


class ReceivingTests:
    """C05, C09, C10, checkpoint gap, saturation, cancellation."""

    @case()
    async def test_receive_takes_no_more_than_asked(self, bench: Bench) -> None:
        """``receive(n)`` returns between one and ``n`` messages, by default one."""
        consumer = await bench.feed(bodies(10))
        first = await consumer.receive(timeout=bench.target.patience)
        assert len(first) == 1
        some = await consumer.receive(3, timeout=bench.target.patience)
        assert 1 <= len(some) <= 3
        rest = await bench.take(consumer, 9 - len(some), limit=20)
        same([*first, *some, *rest], bodies(10))

    @case(lacks=["finite"])
    async def test_receive_times_out(self, bench: Bench) -> None:
        """Without messages ``receive`` returns an empty list after its timeout, neither much sooner nor much later."""
        consumer = await bench.consumer()
        began = time.monotonic()
        assert await consumer.receive(timeout=0.2) == []
        assert 0.15 <= time.monotonic() - began < 0.2 + bench.target.patience
        assert await consumer.receive(timeout=0.0) == []
        assert not consumer.ended

    @case("shared", lacks=["partitioned"])
    async def test_c05_an_idle_consumer_gets_what_a_busy_one_did_not_ask_for(self, bench: Bench) -> None:
        """A consumer that took one of ten holds one: another consumer gets the other nine while it is busy."""
        busy, idle, held = await _busy_and_idle(bench)
        await bench.drain(idle, [body for body in bodies(10) if body != held.body])
        await busy.ack([held])
        await bench.nothing(idle)

    @case("shared", "partitioned")
    async def test_c05_a_closed_consumer_hands_over_what_was_assigned_to_it(self, bench: Bench) -> None:
        """A consumer that took one of ten holds one: when it closes another consumer gets all ten."""
        busy, idle, _ = await _busy_and_idle(bench)
        await busy.close()
        await bench.drain(idle, bodies(10))

    @case()
    async def test_c09_acknowledged_is_settled_for_good(self, bench: Bench) -> None:
        """After ack every other settlement does nothing, and the message never comes again."""
        consumer = await bench.feed(bodies(2))
        first, _ = await bench.take(consumer, 2)
        await consumer.ack([first, first])
        await consumer.ack([first])
        await consumer.nack([first])
        await consumer.release([first])
        await bench.nothing(consumer)

    @case()
    async def test_c09_the_first_settlement_wins(self, bench: Bench) -> None:
        """An ack after nack or release does not take the message away."""
        consumer = await bench.feed(bodies(2))
        first, second = await bench.take(consumer, 2)
        await consumer.nack([first])
        await consumer.ack([first])
        await consumer.release([second])
        await consumer.ack([second])
        await consumer.nack([second])
        await bench.drain(consumer, bodies(2))

    @case()
    async def test_c10_nacked_messages_come_again(self, bench: Bench) -> None:
        """A nacked message comes again, with the same id, while the others come once."""
        consumer = await bench.feed(bodies(20))
        taken = await bench.take(consumer, 20)
        again = [taken[3], taken[7]]
        await consumer.nack(again)
        await consumer.ack([delivery for delivery in taken if delivery not in again])
        back = await bench.drain(consumer, [delivery.body for delivery in again])
        assert {(d.id, d.body) for d in back} == {(d.id, d.body) for d in again}

    @case()
    async def test_ids_are_unique(self, bench: Bench) -> None:
        """Deliveries of different messages have different ids, also where the bodies are equal."""
        consumer = await bench.feed([b"{}"] * 50)
        assert len({delivery.id for delivery in await bench.drain(consumer, [b"{}"] * 50)}) == 50

    @case("attempts")
    async def test_c10_attempts_are_counted(self, bench: Bench) -> None:
        """``attempt`` is 1 at first and one higher after every nack."""
        consumer = await bench.feed(bodies(1))
        for attempt in range(1, 6):
            delivery = await bench.one(consumer)
            assert delivery.attempt == attempt
            await consumer.nack([delivery])
        await consumer.ack([await bench.one(consumer)])

    @case("history")
    async def test_history_holds_the_reasons(self, bench: Bench) -> None:
        """``history`` holds the reasons of earlier nacks, oldest first."""
        consumer = await bench.feed(bodies(1))
        reasons = ("first", "zweiter 🚌", 'third "quoted"')
        for count, reason in enumerate(reasons):
            delivery = await bench.one(consumer)
            assert delivery.history == reasons[:count]
            await consumer.nack([delivery], reason=reason)
        delivery = await bench.one(consumer)
        assert delivery.history == reasons
        await consumer.release([delivery])
        assert (await bench.one(consumer)).history == reasons

    @case(lacks=["history"])
    async def test_without_history_there_is_none(self, bench: Bench) -> None:
        """Without ``history`` the reasons of nacks are not kept, and giving one does no harm."""
        consumer = await bench.feed(bodies(1))
        await consumer.nack([await bench.one(consumer)], reason="a reason")
        assert (await bench.one(consumer)).history == ()

    @case()
    async def test_released_messages_come_again(self, bench: Bench) -> None:
        """A released message comes again at once."""
        consumer = await bench.feed(bodies(3))
        await consumer.release(await bench.take(consumer, 3))
        again = await bench.take(consumer, 3)
        same(again, bodies(3))
        await consumer.ack(again)
        await bench.nothing(consumer)

    @case("attempts", lacks=["release_counts"])
    async def test_a_release_is_no_attempt(self, bench: Bench) -> None:
        """A released message comes again with the same ``attempt``."""
        assert await _attempts_after_a_release(bench) == [1] * 3

    @case("attempts", "release_counts")
    async def test_a_release_counts_where_it_is_said_to(self, bench: Bench) -> None:
        """With ``release_counts`` a released message comes again with ``attempt`` one higher."""
        assert await _attempts_after_a_release(bench) == [2] * 3

    @case()
    async def test_errors_never_use_up_a_message(self, bench: Bench) -> None:
        """50 messages nacked over and over by consumers that then close are all there for one that works."""
        consumer = await bench.feed(bodies(50))
        for _ in range(3):
            for _ in range(5):
                await consumer.nack(await bench.take(consumer, 50))
            await consumer.close()
            consumer = await bench.consumer()
        got = await bench.drain(consumer, bodies(50))
        if bench.caps.attempts and not bench.caps.finite:
            assert {delivery.attempt for delivery in got} == {16}

    @case()
    async def test_one_bad_message_does_not_starve_the_others(self, bench: Bench) -> None:
        """While one message is nacked three times the others come, once each."""
        consumer = await bench.feed(bodies(10))
        good: list[Delivery] = []
        refused = 0
        while len(good) < 10:
            delivery = await bench.one(consumer)
            if delivery.body == bodies(1)[0] and refused < 3:
                refused += 1
                await consumer.nack([delivery])
            else:
                good.append(delivery)
                await consumer.ack([delivery])
        same(good, bodies(10))
        assert refused == 3
        await bench.nothing(consumer)

    @case()
    async def test_saturated_with_unacknowledged(self, bench: Bench) -> None:
        """Messages held for long do not stop the flow of others, and are settled late without harm."""
        consumer = await bench.feed(bodies(100))
        held = await bench.take(consumer, 50)
        rest = await bench.take(consumer, 50)
        await consumer.ack(rest)
        await consumer.ack(held[::-1])
        same([*held, *rest], bodies(100))
        await bench.nothing(consumer)

    @case(lacks=["finite"])
    async def test_l05_acks_do_not_pass_a_gap(self, bench: Bench) -> None:
        """Of A to E with A, B and D acknowledged, C nacked and E left alone, exactly C and E come back on reopening."""
        a, b, c, d, e = sent = [b'"%c"' % letter for letter in b"ABCDE"]
        consumer = await bench.feed(sent)
        taken = {delivery.body: delivery for delivery in await bench.take(consumer, 5)}
        await consumer.ack([taken[a], taken[b]])
        await consumer.ack([taken[d]])
        await consumer.nack([taken[c]])
        await consumer.close()
        await bench.drain(await bench.consumer(bus=await bench.connect()), [c, e])

    @case()
    async def test_a_cancelled_receive_loses_nothing(self, bench: Bench) -> None:
        """Whatever moment ``receive`` is cancelled at, every message comes, once, as a first attempt."""
        consumer = await bench.feed(bodies(40))
        got: list[Delivery] = []
        for turn in range(60):
            receiving = asyncio.create_task(consumer.receive(2, timeout=bench.target.quiet))
            if turn % 2:
                await asyncio.wait({receiving}, timeout=turn % 10 / 2000)
            else:
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait({receiving})
            if not receiving.cancelled():
                batch = receiving.result()
                await consumer.ack(batch)
                got += batch
        left = 40 - len(got)
        got += await bench.take(consumer, left)
        same(got, bodies(40))
        if bench.caps.attempts:
            assert {delivery.attempt for delivery in got} == {1}
        await consumer.ack(got[40 - left :])
        await bench.nothing(consumer)

    @case()
    async def test_what_a_cancelled_receive_took_goes_back_on_close(self, bench: Bench) -> None:
        """A message that a cancelled ``receive`` may have taken is handed back by ``close``."""
        consumer = await bench.feed(bodies(10))
        for _ in range(10):
            receiving = asyncio.create_task(consumer.receive(5))
            await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait({receiving})
        await consumer.close()
        await bench.drain(await bench.consumer(), bodies(10))


async def _busy_and_idle(bench: Bench) -> tuple[Consumer, Consumer, Delivery]:
    """Two consumers on two connections, the first of which took one of ten messages."""
    busy = await bench.feed(bodies(10))
    if bench.caps.partitioned:
        # The other would be assigned some of them at once.
        held = await bench.one(busy)
        idle = None
    else:
        idle = await bench.consumer(bus=await bench.connect())
        held = await bench.one(busy)
    if bench.caps.depth:
        depth = await bench.bus.depth(bench.topic, "g")
        assert (depth.in_flight, depth.total) == (1, 10)
    return busy, idle or await bench.consumer(bus=await bench.connect()), held


async def _attempts_after_a_release(bench: Bench) -> list[int]:
    consumer = await bench.feed(bodies(3))
    await consumer.release(await bench.take(consumer, 3))
    return [delivery.attempt for delivery in await bench.take(consumer, 3)]
