"""NATS JetStream under a bus that is in use: servers that go and come back, stand still, or lose what was on them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import nats.js
import orjson
import pytest
from nats.js.api import RetentionPolicy, StreamConfig

import bus
from bus import BusError, Consumer, Delivery, Message, Producer, UnreachableError
from task import Task, encode
from tests.helpers import await_until
from tests.servers.nats import NatsServer, nats_cluster, nats_server
from tests.taskbus_command import start


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One running server."""
    with nats_server(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def _admin(server: NatsServer) -> AsyncIterator[nats.js.JetStreamContext]:
    """JetStream as an administrator sees it, through another library."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def _publish(producer: Producer, *messages: Message) -> None:
    """Publish until it is confirmed, as a taskmaster does."""
    while True:
        try:
            return await producer.publish_many(messages)
        except BusError as error:
            if not error.transient:
                raise


async def _collect(consumer: Consumer, found: list[bytes]) -> None:
    """Receive and acknowledge for ever."""
    while batch := await consumer.receive(50):
        found.extend(delivery.body for delivery in batch)
        with contextlib.suppress(bus.LeaseLostError, UnreachableError, bus.UnconfirmedError):
            await consumer.ack(batch)


async def _one(consumer: Consumer, within: float = 10.0) -> Delivery:
    (delivery,) = await consumer.receive(1, timeout=within)
    await consumer.ack([delivery])
    return delivery


@pytest.mark.slow
def test_traffic_goes_on_through_restarts_and_kills(server: NatsServer, tmp_path: Path) -> None:
    """A worker, a publisher, a group and a listener go on by themselves; every confirmed task is done."""
    url = f"{server.url}?timeout=2s&lease=2s"
    worker = start("worker", "hello-world", "--bus", url, "--log-format", "json", cwd=tmp_path)

    async def run() -> None:
        sent: list[str] = []
        counted: list[bytes] = []
        heard: list[bytes] = []
        async with bus.connect(url) as b, bus.connect(url) as other, await b.producer() as producer:
            loops = [
                asyncio.create_task(_collect(await other.consumer("done", "count"), counted)),
                asyncio.create_task(_collect(await other.consumer("done", None), heard)),
            ]

            async def send(count: int) -> None:
                for _ in range(count):
                    sent.append(f"t{len(sent)}")
                    await _publish(producer, Message("hello-world", encode(Task("hello-world", "x", id=sent[-1]))))

            await send(1)
            await await_until(lambda: heard, 20)  # the worker has started
            for happen in (server.restart, server.kill_and_start, server.restart, server.kill_and_start):
                before = len(sent)
                sending = asyncio.create_task(send(200))
                await await_until(lambda: len(_ids(heard)) > before + 20, 20)  # noqa: B023 - awaited at once
                await asyncio.to_thread(happen)
                await sending
                await send(5)
                await await_until(lambda: set(sent) <= _ids(counted), 20)
                await await_until(lambda: set(sent) <= _ids(heard), 20)
                assert (await b.health()).ok
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
        assert len(sent) == 1 + 4 * 205

    try:
        asyncio.run(run())
    finally:
        worker.terminate()
        _, log = worker.communicate(timeout=20)
    assert worker.returncode == 0
    assert b"Traceback" not in log
    assert log.count(b'"event":"bus-back"') >= 4


def _ids(bodies: list[bytes]) -> set[str]:
    return {orjson.loads(body)["id"] for body in bodies}


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_forgets_ids_of_what_is_gone(server: NatsServer, how: str) -> None:
    """Published again after a restart, what is still stored is dropped, and what was acknowledged comes once more."""

    async def run() -> None:
        gone, kept = Message("t", b"gone", id="1"), Message("t", b"kept", id="2")
        async with (
            bus.connect(f"{server.url}?timeout=2s") as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            await _publish(producer, gone, kept)
            await consumer.ack(await consumer.receive(1, timeout=10))
            await _publish(producer, gone, kept)
            assert (await b.depth("t", "g")).total == 1
            await asyncio.to_thread(getattr(server, how))
            await asyncio.to_thread(server.start)
            await _publish(producer, gone, kept)
            assert (await b.depth("t", "g")).total == 2

    asyncio.run(run())


def test_health_tells_while_the_server_is_away(server: NatsServer) -> None:
    """Without a server health says so at once, publishing is an UnreachableError, and receive waits."""

    async def run() -> None:
        async with (
            bus.connect(f"{server.url}?timeout=500ms") as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            assert (await b.health()).ok
            waiting = asyncio.create_task(consumer.receive(10))
            await asyncio.to_thread(server.kill)
            await await_until(lambda: not b._connection.connected)  # type: ignore[attr-defined]
            health = await b.health()
            assert not health.ok
            assert f"127.0.0.1:{server.port}" in health.detail
            with pytest.raises(UnreachableError, match="not connected"):
                await producer.publish("t", b"1")
            assert not waiting.done()
            await asyncio.to_thread(server.start)
            await _publish(producer, Message("t", b"2"))
            async with asyncio.timeout(10):
                assert [delivery.body for delivery in await waiting] == [b"2"]
            assert (await b.health()).ok

    asyncio.run(run())


def test_attempts_to_reconnect_become_rare(server: NatsServer) -> None:
    """What listens there and hangs up at once is not dialled in a hot loop: six attempts take more than a second."""

    async def run() -> None:
        async with bus.connect(f"{server.url}?timeout=1s") as b, await b.consumer("t", "g") as consumer:
            waiting = asyncio.create_task(consumer.receive())
            await asyncio.to_thread(server.kill)
            attempts: list[float] = []

            def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                attempts.append(time.monotonic())
                writer.close()

            impostor = await asyncio.start_server(accepted, "127.0.0.1", server.port, reuse_address=True)
            async with impostor:
                await await_until(lambda: len(attempts) >= 6, 30)
            assert attempts[5] - attempts[0] > 0.7
            assert not (await b.health()).ok
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())


def test_a_server_that_stands_still_is_noticed(server: NatsServer) -> None:
    """A connection that is open and dead is given up after two timeouts, and all goes on when the server does."""

    async def run() -> None:
        async with (
            bus.connect(f"{server.url}?timeout=500ms") as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
            await b.consumer("t", None) as listener,
        ):
            waiting = [asyncio.create_task(each.receive()) for each in (consumer, listener)]
            await producer.publish("other", b"1")
            await asyncio.to_thread(server.pause)
            stopped = time.monotonic()
            try:
                await await_until(lambda: not b._connection.connected, 5)  # type: ignore[attr-defined]
                assert time.monotonic() - stopped < 2.5
                assert not (await b.health()).ok
            finally:
                server.resume()
            await _publish(producer, Message("t", b"2"))
            async with asyncio.timeout(15):
                for receiving in waiting:
                    assert {delivery.body for delivery in await receiving} == {b"2"}

    asyncio.run(run())


@pytest.mark.parametrize("what", ["stream", "consumer"])
def test_what_is_deleted_on_the_server_is_made_again(server: NatsServer, what: str) -> None:
    """A stream or consumer deleted under a waiting group, listener and publisher is there again, and nobody stalls."""

    async def run() -> None:
        async with (
            bus.connect(server.url) as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
            await b.consumer("t", None) as listener,
        ):
            for number in range(3):
                await producer.publish("t", b"%d" % number)
                assert (await _one(consumer)).body == (await _one(listener)).body == b"%d" % number
            waiting = [asyncio.create_task(each.receive(10)) for each in (consumer, listener)]
            async with _admin(server) as admin:
                if what == "stream":
                    await admin.delete_stream("taskbus-t")
                else:
                    for found in await admin.consumers_info("taskbus-t"):
                        await admin.delete_consumer("taskbus-t", found.name)

                async def made_again() -> bool:
                    with contextlib.suppress(nats.js.errors.NotFoundError):
                        return len(await admin.consumers_info("taskbus-t")) == 2
                    return False

                async with asyncio.timeout(15):
                    while not await made_again():  # noqa: ASYNC110 - the server tells nobody
                        await asyncio.sleep(0.02)
            await _publish(producer, Message("t", b"again"))
            async with asyncio.timeout(15):
                for receiving in waiting:
                    assert [delivery.body for delivery in await receiving] == [b"again"]
            assert (await b.health()).ok

    asyncio.run(run())


def test_what_cannot_be_made_again_shows_in_health(server: NatsServer) -> None:
    """A stream replaced by one of another kind is not altered: health names it until it is out of the way."""

    async def run() -> None:
        async with (
            bus.connect(server.url) as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            waiting = asyncio.create_task(consumer.receive(10))
            async with _admin(server) as admin:
                await admin.delete_stream("taskbus-t")
                while True:
                    with contextlib.suppress(nats.js.errors.APIError):
                        await admin.add_stream(
                            StreamConfig("taskbus-t", subjects=["taskbus.t"], retention=RetentionPolicy.LIMITS)
                        )
                        break
                    with contextlib.suppress(nats.js.errors.NotFoundError):
                        await admin.delete_stream("taskbus-t")  # our consumer was faster
                async with asyncio.timeout(10):
                    while (await b.health()).ok:  # noqa: ASYNC110 - nobody could wake us
                        await asyncio.sleep(0.02)
                assert "has retention limits, not interest" in (await b.health()).detail
                with pytest.raises(bus.BusURLError, match="retention limits"):
                    async with bus.connect(server.url) as another, await another.producer() as fresh:
                        await fresh.publish("t", b"1")
                await admin.delete_stream("taskbus-t")
            async with asyncio.timeout(15):
                while not (await b.health()).ok:  # noqa: ASYNC110 - nobody could wake us
                    await asyncio.sleep(0.02)
                await _publish(producer, Message("t", b"2"))
                assert [delivery.body for delivery in await waiting] == [b"2"]

    asyncio.run(run())


@pytest.mark.slow
def test_a_pull_that_the_server_ignores(server: NatsServer) -> None:
    """Two of three instances may not wait, and nobody tells them: they miss signs of life, ask again and are served."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            await (await b.consumer("t", "g")).close()
            async with _admin(server) as admin:
                config = (await admin.consumer_info("taskbus-t", "g")).config
                await admin.delete_consumer("taskbus-t", "g")
                await admin.add_consumer("taskbus-t", config.evolve(max_waiting=1))
            consumers = [await b.consumer("t", "g") for _ in range(3)]
            waiting = [asyncio.create_task(consumer.receive()) for consumer in consumers]
            async with asyncio.timeout(20):
                for number in range(3):
                    await producer.publish("t", b"%d" % number)
                got = [delivery for receiving in waiting for delivery in await receiving]
            assert {delivery.body for delivery in got} == {b"0", b"1", b"2"}

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 100])
def test_after_a_silence_messages_come_promptly(server: NatsServer, limit: int) -> None:
    """After six idle seconds of pulls that ran out, each of the first messages comes at once, not when a pull ends."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer, await b.consumer("t", "g") as consumer:
            for seconds in (0.5, 0.5, 1.0, 4.0):
                assert await consumer.receive(limit, timeout=seconds) == []
            receiving = asyncio.create_task(consumer.receive(limit))
            for number in range(8):
                await producer.publish("t", b"%d" % number)
                began = time.monotonic()
                (delivery,) = await receiving
                # A stalled pull would last 30 seconds.
                assert time.monotonic() - began < 1.0
                assert delivery.body == b"%d" % number
                await consumer.ack([delivery])
                receiving = asyncio.create_task(consumer.receive(limit))
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    asyncio.run(run())


def test_the_last_of_a_batch_speaks_for_all(server: NatsServer) -> None:
    """When settling a batch returns, the server counts none of it as held: only the last answer is waited for."""

    async def run() -> None:
        async with (
            bus.connect(server.url) as b,
            bus.connect(server.url) as other,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            for _ in range(10):
                await producer.publish_many([Message("t", b"%d" % number) for number in range(1000)])
                held: list[Delivery] = []
                while len(held) < 1000:
                    held += await consumer.receive(1000 - len(held))
                assert await other.depth("t", "g") == bus.Depth(0, 0, 1000)
                await consumer.ack(held[:500])
                assert await other.depth("t", "g") == bus.Depth(0, 0, 500)
                await consumer.terminate(held[500:], reason="enough")
                assert await other.depth("t", "g") == bus.Depth(0, 0, 0)

    asyncio.run(run())


def test_closing_hands_back_what_is_on_its_way(server: NatsServer) -> None:
    """Closed at whatever moment of a pull, a consumer leaves nothing to the end of its lease."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            for turn in range(40):
                topic = f"t{turn}"
                await (await b.consumer(topic, "g")).close()
                await producer.publish_many([Message(topic, b"%d" % number) for number in range(100)])
                async with bus.connect(server.url) as other:
                    closed = await other.consumer(topic, "g")
                    receiving = asyncio.create_task(closed.receive(100))
                    moment = time.monotonic() + turn * 0.0001
                    while time.monotonic() < moment:  # noqa: ASYNC110 - a moment nobody announces
                        await asyncio.sleep(0)
                    await closed.close()
                    await receiving
                async with await b.consumer(topic, "g") as consumer:
                    got: list[Delivery] = []
                    async with asyncio.timeout(5):
                        while len(got) < 100:
                            got += await consumer.receive(100 - len(got))
                    await consumer.ack(got)

    asyncio.run(run())


