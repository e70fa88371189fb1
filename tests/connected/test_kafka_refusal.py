"""A write that Kafka refuses for the moment is not taken for written because the next one was (decision 0017)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bus import Message, connect
from tests.faults.refusing import RefusingProxy
from tests.helpers import await_until, wait_until
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port

pytestmark = pytest.mark.xdist_group("kafka-refusal")

_FOUR = [b"%d" % number for number in range(4)]


class Behind(NamedTuple):
    """A broker, and the way to it that refuses a write when told to."""

    server: KafkaServer
    proxy: RefusingProxy

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    port = free_port()
    with RefusingProxy(port) as proxy:
        folder = tmp_path_factory.mktemp("refusal")
        told = {"PROXIED": proxy.port}
        server = KafkaServer(folder, listeners={"PROXIED": "PLAINTEXT"}, ports={"PROXIED": port}, told=told)
        with server.running():
            admin = AdminClient({"bootstrap.servers": server.address})
            making = admin.create_topics([NewTopic(name, 1, 1) for name in ("warm", "five", "few", "many")])
            for made in making.values():
                made.result(30)
            yield Behind(server, proxy)


def _there(behind: Behind, topic: str, count: int) -> list[bytes]:
    """What the topic has, by a new consumer; waits no longer than it takes for ``count``."""

    async def read() -> list[bytes]:
        found: list[bytes] = []
        async with connect(behind.server.url) as bus, await bus.consumer(topic, "look") as consumer:
            while len(found) < count and (taken := await consumer.receive(1000, timeout=3)):
                found += [delivery.body for delivery in taken]
                await consumer.ack(taken)
        return found

    return asyncio.run(read())


def test_five_at_a_time_lose_it(behind: Behind) -> None:
    """Why ours have one under way: librdkafka confirms a message that is nowhere. Once it does not, decide anew."""
    producer = Producer(
        {
            "bootstrap.servers": behind.address,
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": 5,
            "linger.ms": 0,
            "log_level": 0,
        }
    )
    producer.produce("warm")
    assert producer.flush(30) == 0
    confirmed: list[bytes] = []

    def write(body: bytes) -> None:
        producer.produce("five", body, on_delivery=lambda error, message: confirmed.append(body) if not error else None)

    behind.proxy.refuse_a_write("five")
    write(_FOUR[0])
    wait_until(lambda: behind.proxy.refused)
    for body in _FOUR[1:]:
        write(body)
    assert producer.flush(30) == 0
    assert sorted(confirmed) == _FOUR
    assert sorted(_there(behind, "five", 3)) == _FOUR[1:]


def test_a_few_are_all_there(behind: Behind) -> None:
    """The message that was refused is written again before the next one."""

    async def write() -> None:
        async with connect(f"kafka://{behind.address}") as bus, await bus.producer() as producer:
            await producer.publish("warm", b"")
            behind.proxy.refuse_a_write("few")
            writing = [asyncio.create_task(producer.publish("few", _FOUR[0]))]
            await await_until(lambda: behind.proxy.refused)
            writing += [asyncio.create_task(producer.publish("few", body)) for body in _FOUR[1:]]
            await asyncio.gather(*writing)

    asyncio.run(write())
    assert sorted(_there(behind, "few", 4)) == _FOUR


def test_many_are_all_there(behind: Behind) -> None:
    """The same with so many that they take several requests."""
    bodies = [b"%d" % number + bytes(8192) for number in range(300)]

    async def write() -> None:
        async with connect(f"kafka://{behind.address}") as bus, await bus.producer() as producer:
            await producer.publish_many([Message("warm", b"")] * 100)
            behind.proxy.refuse_a_write("many")
            await producer.publish_many([Message("many", body) for body in bodies])

    asyncio.run(write())
    assert behind.proxy.refused == 1
    assert behind.proxy.passed > 1
    assert sorted(_there(behind, "many", 300)) == sorted(bodies)
