"""The ``nsq`` bus."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid

from bus.capabilities import Capabilities, Durability
from bus.contract import Bus, Consumer, Depth, Health, Producer
from bus.errors import BusError, BusURLError, ClosedError, UnsupportedError
from bus.names import check_group, check_topic
from bus.nsq.consumer import NsqConsumer
from bus.nsq.nodes import Nodes
from bus.nsq.options import parse_address, read_options, tls_context
from bus.nsq.publisher import NsqProducer, Publisher
from bus.registry import Clock
from bus.url import BusURL

__all__ = ["NsqBus"]

#: Seconds ``health`` waits for an answer.
_HEALTH = 2.0
#: A channel that ends with its last reader.
_EPHEMERAL = "#ephemeral"


class NsqBus(Bus):
    """``nsq://host:4150``: a broker without replication, spread over any number of nsqds."""

    schemes = ("nsq",)
    #: With default options.
    capabilities = Capabilities(
        durability=Durability.D1,
        groups=True,
        shared=True,
        processes=True,
        retained=True,
        lease=True,
        lease_ceiling=900.0,
        publish_delay=3600.0,
        nack_delay=3600.0,
        attempts=True,
        release_counts=True,
        broadcast=True,
        max_size=1024**2,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        self._options = options = read_options(url)
        try:
            hosts = tuple(parse_address(host, 4150) for host in url.hosts)
        except ValueError as error:
            raise BusURLError(f"nsq: {error}") from None
        if len(options.http) > 1 and len(options.http) != len(hosts):
            raise BusURLError("nsq: http is one port, or as many host:port as there are nsqds")
        self._nodes = Nodes(tuple(dict.fromkeys(hosts)), options)
        self._tls = tls_context(options)
        self._publisher = Publisher(self._nodes, options, self._tls)
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            lease_ceiling=options.max_lease,
            publish_delay=options.max_delay,
            nack_delay=options.max_delay,
            max_size=options.max_size,
            depth=self._nodes.looks,
            depth_tells_delayed=self._nodes.looks,
            topics=self._nodes.looks,
        )
        self._closed = False
        self._made: set[NsqProducer | NsqConsumer] = set()

    async def open(self) -> None:
        """Connect to one nsqd. Raises UnreachableError, UnauthorisedError, BusURLError."""
        self._check_open()
        await self._publisher.any()

    async def producer(self) -> Producer:
        self._check_open()
        producer = NsqProducer(self._publisher, self._options, self._made.discard)
        self._made.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_topic(topic)
        channel = f"taskbus-{uuid.uuid4().hex}{_EPHEMERAL}" if group is None else check_group(group)
        consumer = NsqConsumer(topic, group, channel, self._nodes, self._options, self._tls, self._made.discard)
        self._made.add(consumer)
        await consumer.join()
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        check_topic(topic)
        check_group(group)
        self._check_looks("depth")
        ready = delayed = in_flight = 0
        for found in await self._nodes.stats(topic):
            channels = {channel["channel_name"]: channel for channel in found["channels"]}
            mine = channels.get(group)
            if mine is not None:
                delayed += mine["deferred_count"]
                in_flight += mine["in_flight_count"]
                ready += mine["depth"]
            if mine is not None or not channels:
                ready += found["depth"]
        return Depth(ready, delayed, in_flight)

    async def topics(self) -> list[str]:
        self._check_looks("list of topics")
        return sorted({found["topic_name"] for found in await self._nodes.stats()})

    async def groups(self, topic: str) -> list[str]:
        check_topic(topic)
        self._check_looks("list of groups")
        names = {channel["channel_name"] for found in await self._nodes.stats(topic) for channel in found["channels"]}
        return sorted(name for name in names if not name.endswith(_EPHEMERAL))

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "closed")
        for made in self._made:
            if isinstance(made, NsqConsumer) and made.trouble:
                return Health(False, f"topic {made.topic}: {made.trouble}")
        try:
            async with asyncio.timeout(_HEALTH):
                return Health(True, f"nsqd {await self._publisher.any()}")
        except TimeoutError:
            return Health(False, f"no nsqd answers within {_HEALTH:g} s")
        except BusError as error:
            return Health(False, str(error))

    async def close(self) -> None:
        self._closed = True
        for made in list(self._made):
            await made.close()
        await self._publisher.close()

    def _check_looks(self, what: str) -> None:
        if not self._nodes.looks:
            raise UnsupportedError(
                f"nsq: {what} is asked for over HTTP; add http=4151, the HTTP port of the nsqds, to the URL"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the nsq bus is closed")
