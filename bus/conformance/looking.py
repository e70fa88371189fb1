"""Looking without touching: depth, peek, topics, groups and health tell the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from bus.capabilities import Order
from bus.conformance.bench import Bench, bodies, case
from bus.contract import Depth, Message
from bus.errors import UnsupportedError

__all__ = ["LookingTests"]

Seen = TypeVar("Seen")


class LookingTests:
    """What people, dashboards and autoscalers are told."""

    @case("depth", "depth_tells_delayed", lacks=["finite"])
    async def test_depth_counts_every_state(self, bench: Bench) -> None:
        """Ready and in flight are counted apart and follow every settlement."""
        consumer = await bench.feed(bodies(5))
        await _becomes(bench, Depth(5), lambda: bench.bus.depth(bench.topic, "g"))
        held = await bench.take(consumer, 3)
        await _becomes(bench, Depth(2, 0, 3), lambda: bench.bus.depth(bench.topic, "g"))
        await consumer.ack(held[:1])
        await consumer.nack(held[1:2])
        await _becomes(bench, Depth(3, 0, 1), lambda: bench.bus.depth(bench.topic, "g"))
        await consumer.close()
        await _becomes(bench, Depth(4), lambda: bench.bus.depth(bench.topic, "g"))
        await bench.drain(await bench.consumer(), [*bodies(5)[3:], *(delivery.body for delivery in held[1:])])
        await _becomes(bench, Depth(0), lambda: bench.bus.depth(bench.topic, "g"))

    @case("depth", lacks=["finite", "depth_tells_delayed"])
    async def test_depth_counts_everything(self, bench: Bench) -> None:
        """Without ``depth_tells_delayed`` the total follows every settlement, and what is held is in flight."""
        consumer = await bench.feed(bodies(5))
        await _becomes(bench, Depth(5), lambda: bench.bus.depth(bench.topic, "g"))
        held = await bench.take(consumer, 3)
        await _becomes(bench, Depth(2, 0, 3), lambda: bench.bus.depth(bench.topic, "g"))
        await consumer.ack(held[:1])
        await consumer.nack(held[1:2], delay=min(60.0, bench.caps.nack_delay or 0.0))
        await _becomes(bench, 4, lambda: _total(bench))
        assert (await bench.bus.depth(bench.topic, "g")).delayed == 0, (
            "it tells the delayed: declare depth_tells_delayed"
        )
        await consumer.close()
        await _becomes(bench, 4, lambda: _total(bench))

    @case("depth", "depth_tells_delayed", "publish_delay", lacks=["finite"])
    async def test_depth_counts_the_delayed(self, bench: Bench) -> None:
        """A delayed message is counted as delayed, and as ready when it is due."""
        consumer = await bench.consumer()
        delay = min(60.0, bench.caps.publish_delay or 0.0)
        await (await bench.producer()).publish_many([Message(bench.topic, b"{}", delay=delay)])
        await bench.publish(b"1")
        await _becomes(bench, Depth(1, 1, 0), lambda: bench.bus.depth(bench.topic, "g"))
        if bench.target.clock:
            bench.target.clock.advance(delay + 0.1)
            await _becomes(bench, Depth(2), lambda: bench.bus.depth(bench.topic, "g"))
            await bench.drain(consumer, [b"{}", b"1"])

    @case("depth", "groups", lacks=["finite"])
    async def test_depth_is_of_one_group(self, bench: Bench) -> None:
        """Each group has its own depth; for a group never seen it is what that would receive."""
        consumer = await bench.consumer("one")
        await bench.consumer("two")
        await bench.publish(*bodies(4))
        await consumer.ack(await bench.take(consumer, 3))
        await _becomes(bench, Depth(1), lambda: bench.bus.depth(bench.topic, "one"))
        await _becomes(bench, Depth(4), lambda: bench.bus.depth(bench.topic, "two"))
        would = await bench.bus.depth(bench.topic, "three")
        third = await bench.consumer("three")
        assert would.total == len(await bench.take(third, would.total))
        await bench.nothing(third)

    @case("depth", "retained", lacks=["finite"])
    async def test_depth_before_any_group(self, bench: Bench) -> None:
        """What waits for the first group is counted, for whichever name is asked."""
        await bench.publish(*bodies(3))
        await _becomes(bench, Depth(3), lambda: bench.bus.depth(bench.topic, "g"))
        await _becomes(bench, Depth(3), lambda: bench.bus.depth(bench.topic, "other"))
        assert await bench.bus.depth(bench.name(), "g") == Depth(0)
        await bench.drain(await bench.consumer(), bodies(3))

    @case(lacks=["depth"], delivers=False)
    async def test_without_depth_it_is_refused(self, bench: Bench) -> None:
        """Without ``depth`` asking is an UnsupportedError."""
        with pytest.raises(UnsupportedError):
            await bench.bus.depth(bench.topic, "g")

    @case("peek", lacks=["finite"])
    async def test_peek_shows_and_takes_nothing(self, bench: Bench) -> None:
        """Peek shows the oldest pending messages with their state, and changes none of it."""
        consumer = await bench.feed(bodies(5))
        held = await bench.one(consumer)

        expected = [(body, "in-flight" if body == held.body else "ready") for body in bodies(5)]
        await _becomes(bench, expected, lambda: _states(bench))
        assert len(await bench.bus.peek(bench.topic, "g", 2)) == 2
        shown = {peeked.body: peeked for peeked in await bench.bus.peek(bench.topic, "g")}
        assert shown[held.body].id == held.id
        await consumer.nack([held])
        got = await bench.drain(consumer, bodies(5))
        assert {delivery.id for delivery in got} == {peeked.id for peeked in shown.values()}
        if bench.caps.attempts:
            assert sorted(delivery.attempt for delivery in got) == [1, 1, 1, 1, 2]
            assert {body: peeked.attempt for body, peeked in shown.items()} == {
                body: int(body == held.body) for body in bodies(5)
            }
        assert await bench.bus.peek(bench.topic, "g") == []

    @case("peek", "publish_delay", lacks=["finite"])
    async def test_peek_shows_the_delayed(self, bench: Bench) -> None:
        """A delayed message is shown as such."""
        await bench.consumer()
        delay = min(60.0, bench.caps.publish_delay or 0.0)
        await (await bench.producer()).publish(bench.topic, b"{}", delay=delay)
        await _becomes(bench, [(b"{}", "delayed")], lambda: _states(bench))

    @case("peek", "retained", lacks=["finite"])
    async def test_peek_before_any_group(self, bench: Bench) -> None:
        """The stored messages of a topic are shown, oldest first, with no group or for one never seen."""
        await bench.publish(*bodies(12))
        for group in (None, "g"):
            shown = await bench.bus.peek(bench.topic, group)
            assert len(shown) == 10
            if bench.caps.order is Order.TOPIC:
                assert [peeked.body for peeked in shown] == bodies(10)
        everything = [peeked.body for peeked in await bench.bus.peek(bench.topic, limit=20)]
        assert (everything if bench.caps.order is Order.TOPIC else sorted(everything)) == (
            bodies(12) if bench.caps.order is Order.TOPIC else sorted(bodies(12))
        )
        assert await bench.bus.peek(bench.name()) == []
        await bench.drain(await bench.consumer(), bodies(12))

    @case(lacks=["peek"], delivers=False)
    async def test_without_peek_it_is_refused(self, bench: Bench) -> None:
        """Without ``peek`` asking is an UnsupportedError."""
        with pytest.raises(UnsupportedError):
            await bench.bus.peek(bench.topic, "g")

    @case("topics", lacks=["finite"])
    async def test_topics_are_listed(self, bench: Bench) -> None:
        """Topics that were published to are listed, sorted; names nobody used are not."""
        second, unused = bench.name(), bench.name()
        for topic in (bench.topic, second):
            await bench.publish(b"{}", topic=topic)
        seen = await bench.bus.topics()
        assert {bench.topic, second} <= set(seen)
        assert unused not in seen
        assert seen == sorted(set(seen))

    @case("topics", "groups", lacks=["finite"])
    async def test_groups_are_listed(self, bench: Bench) -> None:
        """Groups that have had a consumer are listed, sorted; looking at depth or peek makes none."""
        for group in ("b", "a"):
            await (await bench.consumer(group)).close()
        if bench.caps.depth:
            await bench.bus.depth(bench.topic, "c")
        if bench.caps.peek:
            await bench.bus.peek(bench.topic, "c")
        assert await bench.bus.groups(bench.topic) == ["a", "b"]
        assert await bench.bus.groups(bench.name()) == []

    @case(lacks=["topics"], delivers=False)
    async def test_without_topics_they_are_refused(self, bench: Bench) -> None:
        """Without ``topics`` listing topics or groups is an UnsupportedError."""
        with pytest.raises(UnsupportedError):
            await bench.bus.topics()
        with pytest.raises(UnsupportedError):
            await bench.bus.groups(bench.topic)

    @case(delivers=False)
    async def test_health_is_told(self, bench: Bench) -> None:
        """An open bus is healthy; asking never raises, not even after close."""
        assert (await bench.bus.health()).ok
        bus = await bench.connect()
        await bus.close()
        await bus.health()


async def _total(bench: Bench) -> int:
    return (await bench.bus.depth(bench.topic, "g")).total


async def _states(bench: Bench) -> list[tuple[bytes, str]]:
    """What peek shows; where the topic has no order, which is older is not told."""
    found = [(peeked.body, peeked.state) for peeked in await bench.bus.peek(bench.topic, "g")]
    return found if bench.caps.order is Order.TOPIC else sorted(found)


async def _becomes(bench: Bench, expected: Seen, look: Callable[[], Awaitable[Seen]]) -> None:
    """Assert that looking shows ``expected``, soon: a broker's figures may be a moment old."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bench.target.patience
    while (seen := await look()) != expected and loop.time() < deadline:  # noqa: ASYNC110 - nobody could wake us
        await asyncio.sleep(0.01)
    assert seen == expected
