"""The ``sqlite`` adapter: bus, producer and consumer over one database file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Delivery, Depth, Health, Message, Peeked, Producer
from bus.errors import BusError, BusURLError, ClosedError, LeaseLostError, TooLargeError
from bus.names import check_group, check_topic
from bus.registry import Clock
from bus.sql.database import Database, connect
from bus.sql.options import SqliteOptions
from bus.sql.queue import DEDUPE, EPHEMERAL, Claimed, Queue, publish, topics
from bus.sql.trouble import explain
from bus.url import BusURL, parse_options

__all__ = ["SqliteBus"]

#: Seconds between looks for what other processes did: at first, and when nothing happened for long.
_QUICK, _SLOW = 0.01, 0.05
_TIERS = {"full": Durability.D3, "normal": Durability.D2}
Result = TypeVar("Result")


class SqliteBus(Bus):
    """``sqlite:work.db``: a durable bus with leases and delays for the processes of one machine."""

    schemes = ("sqlite",)
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
        peek=True,
        topics=True,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        if not url.path or url.hosts or url.user is not None:
            raise BusURLError("sqlite: needs the path of a file, as in sqlite:work.db or sqlite:/var/lib/work.db")
        if url.path == ":memory:":
            raise BusURLError("sqlite: needs a file; for a bus in memory write memory:")
        if Path(url.path).is_dir():
            raise BusURLError(f"sqlite: {url.path} is a directory; name a file in it")
        self.options = parse_options(url, SqliteOptions)
        self.path = os.path.realpath(url.path)
        self.clock = clock
        self.capabilities = _with(type(self).capabilities, self.options)
        self._database = Database(self.path, self.options.synchronous)
        self._opened = False
        self._closed = False
        self._children: list[_SqliteProducer | _SqliteConsumer] = []
        #: Told, by topic, that something may be ready.
        self.waiting: dict[str, set[asyncio.Event]] = {}

    @property
    def epoch(self) -> str:
        """Which database this is."""
        return self._database.epoch

    async def open(self) -> None:
        self._check_open()
        if not self._opened:
            await self._database.open()
            self._opened = True

    async def write(self, work: Callable[[sqlite3.Connection], Result], *changed: str) -> Result:
        """Run ``work`` in a transaction; consumers of the topics ``changed`` then look again."""
        try:
            result = await self._database.write(work)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        for topic in changed:
            for event in self.waiting.get(topic, ()):
                event.set()
        return result

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work``, which only reads."""
        try:
            return await self._database.read(work)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    async def producer(self) -> Producer:
        self._check_open()
        producer = _SqliteProducer(self)
        self._children.append(producer)
        return producer

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the sqlite bus is closed")

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_topic(topic)
        if group is not None:
            check_group(group)
        consumer = _SqliteConsumer(self, topic, group)
        await consumer.join()
        self._children.append(consumer)
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        check_topic(topic)
        check_group(group)
        now = self.clock()
        return await self.read(lambda db: Queue.depth(db, topic, group, now))

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        check_topic(topic)
        now = self.clock()
        return await self.read(lambda db: Queue.peek(db, topic, group, limit, now))

    async def topics(self) -> list[str]:
        return await self.read(topics)

    async def groups(self, topic: str) -> list[str]:
        check_topic(topic)
        return await self.read(lambda db: Queue.groups(db, topic))

    async def health(self) -> Health:
        try:
            await self.read(lambda db: db.execute("SELECT 1 FROM about").fetchone())
        except BusError as error:
            return Health(False, str(error))
        return Health(True)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for child in self._children:
            await child.close()
        await self._database.close()

    def check(self, messages: Sequence[Message]) -> None:
        """Names and sizes, before anything is written. Raises BadNameError, TooLargeError."""
        known: set[str] = set()
        for message in messages:
            if message.topic not in known:
                known.add(check_topic(message.topic))
            if len(message.body) > self.options.max_size:
                raise TooLargeError(
                    f"{len(message.body)} bytes for topic {message.topic!r} are more than max_size="
                    f"{self.options.max_size} of the bus",
                    topic=message.topic,
                    size=len(message.body),
                    limit=self.options.max_size,
                )


