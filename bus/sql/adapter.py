"""The ``sqlite`` bus."""

from __future__ import annotations

import asyncio
import dataclasses
import os

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Depth, Health, Peeked, Producer
from bus.errors import BusError, BusURLError, ClosedError
from bus.facts import Fact, Look
from bus.names import check_group, check_topic
from bus.registry import Clock
from bus.sql import looking
from bus.sql.consumer import SqlConsumer
from bus.sql.engine import Engine
from bus.sql.membership import Member
from bus.sql.options import SqliteOptions
from bus.sql.producer import SqlProducer, Store
from bus.sql.sqlite import SqliteDatabase
from bus.sql.topic import DEDUPE
from bus.steady import SteadyClock
from bus.url import BusURL, parse_options

__all__ = ["SqliteBus"]

_TIERS = {"full": Durability.D3, "normal": Durability.D2}
#: Seconds ``health`` waits for an answer.
_HEALTH = 1.0


class SqliteBus(Bus):
    """``sqlite:work.db``: a durable bus with leases and delays for the processes of one machine."""

    schemes = ("sqlite",)
    #: With default options.
    capabilities = Capabilities(
        durability=Durability.D3,
        groups=True,
        shared=True,
        processes=True,
        retained=True,
        replay=True,
        lease=True,
        publish_delay=float("inf"),
        nack_delay=float("inf"),
        attempts=True,
        history=True,
        order=Order.TOPIC,
        dedupe=DEDUPE,
        atomic_finish=True,
        broadcast=True,
        depth=True,
        depth_tells_delayed=True,
        peek=True,
        topics=True,
        max_size=1024**2,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        if url.hosts or url.user is not None:
            raise BusURLError("sqlite: takes a path, not a host; write sqlite:work.db or sqlite:/var/lib/work.db")
        if not url.path or "\0" in url.path:
            raise BusURLError("sqlite: needs the path of a file, as in sqlite:work.db or sqlite:/var/lib/work.db")
        if url.path == ":memory:":
            raise BusURLError("sqlite: needs a file; for a bus in memory write memory:")
        if os.path.isdir(url.path):
            raise BusURLError(f"sqlite: {url.path} is a directory; name a file in it")
        self._options = parse_options(url, SqliteOptions)
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            durability=_TIERS[self._options.synchronous],
            max_size=self._options.max_size,
        )
        self._path = os.path.realpath(url.path)
        self._store: Store = (self._path, self.capabilities.durability)
        # Its own, as what it shows is agreed upon by those who share the file.
        self._clock = clock = SteadyClock() if isinstance(clock, SteadyClock) else clock
        self._database = SqliteDatabase(self._path, synchronous=self._options.synchronous, wait=self._options.wait)
        self._engine = Engine(self._database, clock, self._options.poll)
        self._changing = asyncio.Lock()
        self._epoch: str | None = None
        self._closed = False
        self._made: set[SqlProducer | SqlConsumer] = set()

    async def open(self) -> None:
        """Open the file, which is made if it does not exist.

        Raises:
            BusURLError: it cannot be made there, or is something else.
            UnauthorisedError, UnreachableError, FullError, CorruptError.
        """
        async with self._changing:
            self._check_open()
            if self._epoch is None:
                self._epoch = await self._engine.open()

    async def producer(self) -> Producer:
        self._check_open()
        producer = SqlProducer(self._engine, self._store, self._clock, self._options.max_size, self._made.discard)
        self._made.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        member = Member(
            check_topic(topic),
            None if group is None else check_group(group),
            self._options.lease,
            self._options.max_size,
        )
        consumer = SqlConsumer(self._engine, self._store, member, self._clock, self._made.discard)
        await consumer.join(self._epoch)
        self._made.add(consumer)
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        check_topic(topic)
        check_group(group)
        return await self._engine.read(lambda step: looking.depth(step.tx, topic, group, step.now))

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        check_topic(topic)
        if group is not None:
            check_group(group)
        return await self._engine.read(lambda step: looking.peek(step.tx, topic, group, limit, step.now))

    async def topics(self) -> list[str]:
        return await self._engine.read(lambda step: looking.topics(step.tx))

    async def groups(self, topic: str) -> list[str]:
        check_topic(topic)
        return await self._engine.read(lambda step: looking.groups(step.tx, topic))

    async def diagnose(self, look: Look) -> list[Fact]:
        from bus.sql.diagnose import diagnose

        return await diagnose(self._path, self._options)

    async def health(self) -> Health:
        if self._database.waits_for_lock:
            return Health(False, f"{self._path} is locked by another process")
        if self._engine.trouble is not None:
            return Health(False, str(self._engine.trouble))
        try:
            async with asyncio.timeout(_HEALTH):
                await self._engine.read(lambda step: looking.topics(step.tx))
        except TimeoutError:
            return Health(False, f"{self._path} does not answer within {_HEALTH:g} s")
        except BusError as error:
            return Health(False, str(error))
        return Health(True, f"{self._path}")

    async def close(self) -> None:
        self._closed = True
        async with self._changing:
            for made in list(self._made):
                await made.close()
            await self._engine.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the sqlite bus is closed")
