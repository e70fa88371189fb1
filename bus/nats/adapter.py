"""The ``nats`` bus."""

from __future__ import annotations

import asyncio
import dataclasses

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Depth, Health, Peeked, Producer
from bus.errors import BusError, BusURLError, ClosedError
from bus.facts import Fact, Look
from bus.names import check_group, check_topic
from bus.nats.connection import Connection
from bus.nats.consumer import NatsConsumer
from bus.nats.options import NatsOptions, addresses, security
from bus.nats.producer import NatsProducer
from bus.nats.store import DEDUPE, Store
from bus.registry import Clock
from bus.url import BusURL, parse_options

__all__ = ["NatsBus"]

#: What headers may take of the server's max_payload.
_HEADERS = 1024


class NatsBus(Bus):
    """``nats://host:4222``: NATS JetStream. The server keeps the time of leases and delays."""

    schemes = ("nats",)
    #: With default options.
    capabilities = Capabilities(
        durability=Durability.D2,
        groups=True,
        shared=True,
        processes=True,
        retained=True,
        replay=True,
        lease=True,
        nack_delay=float("inf"),
        attempts=True,
        release_counts=True,
        order=Order.TOPIC,
        dedupe=DEDUPE,
        broadcast=True,
        depth=True,
        peek=True,
        topics=True,
        max_size=1023 * 1024,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        if url.path.strip("/"):
            raise BusURLError("nats: takes no path; write nats://host:4222")
        self._options = parse_options(url, NatsOptions)
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            durability=Durability.D2 if self._options.replicas == 1 else Durability.D3,
            max_size=self._options.max_size,
        )
        options = self._options
        self._connection = Connection(addresses(url), security(url, options), options.timeout, options.inbox)
        self._store = Store(self._connection, self._options)
        self._made: set[NatsProducer | NatsConsumer] = set()
        self._changing = asyncio.Lock()
        self._open = False
        self._closed = False

    async def open(self) -> None:
        """Connect. Raises UnreachableError, UnauthorisedError or BusURLError."""
        async with self._changing:
            self._check_open()
            if self._open:
                return
            await self._connection.open()
            largest = self._connection.max_payload - _HEADERS
            if largest < self._options.max_size:
                await self._connection.disconnect()
                raise BusURLError(
                    f"nats: max_size is {self._options.max_size}, but the server takes {largest} bytes and headers: "
                    "lower max_size or raise the server's max_payload"
                )
            self._open = True

    async def producer(self) -> Producer:
        self._check_open()
        producer = NatsProducer(self._connection, self._store, self._options, self._made.discard)
        self._made.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_topic(topic)
        if group is not None:
            check_group(group)
        consumer = NatsConsumer(self._connection, self._store, topic, group, self._made.discard)
        await consumer.join()
        self._made.add(consumer)
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        return await self._store.depth(check_topic(topic), check_group(group))

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        return await self._store.peek(check_topic(topic), None if group is None else check_group(group), limit)

    async def topics(self) -> list[str]:
        return await self._store.topics()

    async def groups(self, topic: str) -> list[str]:
        return await self._store.groups(check_topic(topic))

    async def diagnose(self, look: Look) -> list[Fact]:
        from bus.nats.diagnose import diagnose

        return await diagnose(self._store, self._options, look)

    async def health(self) -> Health:
        if not self._connection.connected:
            trouble = self._connection.trouble
            return Health(False, f"{self._connection.where}: not connected" + (f": {trouble}" if trouble else ""))
        try:
            await self._store.check()
        except BusError as error:
            return Health(False, str(error))
        for made in self._made:
            if isinstance(made, NatsConsumer) and made.trouble:
                return Health(False, made.trouble)
        return Health(True, self._connection.where)

    async def close(self) -> None:
        self._closed = True
        async with self._changing:
            for made in list(self._made):
                await made.close()
            if self._open:
                self._open = False
                await self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the nats bus is closed")
