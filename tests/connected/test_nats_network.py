"""NATS over a network that loses, holds, delays and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import bus
from bus import BusError, LeaseLostError, Message, Producer, UnconfirmedError
from tests.faults.proxy import Direction, Proxy
from tests.helpers import await_until
from tests.servers.nats import NatsServer, nats_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One running server."""
    with nats_server(tmp_path) as server:
        yield server


async def _publish(producer: Producer, messages: list[Message]) -> None:
    while True:
        try:
            return await producer.publish_many(messages)
        except BusError as error:
            if not error.transient:
                raise


def test_lost_confirmations_make_no_duplicates(server: NatsServer) -> None:
    """When what was published is stored and the answer lost, it is published again and stored once."""

    async def run(proxy: Proxy) -> None:
        messages = [Message("t", b"%d" % number, id=str(number)) for number in range(50)]
        async with (
            bus.connect(f"nats://127.0.0.1:{proxy.port}?timeout=1s") as b,
            bus.connect(server.url) as direct,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            proxy.lose(Direction.TO_CLIENT)
            with pytest.raises(UnconfirmedError):
                await producer.publish_many(messages)
            assert (await direct.depth("t", "g")).total == 50
            proxy.heal()
            await _publish(producer, messages)
            assert (await direct.depth("t", "g")).total == 50
            got = await consumer.receive(100, timeout=10)
            assert len(got) == 50
            proxy.lose(Direction.TO_CLIENT)
            with pytest.raises(UnconfirmedError):
                await consumer.ack(got)
            proxy.heal()
            while True:
                with contextlib.suppress(bus.UnreachableError, UnconfirmedError):
                    await consumer.ack(got)
                    break
            assert (await direct.depth("t", "g")).total == 0

    with Proxy(server.port) as proxy:
        asyncio.run(run(proxy))


@pytest.mark.slow
def test_a_connection_that_is_cut_over_and_over(server: NatsServer) -> None:
    """All that is published is received; a message comes again only if it was in flight when the connection was cut."""

    async def run(proxy: Proxy) -> None:
        got: Counter[bytes] = Counter()
        done = asyncio.Event()

        async def work(consumer: bus.Consumer) -> None:
            while batch := await consumer.receive(10):
                got.update(delivery.body for delivery in batch)
                while True:
                    try:
                        await consumer.ack(batch)
                        break
                    except LeaseLostError:
                        break
                    except BusError as error:
                        if not error.transient:
                            raise
                if len(got) == 2000:
                    done.set()

        url = f"nats://127.0.0.1:{proxy.port}?timeout=1s&lease=2s"
        async with bus.connect(url) as b, bus.connect(url) as other, await b.producer() as producer:
            working = asyncio.create_task(work(await other.consumer("t", "g")))
            for start in range(0, 2000, 100):
                messages = [Message("t", b"%d" % number, id=str(number)) for number in range(start, start + 100)]
                publishing = asyncio.create_task(_publish(producer, messages))
                if start % 200 == 0:
                    await asyncio.to_thread(proxy.cut)
                await publishing
            async with asyncio.timeout(30):
                await done.wait()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        assert set(got) == {b"%d" % number for number in range(2000)}
        assert got.total() - len(got) <= 10 * 10  # cuts, and messages that one receive takes
        assert proxy.accepted >= 12

    with Proxy(server.port) as proxy:
        asyncio.run(run(proxy))


@pytest.mark.slow
def test_a_slow_link_is_not_given_up(server: NatsServer) -> None:
    """With a quarter of a second for each piece, and little room, messages that take half the timeout come and go."""

    async def run(proxy: Proxy) -> None:
        async with (
            bus.connect(f"nats://127.0.0.1:{proxy.port}?timeout=3s&lease=10s") as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            proxy.delay(0.25)
            proxy.throttle(100_000)
            for number in range(3):
                body = b"%d" % number * 50_000
                await producer.publish("t", body)
                (delivery,) = await consumer.receive(1, timeout=20)
                assert delivery.body == body
                await consumer.ack([delivery])
        assert proxy.accepted == 1

    with Proxy(server.port) as proxy:
        asyncio.run(run(proxy))


def test_a_frozen_link_is_given_up(server: NatsServer) -> None:
    """A connection over which nothing comes any more, in one direction, is replaced within two timeouts."""

    async def run(proxy: Proxy) -> None:
        async with (
            bus.connect(f"nats://127.0.0.1:{proxy.port}?timeout=500ms") as b,
            bus.connect(server.url) as direct,
            await direct.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            receiving = asyncio.create_task(consumer.receive())
            proxy.freeze(Direction.TO_CLIENT)
            began = time.monotonic()
            async with asyncio.timeout(5):
                while (await b.health()).ok:  # noqa: ASYNC110 - nobody could wake us
                    await asyncio.sleep(0.02)
            assert time.monotonic() - began < 2.5
            await await_until(lambda: proxy.accepted > 1)
            proxy.heal()
            await producer.publish("t", b"1")
            async with asyncio.timeout(15):
                assert [delivery.body for delivery in await receiving] == [b"1"]

    with Proxy(server.port) as proxy:
        asyncio.run(run(proxy))