def test_administrators_hear_of_dead_letters(server: NatsServer) -> None:
    """A message that is given up is terminated: the server says so, with the reason."""

    async def run() -> None:
        client = await nats.connect(server.url)
        heard = await client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.taskbus-t.g")
        await client.flush()
        async with (
            bus.connect(server.url) as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            await producer.publish("t", b"1")
            await consumer.terminate(await consumer.receive(), reason="too-many\r\nattempts")
            assert orjson.loads((await heard.next_msg(10)).data)["reason"] == "too-many attempts"
            assert await consumer.receive(1, timeout=0.2) == []
        await client.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"max_age": 600}, "has max_age 600000000000, not 0: it is not altered"),
        ({"discard": "old"}, "has discard old, not new"),
        ({"subjects": ["taskbus.t", "more"]}, "has subjects"),
    ],
)
def test_a_stream_that_would_lose_tasks_is_not_used(server: NatsServer, change: dict[str, Any], match: str) -> None:
    """A stream that exists is verified and never altered, by publishers and by consumers."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            await producer.publish("t", b"1")
        async with _admin(server) as admin:
            config = (await admin.stream_info("taskbus-t")).config
            await admin.update_stream(config.evolve(**change))
            async with bus.connect(server.url) as b, await b.producer() as producer:
                with pytest.raises(bus.BusURLError, match=match):
                    await producer.publish("t", b"1")
                with pytest.raises(bus.BusURLError, match=match):
                    await b.consumer("t", "g")
            assert (await admin.stream_info("taskbus-t")).config == config.evolve(**change)

    asyncio.run(run())


def test_a_consumer_that_would_give_up_is_not_used(server: NatsServer) -> None:
    """A consumer with a limit of deliveries, or another lease than the URL's, is an error and left as it is."""

    async def run() -> None:
        async with bus.connect(server.url) as b:
            await (await b.consumer("t", "g")).close()
        async with bus.connect(f"{server.url}?lease=7s") as b:
            with pytest.raises(bus.BusURLError, match="lease of 30 s, the URL says 7 s"):
                await b.consumer("t", "g")
        async with _admin(server) as admin:
            config = (await admin.consumer_info("taskbus-t", "g")).config
            await admin.add_consumer("taskbus-t", config.evolve(max_deliver=3))
            async with bus.connect(server.url) as b:
                with pytest.raises(bus.BusURLError, match="has max_deliver 3, not -1"):
                    await b.consumer("t", "g")

    asyncio.run(run())


