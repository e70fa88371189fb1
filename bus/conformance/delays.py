"""Delays: not before, and then without being asked again."""

from __future__ import annotations

import asyncio

import pytest

from bus.conformance.bench import Bench, bodies, case
from bus.contract import Consumer, Message
from bus.errors import UnsupportedError

__all__ = ["DelayTests"]

#: The delay asked for where time is moved by hand.
_LONG = 600.0
#: By how much a broker's clock and ours may differ.
_SLACK = 0.05


class DelayTests:
    """C11, and delays of publishing and of release."""

    @case("publish_delay", lacks=["finite"])
    async def test_a_delayed_message_comes_when_due(self, bench: Bench) -> None:
        """A message published with a delay does not come before it, and those published after it do."""
        consumer = await bench.consumer()
        delay = _delay(bench, bench.caps.publish_delay)
        late, soon = bodies(2)
        start = bench.target.now()
        await (await bench.producer()).publish_many([Message(bench.topic, late, delay=delay)])
        await bench.publish(soon)
        await bench.drain(consumer, [soon])
        await _comes_after(bench, consumer, late, start, delay)

    @case("publish_delay", lacks=["finite"])
    async def test_a_blocked_receive_wakes_for_a_delayed_message(self, bench: Bench) -> None:
        """A consumer already waiting receives a delayed message when it is due."""
        consumer = await bench.consumer()
        waiting = asyncio.create_task(consumer.receive())
        await asyncio.wait({waiting}, timeout=0.01)
        delay = _delay(bench, bench.caps.publish_delay)
        await (await bench.producer()).publish(bench.topic, b"{}", delay=delay)
        await asyncio.wait({waiting}, timeout=0.01)
        assert not waiting.done()
        if bench.target.clock:
            bench.target.clock.advance(delay)
        async with asyncio.timeout(bench.target.patience + delay):
            assert [delivery.body for delivery in await waiting] == [b"{}"]

    @case("publish_delay", "retained", lacks=["finite"])
    async def test_a_delayed_message_waits_for_its_group(self, bench: Bench) -> None:
        """A delayed message is kept for the first group like any other, and delayed for it too."""
        delay = _delay(bench, bench.caps.publish_delay)
        start = bench.target.now()
        await (await bench.producer()).publish(bench.topic, b"{}", delay=delay)
        consumer = await bench.consumer()
        await _comes_after(bench, consumer, b"{}", start, delay)

    @case("publish_delay", delivers=False)
    async def test_too_long_a_delay_is_refused(self, bench: Bench) -> None:
        """A publish delay over the declared one is an UnsupportedError, and nothing of the call is sent."""
        longest = bench.caps.publish_delay
        if not longest or longest == float("inf"):
            pytest.skip("capability publish_delay is declared without limit")
        await _refused(bench, longest + 10.0)

    @case(lacks=["publish_delay"], delivers=False)
    async def test_without_publish_delay_it_is_refused(self, bench: Bench) -> None:
        """Without ``publish_delay`` any delay is an UnsupportedError, and nothing of the call is sent."""
        await _refused(bench, 0.5)

    @case("nack_delay")
    async def test_c11_a_nacked_message_comes_when_due(self, bench: Bench) -> None:
        """A message nacked with a delay does not come before it, and the others do."""
        consumer = await bench.feed(bodies(3))
        taken = await bench.take(consumer, 3)
        delay = _delay(bench, bench.caps.nack_delay)
        start = bench.target.now()
        await consumer.nack(taken[:1], delay=delay)
        await consumer.nack(taken[1:2])
        await consumer.release(taken[2:])
        await bench.drain(consumer, [delivery.body for delivery in taken[1:]])
        await _comes_after(bench, consumer, taken[0].body, start, delay)

    @case("nack_delay")
    async def test_a_released_message_comes_when_due(self, bench: Bench) -> None:
        """A message released with a delay does not come before it."""
        consumer = await bench.feed(bodies(1))
        delivery = await bench.one(consumer)
        delay = _delay(bench, bench.caps.nack_delay)
        start = bench.target.now()
        await consumer.release([delivery], delay=delay)
        await _comes_after(bench, consumer, delivery.body, start, delay)

    @case("nack_delay", lacks=["finite"])
    async def test_a_delay_outlives_its_consumer(self, bench: Bench) -> None:
        """A delay goes on when the consumer that asked for it has closed."""
        consumer = await bench.feed(bodies(1))
        delivery = await bench.one(consumer)
        delay = _delay(bench, bench.caps.nack_delay)
        start = bench.target.now()
        await consumer.nack([delivery], delay=delay)
        await consumer.close()
        await _comes_after(bench, await bench.consumer(), delivery.body, start, delay)

    @case(lacks=["nack_delay"])
    async def test_without_nack_delay_it_comes_at_once(self, bench: Bench) -> None:
        """Without ``nack_delay`` a message nacked or released with a delay comes again without waiting for it."""
        consumer = await bench.feed(bodies(2))
        first, second = await bench.take(consumer, 2)
        await consumer.nack([first], delay=bench.target.patience * 10)
        await consumer.release([second], delay=bench.target.patience * 10)
        await bench.drain(consumer, bodies(2))


def _delay(bench: Bench, longest: float | None) -> float:
    return min(_LONG if bench.target.clock else bench.target.delay, longest or 0.0)


async def _refused(bench: Bench, delay: float) -> None:
    messages = [Message(bench.topic, b"{}"), Message(bench.topic, b"{}", delay=delay)]
    with pytest.raises(UnsupportedError):
        await (await bench.producer()).publish_many(messages)
    if bench.delivers:
        await bench.drain(await bench.feed(bodies(1)), bodies(1))


async def _comes_after(bench: Bench, consumer: Consumer, body: bytes, start: float, delay: float) -> None:
    """Assert that ``body`` comes, and not before ``delay`` seconds after ``start``."""
    if bench.target.clock:
        await bench.nothing(consumer)
        await bench.watch(consumer, delay * 0.95)
        bench.target.clock.advance(delay * 0.05 + _SLACK)
    delivery = await bench.one(consumer)
    passed = bench.target.now() - start
    assert delivery.body == body
    assert passed >= delay - _SLACK, f"it came after {passed:.3f} s instead of {delay:g}"
    await consumer.ack([delivery])
    await bench.nothing(consumer)
