"""The ``nsq`` bus."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid

from bus.capabilities import Capabilities, Durability
from bus.contract import Bus, Consumer, Depth, Health, Producer
from bus.errors import BadNameError, BusError, BusURLError, ClosedError
from bus.facts import Fact, Look
from bus.names import check_group, check_topic
from bus.nsq.consumer import NsqConsumer
from bus.nsq.keeping import KEPT
from bus.nsq.nodes import EPHEMERAL, Nodes
from bus.nsq.options import parse_address, read_options, tls_context
from bus.nsq.publisher import NsqProducer, Publisher
from bus.registry import Clock
from bus.url import BusURL

__all__ = ["NsqBus"]

#: Seconds ``health`` waits for an answer.
_HEALTH = 2.0


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
        depth=True,
        depth_tells_delayed=True,
        topics=True,
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
        self._tls = tls_context(options)
        self._nodes = Nodes(tuple(dict.fromkeys(hosts)), options, self._tls)
        self._publisher = Publisher(self._nodes, options, self._tls)
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            lease_ceiling=options.max_lease,
            publish_delay=options.max_delay,
            nack_delay=options.max_delay,
            max_size=options.max_size,
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
        if group == KEPT:
            raise BadNameError(f"group {group}: nsq keeps messages in it that no group has yet; use another name")
        channel = f"taskbus-{uuid.uuid4().hex}{EPHEMERAL}" if group is None else check_group(group)
        consumer = NsqConsumer(topic, group, channel, self._nodes, self._options, self._tls, self._made.discard)
        self._made.add(consumer)
        await consumer.join()
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        check_topic(topic)
        check_group(group)
        ready = delayed = in_flight = 0
        for found in await self._nodes.stats(topic):
            channels = {channel["channel_name"]: channel for channel in found["channels"]}
            lasting = {name for name in channels if not name.endswith(EPHEMERAL)}
            # What is kept for the first group is this one's if there is no other.
            names = {group, KEPT} if lasting <= {group, KEPT} else {group}
            mine = [channels[name] for name in names & lasting]
            for channel in mine:
                delayed += channel["deferred_count"]
                in_flight += channel["in_flight_count"]
                ready += channel["depth"]
            if mine or not channels:
                ready += found["depth"]
        return Depth(ready, delayed, in_flight)

    async def topics(self) -> list[str]:
        return sorted({found["topic_name"] for found in await self._nodes.stats()})

    async def groups(self, topic: str) -> list[str]:
        check_topic(topic)
        names = {channel["channel_name"] for found in await self._nodes.stats(topic) for channel in found["channels"]}
        return sorted(name for name in names if not name.endswith(EPHEMERAL) and name != KEPT)

    async def diagnose(self, look: Look) -> list[Fact]:
        from bus.nsq.diagnose import diagnose

        return await diagnose(self._nodes, self._options, look)

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "closed")
        consumers = [made for made in self._made if isinstance(made, NsqConsumer)]
        for consumer in consumers:
            if consumer.trouble:
                return Health(False, f"topic {consumer.topic}: {consumer.trouble}")
        away = sorted({node for consumer in consumers for node in consumer.away})
        try:
            async with asyncio.timeout(_HEALTH):
                return Health(True, "; ".join([f"nsqd {await self._publisher.any()}", *(f"{n} is away" for n in away)]))
        except TimeoutError:
            return Health(False, f"no nsqd answers within {_HEALTH:g} s")
        except BusError as error:
            return Health(False, str(error))

    async def close(self) -> None:
        self._closed = True
        for made in list(self._made):
            await made.close()
        await self._publisher.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the nsq bus is closed")