async def _newcomer(url: str, sent: list[bytes]) -> None:
    """Connect and publish one message more."""
    while True:
        try:
            async with bus.connect(url) as b, await b.producer() as producer:
                body = b"new %d" % len(sent)
                await producer.publish("t", body)
                sent.append(body)
                return
        except BusError as error:
            if not error.transient:
                raise


async def _in_step(node: NatsServer) -> None:
    """Wait until every replica of the stream and of its consumer is as far as its leader."""
    async with asyncio.timeout(60), _admin(node) as admin:
        while True:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                found = (await admin.stream_info("taskbus-t"), await admin.consumer_info("taskbus-t", "g"))
                replicas = [peer for info in found if info.cluster for peer in info.cluster.replicas or []]
                if len(replicas) == 4 and all(peer.current and not peer.offline for peer in replicas):
                    return
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_cluster_survives_the_loss_of_any_node(tmp_path: Path) -> None:
    """With three replicas each node is killed during traffic and its disk lost: all that was confirmed is received."""

    async def run(nodes: list[NatsServer]) -> None:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = f"nats://{hosts}?replicas=3&timeout=2s&lease=5s"
        sent: list[bytes] = []
        got: list[bytes] = []
        b = bus.connect(url)
        async with asyncio.timeout(60):
            while True:  # until the cluster has a leader
                try:
                    await b.open()
                    consumer = await b.consumer("t", "g")
                    break
                except BusError:
                    await asyncio.sleep(0.1)
        async with b, await b.producer() as producer:
            assert b.capabilities.durability is bus.Durability.D3
            receiving = asyncio.create_task(_collect(consumer, got))

            async def send(count: int) -> None:
                for _ in range(count):
                    body = b"%d" % len(sent)
                    await _publish(producer, Message("t", body, id=body.decode()))
                    sent.append(body)

            for node in nodes:
                sending = asyncio.create_task(send(200))
                before = len(sent)
                await await_until(lambda: len(sent) > before + 50, 30)  # noqa: B023 - awaited at once
                await asyncio.to_thread(node.kill)
                await sending
                async with asyncio.timeout(30):  # somebody who starts meanwhile can work too
                    await _newcomer(url, sent)
                await await_until(lambda: set(sent) <= set(got), 40)
                shutil.rmtree(node.folder / "data")
                await asyncio.to_thread(node.start)
                await _in_step(node)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            assert len(sent) == 603

    with nats_cluster(tmp_path) as nodes:
        asyncio.run(run(nodes))
