"""Many records at once on a real Kafka: divided evenly, confirmed together, and each caller's trouble its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("confluent_kafka")

from bus import Message, NoSuchTopicError, connect
from bus.kafka import KafkaBus
from bus.kafka.records import Plain, Writes
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.xdist_group("kafka-bulk")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("bulk")).running() as server:
        yield server


async def _parts(bus: KafkaBus, topic: str) -> list[int]:
    """How many messages each partition has."""
    return [extent.end - extent.start for extent in await bus._store.extents(topic, None)]


@pytest.mark.parametrize("count", [16, 800])
def test_each_partition_gets_as_many(server: KafkaServer, count: int) -> None:
    """One by one and many at once, so that as many consumers have as much to do."""

    async def run() -> None:
        one, many = f"one-{count}", f"many-{count}"
        async with connect(server.url) as bus, await bus.producer() as producer:
            assert isinstance(bus, KafkaBus)
            await asyncio.gather(*(producer.publish(one, b"%d" % number) for number in range(count)))
            await producer.publish_many([Message(many, b"%d" % number) for number in range(count)])
            assert await _parts(bus, one) == [count // 8] * 8
            assert await _parts(bus, many) == [count // 8] * 8

    asyncio.run(run())


def test_callers_at_the_same_time(server: KafkaServer) -> None:
    """Each is told of its own trouble, and what the others gave is there when they are told."""

    async def run() -> None:
        async with connect(f"{server.url}?partitions=2") as bus, await bus.producer() as producer:
            assert isinstance(bus, KafkaBus)
            await producer.publish("callers", b"first")
            bodies = [b"%d" % number for number in range(150)]
            bulk = bus._sender._bulk
            found = await asyncio.gather(
                *(bulk.send(Writes([], [Plain("callers", (0, 1), bodies)]), "writing") for _ in range(5)),
                bulk.send(Writes([], [Plain("callers", (77,), bodies)]), "writing to nowhere"),
                return_exceptions=True,
            )
            assert found[:5] == [None] * 5
            assert isinstance(found[5], NoSuchTopicError)
            assert "writing to nowhere" in str(found[5])
            assert sum(await _parts(bus, "callers")) == 1 + 5 * 150

    asyncio.run(run())


def test_a_caller_that_leaves(server: KafkaServer) -> None:
    """What it gave is written all the same, and those who come later are served."""

    async def run() -> None:
        async with connect(f"{server.url}?partitions=1") as bus, await bus.producer() as producer:
            assert isinstance(bus, KafkaBus)
            await producer.publish("leaver", b"first")
            many = [Message("leaver", b"x")] * 200
            leaver = asyncio.create_task(producer.publish_many(many))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            leaver.cancel()
            await producer.publish_many(many)
            with pytest.raises(asyncio.CancelledError):
                await leaver
            assert await _parts(bus, "leaver") in ([201], [401])

    asyncio.run(run())
