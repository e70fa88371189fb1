"""The ``pubsub`` bus."""

from __future__ import annotations

import asyncio
import dataclasses

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Depth, Health, Peeked, Producer
from bus.errors import BusError, ClosedError, UnsupportedError
from bus.facts import Fact, Look
from bus.names import check_group, check_topic
from bus.pubsub.connection import Connection
from bus.pubsub.consumer import LONGEST_DELAY, PubsubConsumer
from bus.pubsub.names import Names
from bus.pubsub.options import LARGEST, read_options
from bus.pubsub.producer import Publisher, PubsubProducer
from bus.pubsub.store import Store
from bus.registry import Clock
from bus.url import BusURL

__all__ = ["PubsubBus"]

#: Seconds ``health`` waits for an answer.
_HEALTH = 2.0


class PubsubBus(Bus):
    """``pubsub://PROJECT``: Google Cloud Pub/Sub. The server keeps the time of leases and delays."""

    schemes = ("pubsub",)
    #: With default options.
    capabilities = Capabilities(
        durability=Durability.D4,
        groups=True,
        shared=True,
        processes=True,
        retained=True,
        lease=True,
        nack_delay=LONGEST_DELAY,
        attempts=True,
        release_counts=True,
        broadcast=True,
        topics=True,
        max_size=LARGEST,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        project, self._options = read_options(url)
        self._where = f"project {project}"
        options = self._options
        counted = options.max_attempts > 0
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            durability=Durability.D0 if options.emulated else Durability.D4,
            attempts=counted,
            release_counts=counted,
            order=Order.KEY if options.ordering else Order.NONE,
            max_size=options.max_size,
        )
        self._names = Names(project, options.prefix)
        self._connection = Connection(options)
        self._store = Store(self._connection, self._names, options)
        self._publisher = Publisher(self._connection, self._store, self._names, options)
        self._made: set[PubsubProducer | PubsubConsumer] = set()
        self._changing = asyncio.Lock()
        self._open = False
        self._closed = False

    async def open(self) -> None:
        """Connect. Raises UnreachableError, UnauthorisedError, UnconfirmedError or BusURLError."""
        async with self._changing:
            self._check_open()
            if not self._open:
                await self._connection.open()
                try:
                    await self._store.probe(self._options.timeout)
                except BaseException:
                    await self._connection.disconnect()
                    raise
                self._open = True

    async def producer(self) -> Producer:
        self._check_open()
        producer = PubsubProducer(self._publisher, self._options, self._made.discard)
        self._made.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_topic(topic)
        if group is not None:
            check_group(group)
        consumer = PubsubConsumer(self._connection, self._store, self._options, topic, group, self._made.discard)
        await consumer.join()
        self._made.add(consumer)
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        raise UnsupportedError(
            "Pub/Sub does not tell how much is pending: look at subscription/num_undelivered_messages in Cloud "
            f"Monitoring for {self._names.group(topic, group)}, or for {self._names.first(topic)} of the first group",
            topic=topic,
        )

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        raise UnsupportedError(
            "Pub/Sub shows no message without delivering it: use `taskbus tail` for what comes from now on, or "
            "`taskbus pipe` to take what is there",
            topic=topic,
        )

    async def topics(self) -> list[str]:
        return await self._store.topics()

    async def groups(self, topic: str) -> list[str]:
        return await self._store.groups(check_topic(topic))

    async def diagnose(self, look: Look) -> list[Fact]:
        from bus.pubsub.diagnose import diagnose

        return await diagnose(self._store, self._options, look)

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "closed")
        for made in self._made:
            if isinstance(made, PubsubConsumer) and made.trouble:
                return Health(False, f"topic {made.topic}: {made.trouble}")
        try:
            # Every worker asks every two seconds, and questions about topics have a quota.
            if not self._connection.fresh:
                await self._store.probe(_HEALTH)
        except BusError as error:
            return Health(False, str(error))
        return Health(True, f"{self._where} at {self._connection.where}")

    async def close(self) -> None:
        self._closed = True
        async with self._changing:
            await asyncio.gather(*(made.close() for made in list(self._made)))
            self._open = False
            await self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the pubsub bus is closed")
