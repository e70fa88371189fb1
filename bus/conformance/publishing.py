"""Publishing: what was confirmed arrives, whole, once and in order; what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from bus.capabilities import Order
from bus.conformance.bench import Bench, bodies, case, same
from bus.contract import Message
from bus.errors import BadNameError, BusError, TooLargeError

__all__ = ["PublishingTests"]

#: Bodies larger than this are not tried: a target may configure a smaller limit.
_LARGEST = 16 * 1024**2
_BAD_NAMES = ["", ".", "..", "a/b", "../a", "a b", "a\n", "ä", "a\0", "*", "x" * 65]


class PublishingTests:
    """C01, C03, C04, C13, P04, names and de-duplication."""

    @case()
    async def test_c01_bodies_arrive_exactly(self, bench: Bench) -> None:
        """Every byte of a body arrives as it was sent."""
        long = b'{"a":"%s"}' % (b"x" * min(100_000, (bench.caps.max_size or 100_000) // 2))
        sent = [b"{}", '{"ü":"日本 \u2028 🚌"}'.encode(), long, b" 1 ", b"\xff\xfe{}"]
        await bench.drain(await bench.feed(sent), sent)

    @case(lacks=["text_lines"])
    async def test_c01_bodies_may_be_binary(self, bench: Bench) -> None:
        """Without ``text_lines`` a body is any bytes."""
        sent = [bytes(range(256)), b"\n", b"\r\n", b"\0", b"a\nb\r"]
        await bench.drain(await bench.feed(sent), sent)

    @case("text_lines")
    async def test_c01_bodies_are_lines(self, bench: Bench) -> None:
        """With ``text_lines`` a body that is not one line is refused and nothing of the call is sent."""
        producer = await bench.producer()
        for bad in (b"a\nb", b"\n", b"", b"  ", b"a\r"):
            with pytest.raises(BusError):
                await producer.publish_many([Message(bench.topic, b"{}"), Message(bench.topic, bad)])
        await bench.drain(await bench.feed([b'{"n":1}']), [b'{"n":1}'])

    @case("max_size")
    async def test_c01_largest_body(self, bench: Bench) -> None:
        """A body of exactly ``max_size`` arrives."""
        sent = [b"x" * _size(bench)]
        await bench.drain(await bench.feed(sent), sent)

    @case(lacks=["max_size"])
    async def test_c01_without_max_size_a_large_body_arrives(self, bench: Bench) -> None:
        """Without ``max_size`` a body of 4 MiB arrives."""
        sent = [b"x" * 4 * 1024**2]
        await bench.drain(await bench.feed(sent), sent)

    @case("max_size", delivers=False)
    async def test_p04_too_large_is_refused(self, bench: Bench) -> None:
        """One body over ``max_size`` is a TooLargeError each time, and nothing of the call is sent."""
        limit = _size(bench)
        producer = await bench.producer()
        messages = [Message(bench.topic, body) for body in (*bodies(3), b"x" * (limit + 1))]
        for _ in range(2):
            with pytest.raises(TooLargeError) as caught:
                await producer.publish_many(messages)
            assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
            assert not caught.value.transient
        with pytest.raises(TooLargeError):
            await producer.publish(bench.topic, b"x" * (limit + 1))
        if bench.delivers:
            await bench.drain(await bench.feed(bodies(1, start=10)), bodies(1, start=10))

    @case(delivers=False)
    async def test_bad_topic_names_are_refused(self, bench: Bench) -> None:
        """A bad topic name is a BadNameError at the producer and at the consumer, and nothing of the call is sent."""
        producer = await bench.producer()
        for bad in _BAD_NAMES:
            with pytest.raises(BadNameError):
                await producer.publish_many([Message(bench.topic, b"{}"), Message(bad, b"{}")])
            with pytest.raises(BadNameError):
                await bench.bus.consumer(bad, "g")
        if bench.delivers:
            await bench.drain(await bench.feed(bodies(1)), bodies(1))

    @case(delivers=False)
    async def test_bad_group_names_are_refused(self, bench: Bench) -> None:
        """A bad group name is a BadNameError."""
        for bad in _BAD_NAMES:
            with pytest.raises(BadNameError):
                await bench.bus.consumer(bench.topic, bad)

    @case(lacks=["finite"])
    async def test_every_good_name_works(self, bench: Bench) -> None:
        """Names of all allowed characters and of the greatest length work, as topic and as group."""
        for prefix, group in (("aZ_0-9.", "G.0_-"), (".", "g" * 64), ("-", "-"), ("x" * 64, "1")):
            bench.topic = prefix[len(bench.name()) - 64 :] + bench.name()
            await bench.drain(await bench.feed(bodies(1), group), bodies(1))

    @case(delivers=False)
    async def test_publishing_nothing_is_nothing(self, bench: Bench) -> None:
        """An empty batch is confirmed at once."""
        await (await bench.producer()).publish_many([])

    @case()
    async def test_c03_concurrent_publishers(self, bench: Bench) -> None:
        """5,000 messages of 50 concurrent publishers on several producers and connections arrive once each."""
        other = await bench.connect()
        producers = [await bus.producer() for bus in (bench.bus, other, other)]

        async def publish(number: int) -> None:
            for start in range(number * 100, number * 100 + 100, 10):
                messages = [Message(bench.topic, body) for body in bodies(10, start)]
                await producers[number % len(producers)].publish_many(messages)

        consumer = None if bench.caps.retained else await bench.consumer()
        await asyncio.gather(*(publish(number) for number in range(50)))
        await bench.drain(consumer or await bench.consumer(), bodies(5000))

    @case(lacks=["finite"])
    async def test_c04_topics_are_isolated(self, bench: Bench) -> None:
        """20 topics used at once each deliver their own messages and no others."""
        topics = [bench.name() for _ in range(20)]

        async def use(number: int, topic: str) -> None:
            mine = bodies(20, start=number * 1000)
            consumer = await bench.consumer(topic=topic)
            await bench.publish(*mine[:5], topic=topic)
            for body in mine[5:]:
                await bench.publish(body, topic=topic)
            await bench.drain(consumer, mine)
            await consumer.close()

        await bench.producer()
        await asyncio.gather(*(use(number, topic) for number, topic in enumerate(topics)))

    @case("order")
    async def test_c13_order_is_kept(self, bench: Bench) -> None:
        """One consumer with one message in flight receives in the declared order."""
        producer = await bench.producer()
        messages = [
            Message(bench.topic, b'{"key":%d,"n":%d}' % (number * 7 % 16, number), key=str(number * 7 % 16))
            for number in range(160)
        ]
        consumer = None if bench.caps.retained else await bench.consumer()
        for message in messages[:40]:
            await producer.publish_many([message])
        for start in range(40, 160, 60):
            await producer.publish_many(messages[start : start + 60])
        consumer = consumer or await bench.consumer()
        got: list[bytes] = []
        for _ in messages:
            delivery = await bench.one(consumer)
            got.append(delivery.body)
            await consumer.ack([delivery])
        sent = [message.body for message in messages]
        if bench.caps.order is Order.KEY:
            got.sort(key=_key)
            sent.sort(key=_key)
        assert got == sent
        await bench.nothing(consumer)

    @case("dedupe")
    async def test_a_second_publish_of_an_id_is_dropped(self, bench: Bench) -> None:
        """A message id published again within the window is suppressed: in one batch, later, elsewhere, after ack."""
        producer = await bench.producer()
        first, second, plain = bodies(3)
        consumer = None if bench.caps.retained else await bench.consumer()
        await producer.publish_many([Message(bench.topic, first, id="a"), Message(bench.topic, first, id="a")])
        await producer.publish_many([Message(bench.topic, first, id="a"), Message(bench.topic, second, id="b")])
        await producer.publish_many([Message(bench.topic, plain), Message(bench.topic, plain)])
        elsewhere = await (await bench.connect()).producer()
        await elsewhere.publish(bench.topic, first, id="a")
        consumer = consumer or await bench.consumer()
        await bench.drain(consumer, [first, second, plain, plain])
        if not bench.caps.finite:
            await producer.publish(bench.topic, first, id="a")
            await bench.nothing(consumer)

    @case("dedupe", lacks=["finite"])
    async def test_an_id_may_be_used_again_after_the_window(self, bench: Bench) -> None:
        """The window of de-duplication ends when declared."""
        window = bench.caps.dedupe
        assert window is not None
        if bench.target.clock is None:
            pytest.skip(f"dedupe: the window of {window:g} s cannot be waited for without a manual clock")
        consumer = await bench.consumer()
        producer = await bench.producer()
        await producer.publish(bench.topic, b"{}", id="a")
        await bench.drain(consumer, [b"{}"])
        bench.target.clock.advance(window * 0.9)
        await producer.publish(bench.topic, b"{}", id="a")
        await bench.nothing(consumer)
        bench.target.clock.advance(window * 0.2)
        await producer.publish(bench.topic, b"{}", id="a")
        await bench.drain(consumer, [b"{}"])

    @case(lacks=["dedupe"])
    async def test_without_dedupe_ids_suppress_nothing(self, bench: Bench) -> None:
        """Without ``dedupe`` the same id twice is two messages."""
        consumer = None if bench.caps.retained else await bench.consumer()
        producer = await bench.producer()
        for _ in range(2):
            await producer.publish(bench.topic, b"{}", id="a")
        await bench.drain(consumer or await bench.consumer(), [b"{}", b"{}"])

    @case(lacks=["finite"])
    async def test_publish_while_receiving(self, bench: Bench) -> None:
        """What is published while a consumer waits comes to it, message by message."""
        consumer = await bench.consumer()
        other = await (await bench.connect()).producer()
        for body in bodies(10):
            waiting = asyncio.create_task(consumer.receive(5))
            await asyncio.wait({waiting}, timeout=0.01)
            await other.publish(bench.topic, body)
            async with asyncio.timeout(bench.target.patience):
                got = await waiting
            same(got, [body])
            await consumer.ack(got)
        await bench.nothing(consumer)


def _size(bench: Bench) -> int:
    size = bench.caps.max_size
    assert size is not None
    if size > _LARGEST:
        pytest.skip(f"max_size of {size} bytes is too large to try: give the target a smaller limit")
    return size


def _key(body: bytes) -> bytes:
    return body.partition(b",")[0]
