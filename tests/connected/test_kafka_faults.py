"""The Kafka bus when members and brokers come, go, hang and die."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from bus import Bus, Consumer, Delivery, LeaseLostError, Message, UnconfirmedError, UnreachableError, connect
from tests.helpers import await_until
from tests.servers.kafka import KafkaCluster, KafkaServer

_PATIENCE = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker, which every test leaves running."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


async def _publish(bus: Bus, topic: str, count: int, start: int = 0) -> list[bytes]:
    bodies = [b"%d" % number for number in range(start, start + count)]
    async with await bus.producer() as producer:
        await producer.publish_many([Message(topic, body) for body in bodies])
    return bodies


async def _take(consumer: Consumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    while len(taken) < count:
        batch = await consumer.receive(count - len(taken), timeout=_PATIENCE)
        assert batch, f"{len(taken)} of {count} came"
        taken += batch
    return taken


def test_settled_out_of_order_stays_settled(server: KafkaServer) -> None:
    """A, B and D acknowledged, C and E released, and a new consumer gets exactly C and E, as first attempts."""

    async def run() -> None:
        async with connect(f"{server.url}?partitions=1") as bus:
            await _publish(bus, "gaps", 5)
            async with await bus.consumer("gaps", "g") as consumer:
                a, b, c, d, e = await _take(consumer, 5)
                await consumer.ack([a, b, d])
                await consumer.release([c, e])
            async with await bus.consumer("gaps", "g") as consumer:
                again = await _take(consumer, 2)
                assert [(each.id, each.attempt) for each in again] == [(c.id, 1), (e.id, 1)]
                assert await consumer.receive(5, timeout=0.5) == []

    asyncio.run(run())


def test_a_task_longer_than_every_timeout_runs_once(server: KafkaServer) -> None:
    """A delivery held for three times the session and the stall is still ours, and nobody else gets it."""

    async def run() -> None:
        url = f"{server.url}?partitions=1&session=1s&stall=1s&handover=500ms"
        async with connect(url) as bus:
            await _publish(bus, "long", 1)
            async with await bus.consumer("long", "g") as consumer:
                (held,) = await _take(consumer, 1)
                assert await consumer.receive(1, timeout=3.5) == []
                assert await consumer.extend([held]) == []
                await consumer.ack([held])
            assert (await bus.depth("long", "g")).total == 0

    asyncio.run(run())


def test_a_hanging_process_loses_what_it_holds(server: KafkaServer) -> None:
    """When the event loop hangs for longer than ``stall`` the group goes on without it, and its late ack is refused."""

    async def run() -> None:
        url = f"{server.url}?partitions=1&session=1s&stall=1s&handover=0s"
        async with connect(url) as bus:
            await _publish(bus, "hang", 1)
            consumer = await bus.consumer("hang", "g")
            (held,) = await _take(consumer, 1)
            time.sleep(4.0)  # noqa: ASYNC251 - the event loop hangs: that is the test
            async with connect(url) as other_bus, await other_bus.consumer("hang", "g") as other:
                (again,) = await _take(other, 1)
                assert again.id == held.id
                with pytest.raises(LeaseLostError) as caught:
                    await consumer.ack([held])
                assert caught.value.deliveries == (held,)
                assert await consumer.extend([held]) == [held]
                await other.ack([again])
            await consumer.close()

    asyncio.run(run())


def test_a_running_task_may_end_before_its_partition_moves(server: KafkaServer) -> None:
    """A consumer that joins waits for the task that runs: it is acknowledged here and does not run there."""

    async def run() -> None:
        url = f"{server.url}?partitions=4&session=2s"
        async with connect(url) as bus, connect(url) as other_bus:
            await _publish(bus, "handover", 40)
            consumer = await bus.consumer("handover", "g")
            held = await _take(consumer, 40)
            joining = asyncio.create_task(other_bus.consumer("handover", "g"))
            other = await joining
            assert await other.receive(1, timeout=1.0) == []
            await consumer.ack(held)
            bodies = set(await _publish(bus, "handover", 400, start=100))
            got: Counter[bytes] = Counter()

            async def work(each: Consumer) -> int:
                count = 0
                while got.total() < 400:
                    batch = await each.receive(10, timeout=0.2)
                    await each.ack(batch)
                    got.update(delivery.body for delivery in batch)
                    count += len(batch)
                return count

            shares = await asyncio.gather(work(consumer), work(other))
            assert set(got) == bodies
            assert got.total() == 400
            assert min(shares) > 0
            await asyncio.gather(consumer.close(), other.close())

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_come_and_go_without_a_duplicate(server: KafkaServer, protocol: str) -> None:
    """20,000 messages, one consumer that stays and others that join and leave meanwhile: each comes once."""

    async def run() -> None:
        url = f"{server.url}?partitions=6&session=6s&protocol={protocol}"
        topic = f"moving-{protocol}"
        got: Counter[bytes] = Counter()
        moves = 0

        async def work(bus: Bus, most: int, stays: bool = False) -> None:
            async with await bus.consumer(topic, "g") as consumer:
                count = 0
                while got.total() < 20_000 and count < most:
                    if stays and got.total() > 15_000 and moves < 3:
                        await asyncio.sleep(0.01)  # some must be left for those that come and go
                        continue
                    batch = await consumer.receive(20, timeout=0.2)
                    await asyncio.sleep(0)
                    await consumer.ack(batch)
                    got.update(delivery.body for delivery in batch)
                    count += len(batch)

        async def come_and_go(bus: Bus) -> None:
            nonlocal moves
            while got.total() < 18_000 or moves < 3:
                await work(bus, 300)
                moves += 1

        async with connect(url) as bus, connect(url) as other:
            await _publish(bus, topic, 20_000)
            async with asyncio.timeout(100):
                await asyncio.gather(work(bus, 20_000, stays=True), come_and_go(other))
            assert moves > 2
            assert len(got) == 20_000
            assert got.total() == 20_000, [body for body, count in got.items() if count > 1][:5]
            assert (await bus.depth(topic, "g")).total == 0

    asyncio.run(run())


def test_short_delays_pass_long_ones(server: KafkaServer) -> None:
    """A message nacked for a second comes in a second, though others were nacked for an hour before it."""

    async def run() -> None:
        async with connect(f"{server.url}?partitions=1&session=2s") as bus:
            await _publish(bus, "delays", 60)
            async with await bus.consumer("delays", "g") as consumer:
                held = await _take(consumer, 60)
                await consumer.nack(held[:50], delay=3600)
                began = time.time()
                await consumer.nack(held[50:51], delay=1, reason="why")
                await consumer.ack(held[51:])
                (again,) = await _take(consumer, 1)
                assert 1.0 <= time.time() - began < 5.0
                assert (again.id, again.attempt, again.history) == (held[50].id, 2, ("why",))
                await consumer.ack([again])
            assert (await bus.depth("delays", "g")).total == 50
            states = {peeked.state for peeked in await bus.peek("delays", "g", 100)}
            assert states == {"delayed"}

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("size", [50, 300])
def test_a_broker_is_killed_under_traffic(server: KafkaServer, size: int) -> None:
    """While a broker is killed and started again publishing and receiving wait and go on: nothing is lost."""
    topic = f"killed-{size}"

    async def run() -> None:
        url = f"{server.url}?partitions=2&session=6s&timeout=5s"
        async with connect(url) as bus:
            got: set[bytes] = set()
            confirmed: list[bytes] = []
            stop = asyncio.Event()

            async def publish() -> None:
                producer = await bus.producer()
                number = 0
                while not stop.is_set():
                    bodies = [b"%d" % each for each in range(number, number + size)]
                    try:
                        await producer.publish_many([Message(topic, body) for body in bodies])
                    except (UnconfirmedError, UnreachableError):
                        continue
                    confirmed.extend(bodies)
                    number += size
                    await asyncio.sleep(0.01)

            async def work() -> None:
                consumer = await bus.consumer(topic, "g")
                while not (stop.is_set() and got.issuperset(confirmed)):
                    for delivery in await consumer.receive(20, timeout=0.2):
                        while True:
                            try:
                                await consumer.ack([delivery])
                            except UnconfirmedError:
                                continue
                            except LeaseLostError:
                                break
                            got.add(delivery.body)
                            break

            tasks = [asyncio.create_task(publish()), asyncio.create_task(work())]
            await await_until(lambda: len(got) > 200, 30)
            assert (await bus.health()).ok
            await asyncio.to_thread(server.kill)
            assert not (await bus.health()).ok
            await asyncio.to_thread(server.start)
            before = len(confirmed)
            await await_until(lambda: len(confirmed) > before + 200, 60)
            stop.set()
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)
            assert got.issuperset(confirmed)
            await await_until_healthy(bus)

    asyncio.run(run())


async def await_until_healthy(bus: Bus) -> None:
    """Health becomes good again."""
    async with asyncio.timeout(20):
        while not (await bus.health()).ok:  # noqa: ASYNC110 - nobody could wake us
            await asyncio.sleep(0.05)


@pytest.mark.slow
def test_one_of_three_brokers_dies(tmp_path: Path) -> None:
    """With three replicas a confirmed message survives the loss of a broker, and work goes on without it."""
    cluster = KafkaCluster(tmp_path)
    cluster.start()

    async def run() -> None:
        async with connect(f"{cluster.url}?partitions=3&replicas=3&session=6s&timeout=30s") as bus:
            assert bus.capabilities.durability.name == "D3"
            first = await _publish(bus, "replicated", 300)
            await asyncio.to_thread(cluster.servers[1].kill)
            second = await _publish(bus, "replicated", 300, start=300)
            async with await bus.consumer("replicated", "g") as consumer:
                got = await _take(consumer, 600)
                await consumer.ack(got)
            assert {delivery.body for delivery in got} == {*first, *second}

    try:
        asyncio.run(run())
    finally:
        cluster.stop()
