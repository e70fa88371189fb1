"""What only listeners saw of a topic is there for the first group, on a real nsqd."""

from __future__ import annotations

import asyncio
from collections import Counter

import bus
from bus import Bus, Depth, Message
from bus.nsq.keeping import KEPT
from bus.nsq.nodes import Nodes
from bus.nsq.options import read_options
from bus.url import parse_url
from tests.servers.nsq import Nsqd


async def _publish(b: Bus, *numbers: int, delay: float = 0.0) -> None:
    async with await b.producer() as producer:
        await producer.publish_many([Message("t", b"%d" % number, delay=delay) for number in numbers])


async def _take(consumer: bus.Consumer, count: int) -> Counter[int]:
    """``count`` messages, acknowledged, and that nothing else comes."""
    got: Counter[int] = Counter()
    async with asyncio.timeout(20):
        while got.total() < count:
            batch = await consumer.receive(100)
            await consumer.ack(batch)
            got.update(int(delivery.body) for delivery in batch)
    assert await consumer.receive(100, timeout=0.5) == []
    return got


async def _channels(nsqd: Nsqd) -> set[str]:
    url = parse_url(nsqd.url())
    address = ("127.0.0.1", nsqd.tcp)
    return set(await Nodes((address,), read_options(url), None).channels(address, "t"))


async def _until_handed_over(nsqd: Nsqd) -> None:
    async with asyncio.timeout(20):
        while KEPT in await _channels(nsqd):  # noqa: ASYNC110 - nsqd does not tell
            await asyncio.sleep(0.05)


def test_two_instances_share_what_was_kept(nsqd: Nsqd) -> None:
    """What was published before and while a listener listened comes to the first group, once, also to two instances."""

    async def run() -> None:
        async with bus.connect(nsqd.url()) as b, bus.connect(nsqd.url()) as other:
            await _publish(b, *range(300))
            async with await b.consumer("t", None) as listener:
                await _publish(b, *range(300, 320))
                got: Counter[int] = Counter()
                while not set(range(300, 320)) <= got.keys():
                    batch = await listener.receive(100, timeout=10)
                    assert batch
                    got.update(int(delivery.body) for delivery in batch)
            assert await b.depth("t", "g") == Depth(320)
            assert await b.groups("t") == []
            first, second = await asyncio.gather(b.consumer("t", "g"), other.consumer("t", "g"))
            got.clear()

            async def take(consumer: bus.Consumer) -> None:
                while got.total() < 320:
                    batch = await consumer.receive(10, timeout=1.0)
                    await consumer.ack(batch)
                    got.update(int(delivery.body) for delivery in batch)

            async with asyncio.timeout(30):
                await asyncio.gather(take(first), take(second))
            assert got == Counter(range(320))
            await _until_handed_over(nsqd)
            assert await b.depth("t", "g") == Depth(0)
            await _publish(b, 1000)
            assert await _take(first, 1) == {1000: 1}

    asyncio.run(run())


def test_a_delayed_message_is_kept_too(nsqd: Nsqd) -> None:
    """A message that is not due when the first group comes is handed over when it is."""

    async def run() -> None:
        async with bus.connect(nsqd.url()) as b:
            async with await b.consumer("t", None):
                await _publish(b, 1, delay=4.0)
                await _publish(b, 2)
            assert (await b.depth("t", "g")).total == 2
            async with await b.consumer("t", "g") as consumer:
                assert await _take(consumer, 1) == {2: 1}
                assert await _take(consumer, 1) == {1: 1}
                await _until_handed_over(nsqd)

    asyncio.run(run())


def test_nothing_is_kept_where_there_is_a_group(nsqd: Nsqd) -> None:
    """A listener makes no channel that lasts on a topic that has one, and a group of no messages leaves none."""

    async def run() -> None:
        async with bus.connect(nsqd.url()) as b:
            async with await b.consumer("t", "g"), await b.consumer("t", None):
                assert await _channels(nsqd) == {"g"}
            async with await b.consumer("t", None) as listener:
                await _publish(b, 1)
                assert await _take(listener, 1) == {1: 1}
            assert await _channels(nsqd) == {"g"}

    asyncio.run(run())


def test_a_restart_loses_nothing_that_was_kept(nsqd: Nsqd) -> None:
    """What is kept survives a clean restart of nsqd, as all does."""

    async def run() -> None:
        async with bus.connect(nsqd.url()) as b, await b.consumer("t", None) as listener:
            await _publish(b, *range(50))
            assert len(await _take(listener, 50)) == 50
            await asyncio.to_thread(nsqd.restart)
            async with await b.consumer("t", "g") as consumer:
                assert await _take(consumer, 50) == Counter(range(50))

    asyncio.run(run())


def test_a_group_that_is_killed_while_it_takes_over(nsqd: Nsqd) -> None:
    """A consumer cut off in the midst of taking over leaves the rest to the next one; nothing is lost."""

    async def run() -> None:
        async with bus.connect(nsqd.url()) as b:
            async with await b.consumer("t", None) as listener:
                await _publish(b, *range(2000))
                assert len(await _take(listener, 2000)) == 2000
            got: Counter[int] = Counter()
            async with await b.consumer("t", "g") as consumer, asyncio.timeout(20):
                batch = await consumer.receive(10)
                await consumer.ack(batch)
                got.update(int(delivery.body) for delivery in batch)
            async with await b.consumer("t", "g") as consumer, asyncio.timeout(30):
                while len(got) < 2000:
                    batch = await consumer.receive(100)
                    await consumer.ack(batch)
                    got.update(int(delivery.body) for delivery in batch)
            assert set(got) == set(range(2000))

    asyncio.run(run())
