"""The ``kafka`` bus."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from typing import Any

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Depth, Health, Peeked, Producer
from bus.errors import BusError, BusURLError, ClosedError
from bus.facts import Fact, Look
from bus.kafka.consumer import KafkaConsumer
from bus.kafka.looking import peek
from bus.kafka.names import check_user_topic
from bus.kafka.options import KafkaOptions, connection
from bus.kafka.producer import KafkaProducer
from bus.kafka.sender import Sender
from bus.kafka.store import Store
from bus.names import check_group
from bus.registry import Clock
from bus.url import BusURL, parse_options

__all__ = ["KafkaBus"]

#: Seconds.
_HEARTBEAT = 1.0


class KafkaBus(Bus):
    """``kafka://host:9092``: Apache Kafka. Delays are measured by the clocks of the consumers' machines."""

    schemes = ("kafka",)
    #: With default options.
    capabilities = Capabilities(
        durability=Durability.D2,
        groups=True,
        shared=True,
        processes=True,
        retained=True,
        replay=True,
        lease=True,
        partitioned=True,
        nack_delay=float("inf"),
        attempts=True,
        history=True,
        order=Order.KEY,
        broadcast=True,
        depth=True,
        peek=True,
        topics=True,
        max_size=960 * 1024,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        if url.path.strip("/"):
            raise BusURLError("kafka: takes no path; write kafka://host:9092")
        self._options = parse_options(url, KafkaOptions)
        self._options.check()
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            durability=Durability.D3 if (self._options.replicas or 1) >= 3 else Durability.D2,
            order=Order.TOPIC if self._options.partitions == 1 else Order.KEY,
            max_size=self._options.max_size,
        )
        self._given = connection(url, self._options)
        self._where = self._given["bootstrap.servers"]
        self._store = Store(self._given, self._where, self._options)
        self._sender = Sender(self._given, self._where, self._options.timeout)
        self._made: set[KafkaProducer | KafkaConsumer] = set()
        self._changing = asyncio.Lock()
        self._open = False
        self._closed = False

    async def open(self) -> None:
        """Connect. Raises UnreachableError, UnauthorisedError or BusURLError."""
        async with self._changing:
            self._check_open()
            if not self._open:
                await self._store.open()
                self._open = True

    async def producer(self) -> Producer:
        self._check_open()
        self._sender.warm()
        producer = KafkaProducer(self._sender, self._store, self._options, self._made.discard)
        self._made.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_user_topic(topic)
        if group is not None:
            check_group(group)
        await self._store.ensure(topic, group)
        epoch = starts = None
        if group is None:
            starts = await self._store.ends(topic)
        else:
            epoch = await self._store.epoch(topic)
        given = self._reading(group)
        consumer = KafkaConsumer(
            given, self._options, self._sender, topic, group, self._made.discard, epoch=epoch, starts=starts
        )
        self._made.add(consumer)
        await consumer.join()
        return consumer

    def _reading(self, group: str | None) -> dict[str, Any]:
        options = self._options
        given = {
            **self._given,
            "group.id": group or f"taskbus-broadcast-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "max.poll.interval.ms": round(options.stall * 1000),
            "socket.timeout.ms": round(max(1.0, options.timeout) * 1000),
            "topic.metadata.refresh.interval.ms": 10_000,
            # A partition that becomes readable waits for the fetch of the others to come back.
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 100,
            "queued.min.messages": 10_000,
            # Otherwise it waits a second before it fills a queue again that was full, and we empty it sooner.
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 16_384,
            "fetch.message.max.bytes": max(options.largest, 1_048_576),
        }
        if group is not None and options.instance:
            given["group.instance.id"] = options.instance
        if options.protocol == "consumer":
            return given | {"group.protocol": "consumer"}
        session = min(options.session, options.stall)
        return given | {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": round(session * 1000),
            # By its heartbeat a member learns that another one has joined.
            "heartbeat.interval.ms": round(min(session / 4, _HEARTBEAT) * 1000),
        }

    async def depth(self, topic: str, group: str) -> Depth:
        return await self._store.depth(check_user_topic(topic), check_group(group))

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        check_user_topic(topic)
        if group is not None:
            check_group(group)
        extents = await self._store.extents(topic, group)
        given = self._reading(None)
        return await self._store.run(lambda: peek(given, extents, limit, self._options.timeout), f"looking at {topic}")

    async def topics(self) -> list[str]:
        return await self._store.topics()

    async def groups(self, topic: str) -> list[str]:
        return await self._store.groups(check_user_topic(topic))

    async def diagnose(self, look: Look) -> list[Fact]:
        from bus.kafka.diagnose import diagnose

        return await diagnose(self._store, self._options, look)

    async def health(self) -> Health:
        try:
            self._check_open()
            await self._store.check()
        except BusError as error:
            return Health(False, str(error))
        troubles = [made.trouble for made in self._made if isinstance(made, KafkaConsumer) and made.trouble]
        return Health(not troubles, "; ".join(troubles) or self._where)

    async def close(self) -> None:
        self._closed = True
        async with self._changing:
            await asyncio.gather(*(made.close() for made in list(self._made)))
            await self._sender.close()
            await self._store.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the kafka bus is closed")
