"""A no-op worker emptying a Kafka topic, and publishing, each beside a bare confluent-kafka loop in the same run."""

from __future__ import annotations

import asyncio
import mmap
import struct
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

import bus
from benchmarks.measure import Run, Watch, run_worker, task_line

__all__ = ["bare_kafka_loop", "kafka_drain", "kafka_publish"]

#: Tasks the bare loops take at a time, and a publisher sends in one call.
_BATCH = 1000
#: Length and checksum before a recorded result, and bytes for those of a batch.
_RECORD = struct.Struct("<II")
_ROOM = 1024 * _BATCH


def kafka_drain(url: str, folder: Path, count: int) -> tuple[Run, Run, Run]:
    """The plain loop's run, that of one with the worker's guarantees, and the worker's, each over ``count`` tasks."""
    mark = uuid.uuid4().hex[:8]
    plain, equal, topic = (f"bench-{each}-{mark}" for each in ("plain", "equal", "worker"))
    todo = [plain, equal, topic]
    asyncio.run(_fill(url, [*todo, *(f"{each}-done" for each in todo)], todo, count))
    loops = [
        bare_kafka_loop(_servers(url), plain, f"{plain}-done", count),
        bare_kafka_loop(_servers(url), equal, f"{equal}-done", count, records=folder / "bare.run"),
    ]
    names = ["--topic", topic, "--group", "bench", "--done-topic", f"{topic}-done"]
    run = run_worker(["--bus", url, "--drain", *names], folder)
    _expect(asyncio.run(_depth(url, f"{topic}-done")), count)
    return loops[0], loops[1], run


def kafka_publish(url: str, count: int) -> tuple[float, float, float]:
    """Seconds for publishing ``count`` tasks: bare, one by one without waiting, each with a report; bare, in batches
    with reports of failures only; and by ``publish_many``."""
    mark = uuid.uuid4().hex[:8]
    usual, best, topic = f"bench-raw-{mark}", f"bench-batch-{mark}", f"bench-many-{mark}"
    asyncio.run(_fill(url, [usual, best, topic], [], 0))
    servers = _servers(url)
    return (
        _bare_publish(servers, usual, count),
        _bare_batches(servers, best, count),
        asyncio.run(_publish_many(url, topic, count)),
    )


def bare_kafka_loop(servers: str, topic: str, done: str, count: int, *, records: Path | None = None) -> Run:
    """Take a batch, stamp it, write the results, await every report, commit; measured from the first message on.

    With ``records`` it also does what the worker's guarantees take: deliveries are counted in a commit before anything
    is done (so that a task that kills its process is found out), and each result is copied into mapped memory before
    the next task (so that a killed process has not done a whole batch for nothing).
    """
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "bare",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 1})
    consumer.subscribe([topic])
    memory = None if records is None else _mapped(records)
    watch = None
    taken = 0
    while taken < count or watch is None:
        messages = consumer.consume(_BATCH, 0.05)
        if not messages:
            continue
        watch = watch or Watch()
        failed: list[KafkaError] = []

        def report(error: KafkaError | None, _: Message, failed: list[KafkaError] = failed) -> None:
            if error is not None:
                failed.append(error)

        if memory is not None:
            begun = {message.partition() or 0: message.offset() or 0 for message in reversed(messages)}
            counts = [TopicPartition(topic, number, at, metadata=f"1:{_BATCH}") for number, at in begun.items()]
            consumer.commit(offsets=counts, asynchronous=False)
        offsets: dict[int, int] = {}
        at = 0
        for message in messages:
            body = message.value()
            if message.error() is not None or body is None:
                raise RuntimeError(f"the bare loop cannot read: {message.error()}")
            task: dict[str, Any] = orjson.loads(body)
            task["started"] = _now()
            task["result"] = "complete"
            task["msg"] = ""
            task["completed"] = _now()
            result = orjson.dumps(task)
            if memory is not None:
                record = _RECORD.pack(len(result), crc32(result)) + result
                memory[at : at + len(record)] = record
                at += len(record)
            producer.produce(done, result, on_delivery=report)
            offsets[message.partition() or 0] = (message.offset() or 0) + 1
        producer.flush()
        if failed:
            raise RuntimeError(f"the bare loop cannot write: {failed[0]}")
        commits = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        consumer.commit(offsets=commits, asynchronous=False)
        taken += len(messages)
    run = watch.run()
    consumer.close()
    return run


def _mapped(path: Path) -> mmap.mmap:
    with path.open("w+b") as file:
        file.truncate(_ROOM)
        return mmap.mmap(file.fileno(), _ROOM)


def _bare_publish(servers: str, topic: str, count: int) -> float:
    producer = _bare_producer(servers, topic, count)
    confirmed = 0

    def report(error: KafkaError | None, _: Message) -> None:
        nonlocal confirmed
        confirmed += error is None

    bodies = [task_line(number) for number in range(count)]
    began = time.perf_counter()
    for start in range(0, count, _BATCH):
        for body in bodies[start : start + _BATCH]:
            producer.produce(topic, body, on_delivery=report)
        producer.poll(0)
    producer.flush()
    seconds = time.perf_counter() - began
    _expect(confirmed, count)
    return seconds


def _bare_batches(servers: str, topic: str, count: int) -> float:
    producer = _bare_producer(servers, topic, count, only_failures=True)
    failed: list[KafkaError | None] = []

    def report(error: KafkaError | None, _: Message) -> None:
        failed.append(error)

    bodies = [task_line(number) for number in range(count)]
    began = time.perf_counter()
    for start in range(0, count, _BATCH):
        messages = [{"value": body} for body in bodies[start : start + _BATCH]]
        _expect(producer.produce_batch(topic, messages, on_delivery=report), len(messages))
        producer.poll(0)
    producer.flush()
    seconds = time.perf_counter() - began
    _expect(len(failed) + len(producer), 0)
    return seconds


def _bare_producer(servers: str, topic: str, count: int, *, only_failures: bool = False) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 1,
            "queue.buffering.max.messages": max(count, 1000),
            "delivery.report.only.error": only_failures,
        }
    )
    producer.produce(topic, task_line(0))  # until the first is confirmed, an idempotent producer asks for its id
    producer.flush()
    return producer


async def _publish_many(url: str, topic: str, count: int) -> float:
    messages = [bus.Message(topic, task_line(number)) for number in range(count)]
    async with bus.connect(url) as b, await b.producer() as producer:
        await producer.publish_many(messages[:_BATCH])  # as the bare client, warmed: many go by a client of their own
        began = time.perf_counter()
        await producer.publish_many(messages)
        return time.perf_counter() - began


async def _fill(url: str, topics: list[str], filled: list[str], count: int) -> None:
    async with bus.connect(url) as b, await b.producer() as producer:
        for topic in topics:
            # Makes the topic, with the partitions of the URL.
            await (await b.consumer(topic, "bench")).close()
        for topic in filled:
            for start in range(0, count, _BATCH):
                numbers = range(start, min(start + _BATCH, count))
                await producer.publish_many([bus.Message(topic, task_line(number)) for number in numbers])


async def _depth(url: str, topic: str) -> int:
    async with bus.connect(url) as b:
        return (await b.depth(topic, "count")).ready


def _servers(url: str) -> str:
    return urlsplit(url).netloc


def _expect(found: int, count: int) -> None:
    if found != count:
        raise RuntimeError(f"{count} tasks went in and {found} done tasks came out")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
