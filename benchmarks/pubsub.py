"""Pub/Sub's emulator: a no-op worker emptying a topic, and publishing, beside bare loops over Google's client library.

The bare loops take the same steps with the same guarantees: pull, decode, stamp, encode, publish the result, and
acknowledge when that is confirmed; several of them at once, as one waits most of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.pubsub_v1.types import PubsubMessage
from grpc import aio

import bus
from benchmarks.drains import now_text
from benchmarks.measure import Run, Watch, run_worker, task_line

__all__ = ["pubsub_drain", "pubsub_publish"]

_PROJECT = "projects/bench"
#: Bare loops and requests side by side, and messages of one publish.
_LOOPS, _BATCH = 4, 1000
#: Who counts what is done.
_GROUP = "count"


def pubsub_drain(address: str, folder: Path, count: int) -> tuple[Run, Run]:
    """The bare loops' run, and the worker's, over ``count`` tasks in the emulator at ``address``."""
    bare = asyncio.run(_bare_drain(address, count))
    url = f"pubsub://bench?emulator={address}&prefix=worker-{time.time_ns()}"
    asyncio.run(_fill(url, "noop", "noop", count))
    asyncio.run(_fill(url, "done", _GROUP, 0))
    run = run_worker(["--bus", url, "--lifetime", str(count)], folder)
    found = asyncio.run(_count(url, "done"))
    if found != count:
        raise RuntimeError(f"{count} tasks went in and {found} done tasks came out")
    return bare, run


def pubsub_publish(address: str, count: int) -> tuple[float, float]:
    """Seconds of the bare client and of ``publish_many`` for ``count`` messages."""
    bare = asyncio.run(_bare_publish(address, count))
    url = f"pubsub://bench?emulator={address}&prefix=publish-{time.time_ns()}"
    return bare, asyncio.run(_fill(url, "noop", "noop", count))


async def _fill(url: str, topic: str, group: str, count: int) -> float:
    async with bus.connect(url) as b, await b.producer() as producer:
        await (await b.consumer(topic, group)).close()
        messages = [bus.Message(topic, task_line(number)) for number in range(count)]
        began = time.perf_counter()
        await producer.publish_many(messages)
        return time.perf_counter() - began


async def _count(url: str, topic: str) -> int:
    found = 0
    async with bus.connect(url) as b, await b.consumer(topic, _GROUP) as consumer:
        while batch := await consumer.receive(1000, timeout=1.0):
            found += len(batch)
            await consumer.ack(batch)
    return found


@contextlib.asynccontextmanager
async def _clients(address: str) -> AsyncIterator[tuple[PublisherAsyncClient, SubscriberAsyncClient]]:
    async with aio.insecure_channel(address) as channel:
        publishing = PublisherGrpcAsyncIOTransport(channel=channel)
        subscribing = SubscriberGrpcAsyncIOTransport(channel=channel)
        yield PublisherAsyncClient(transport=publishing), SubscriberAsyncClient(transport=subscribing)


async def _topic(publisher: PublisherAsyncClient, subscriber: SubscriberAsyncClient, name: str) -> str:
    topic = f"{_PROJECT}/topics/{name}-{time.time_ns()}"
    await publisher.create_topic(name=topic)
    await subscriber.create_subscription(name=topic.replace("/topics/", "/subscriptions/"), topic=topic)
    return topic


async def _bare_publish(address: str, count: int) -> float:
    async with _clients(address) as (publisher, subscriber):
        return await _publish(publisher, await _topic(publisher, subscriber, "bare"), count)


async def _publish(publisher: PublisherAsyncClient, topic: str, count: int) -> float:
    bodies = [task_line(number) for number in range(count)]
    starts = iter(range(0, count, _BATCH))
    began = time.perf_counter()

    async def send() -> None:
        for start in starts:
            messages = [PubsubMessage(data=body) for body in bodies[start : start + _BATCH]]
            await publisher.publish(topic=topic, messages=messages)

    await asyncio.gather(*(send() for _ in range(_LOOPS)))
    return time.perf_counter() - began


async def _bare_drain(address: str, count: int) -> Run:
    async with _clients(address) as (publisher, subscriber):
        return await _drain(publisher, subscriber, count)


async def _drain(publisher: PublisherAsyncClient, subscriber: SubscriberAsyncClient, count: int) -> Run:
    topic = await _topic(publisher, subscriber, "bare")
    done = await _topic(publisher, subscriber, "bare-done")
    subscription = topic.replace("/topics/", "/subscriptions/")
    await _publish(publisher, topic, count)
    left = count
    watch = Watch()

    async def work() -> None:
        nonlocal left
        while left > 0:
            pulled = await subscriber.pull(subscription=subscription, max_messages=_BATCH, timeout=2.0)
            results = []
            ids = []
            for received in pulled.received_messages:
                task = orjson.loads(received.message.data)
                task["started"] = now_text()
                task["result"] = "complete"
                task["msg"] = ""
                task["completed"] = now_text()
                results.append(PubsubMessage(data=orjson.dumps(task)))
                ids.append(received.ack_id)
            left -= len(ids)
            if ids:
                await publisher.publish(topic=done, messages=results)
                await subscriber.acknowledge(subscription=subscription, ack_ids=ids)

    await asyncio.gather(*(work() for _ in range(_LOOPS)))
    return watch.run()