def _with(capabilities: Capabilities, options: SqliteOptions) -> Capabilities:
    from dataclasses import replace

    return replace(capabilities, durability=_TIERS[options.synchronous], max_size=options.max_size)


class _SqliteProducer(Producer):
    def __init__(self, bus: SqliteBus) -> None:
        self.bus = bus
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        self.check_open()
        self.bus.check(messages)
        if not messages:
            return
        now = self.bus.clock()
        await self.bus.write(lambda db: publish(db, messages, now), *{message.topic for message in messages})

    def check_open(self) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")

    async def close(self) -> None:
        self._closed = True


class _SqliteConsumer(Consumer):
    def __init__(self, bus: SqliteBus, topic: str, group: str | None) -> None:
        self.topic = topic
        self.group = group
        self.lease = bus.options.lease
        self.epoch = bus.epoch
        self._bus = bus
        self._queue = Queue(topic, group, os.urandom(8).hex(), bus.options.lease)
        self._more = asyncio.Event()
        #: What was delivered here and is not settled.
        self._open: dict[Delivery, None] = {}
        #: A claim whose caller was cancelled before it brought its answer, and what it brought.
        self._claim: asyncio.Task[Claimed] | None = None
        self._taken: list[Delivery] = []
        self._next_due: float | None = None
        self._watch: sqlite3.Connection | None = None
        self._version = -1
        self._renew = 0.0
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    async def join(self) -> None:
        """Make the group and begin to watch for what other processes do."""
        now = self._bus.clock()
        await self._bus.write(lambda db: self._queue.join(db, now))
        self._watch = connect(self._bus.path, "normal")
        self._renew = now + EPHEMERAL / 3
        self._bus.waiting.setdefault(self.topic, set()).add(self._more)

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        idle, look = loop.time(), True
        while not self._ended:
            if look and (deliveries := await self._take(limit)):
                return deliveries
            now = loop.time()
            if end is not None and now >= end:
                break
            look = await self._wait(_QUICK if now - idle < 1.0 else _SLOW, end)
        return []

    async def _take(self, limit: int) -> list[Delivery]:
        """Up to ``limit`` messages, if there are any now. Cancelling it loses none."""
        self._more.clear()
        self._changed()
        if not self._taken:
            if self._claim is None:
                self._claim = asyncio.ensure_future(self._claim_now(limit))
            claimed = await asyncio.shield(self._claim)
            self._claim = None
            self._taken = claimed.deliveries
            self._next_due = claimed.next_due
            if claimed.again:
                self._more.set()
        if self._ended:
            return []
        deliveries, self._taken = self._taken[:limit], self._taken[limit:]
        self._open.update(dict.fromkeys(deliveries))
        return deliveries

    async def _claim_now(self, limit: int) -> Claimed:
        try:
            now = self._bus.clock()
            if now >= self._renew:
                self._renew = now + EPHEMERAL / 3
                await self._bus.write(lambda db: self._queue.keep(db, now))
            if not await self._bus.read(lambda db: self._queue.pending(db, now)):
                return await self._bus.read(lambda db: self._queue.claim(db, 0, now))
            return await self._bus.write(lambda db: self._queue.claim(db, limit, now))
        except BusError:
            # Receiving does not fail because the bus cannot be used just now; it is tried again at the next look.
            return Claimed([], None, False)

    async def _wait(self, tick: float, end: float | None) -> bool:
        """Wait until there may be something, or for one tick. Whether to look."""
        loop = asyncio.get_running_loop()
        seconds = tick if end is None else max(0.0, min(tick, end - loop.time()))
        now = self._bus.clock()
        if self._next_due is not None:
            seconds = max(0.0, min(seconds, self._next_due - now))
        try:
            async with asyncio.timeout(seconds):
                await self._more.wait()
        except TimeoutError:
            pass
        now = self._bus.clock()
        due = self._next_due is not None and now >= self._next_due
        return self._more.is_set() or due or self._changed() or now >= self._renew

    def _changed(self) -> bool:
        """Whether another connection has committed since the last look. Costs a glance at shared memory."""
        if self._watch is None:
            return False
        try:
            (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return True
        before, self._version = self._version, version
        return bool(before != version)

    def _mine(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """Those not settled yet, and those known to be lost."""
        mine = [delivery for delivery in deliveries if delivery in self._open]
        return mine, [delivery for delivery in deliveries if delivery.handle is None]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        mine, gone = self._mine(deliveries)

        def work(db: sqlite3.Connection) -> list[Delivery]:
            lost = self._queue.lost(db, mine)
            self._queue.ack(db, mine)
            return lost

        lost = await self._bus.write(work) if mine else []
        self._settled(mine, gone + lost)

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        if not isinstance(producer, _SqliteProducer) or producer.bus.path != self._bus.path:
            await super().finish(deliveries, messages, producer)
            return
        producer.check_open()
        producer.bus.check(messages)
        mine, gone = self._mine(deliveries)
        if gone:
            self._settled([], gone)
        now = self._bus.clock()

        def work(db: sqlite3.Connection) -> list[Delivery]:
            db.execute("SAVEPOINT finish")
            if self._queue.ack(db, mine) != len(mine):
                db.execute("ROLLBACK TO finish")
                db.execute("RELEASE finish")
                return self._queue.lost(db, mine)
            publish(db, messages, now)
            db.execute("RELEASE finish")
            return []

        lost = await self._bus.write(work, *{message.topic for message in messages})
        self._settled(lost if lost else mine, lost)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await self._return(deliveries, delay, reason, count=True)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self._return(deliveries, delay, None, count=False)

    async def _return(self, deliveries: Sequence[Delivery], delay: float, reason: str | None, *, count: bool) -> None:
        mine, gone = self._mine(deliveries)
        ready_at = self._bus.clock() + delay

        def work(db: sqlite3.Connection) -> list[Delivery]:
            lost = self._queue.lost(db, mine)
            self._queue.give_back(db, mine, ready_at, reason, count=count)
            return lost

        lost = await self._bus.write(work, self.topic) if mine else []
        self._settled(mine, gone + lost)

    def _settled(self, deliveries: Sequence[Delivery], lost: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._open.pop(delivery, None)
        if lost:
            self._lose(lost)
            ids = ", ".join(delivery.id for delivery in lost[:5])
            raise LeaseLostError(
                f"the lease on {len(lost)} message(s) of topic {self.topic!r} was lost (ids {ids})",
                deliveries=lost,
                topic=self.topic,
            )

    def _lose(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._open.pop(delivery, None)
            delivery.handle = None  # so that it is known as lost for as long as its holder keeps it

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        mine, gone = self._mine(deliveries)
        now = self._bus.clock()
        lost = await self._bus.write(lambda db: self._queue.extend(db, mine, now)) if mine else []
        self._lose(lost)
        return gone + lost

    async def close(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._more.set()
        self._bus.waiting[self.topic].discard(self._more)
        if self._claim is not None:
            self._taken = [*self._taken, *(await self._claim).deliveries]
        back = [*self._open, *self._taken]
        self._open.clear()
        self._taken = []
        now = self._bus.clock()

        def work(db: sqlite3.Connection) -> None:
            if back:
                self._queue.give_back(db, back, now, None, count=False)
            self._queue.leave(db)

        try:
            await self._bus.write(work, self.topic)
        except BusError:
            pass  # closing does not fail; what could not be handed back comes back when its lease ends
        finally:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
