"""``memory:NAME``: a bus within one process, shared by every MemoryBus of that name in whatever thread and loop."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Delivery, Depth, Health, Message, Peeked, Producer
from bus.errors import BusURLError, ClosedError, TooLargeError
from bus.memory.broker import Broker, broker
from bus.memory.group import Waiter
from bus.names import check_group, check_topic
from bus.registry import Clock
from bus.units import parse_duration, parse_positive_duration, parse_positive_size
from bus.url import BusURL, option, parse_options

__all__ = ["MemoryBus"]

#: Seconds between two looks at a clock that is not the system's: such a clock may be moved while we wait.
_CLOCK_STEP = 0.02


def _window(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


@dataclass(frozen=True, slots=True)
class _Options:
    lease: float = option(parse_positive_duration, 30.0, "how long a delivery stays with its consumer unless extended")
    max_size: int = option(parse_positive_size, 1024**2, "largest message body")
    dedupe: float = option(_window, 600.0, "how long message ids are remembered; 0 = not at all")


class MemoryBus(Bus):
    """Everything the contract knows, until the process ends.

    What nobody acknowledges stays in memory: a topic without a group keeps all that is published to it.
    """

    schemes = ("memory",)
    capabilities = Capabilities(
        durability=Durability.D0,
        groups=True,
        shared=True,
        retained=True,
        replay=True,
        lease=True,
        publish_delay=float("inf"),
        nack_delay=float("inf"),
        attempts=True,
        history=True,
        order=Order.TOPIC,
        dedupe=600.0,
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
            raise BusURLError(f"memory: takes a name, not a host; write memory:{url.hosts[0] if url.hosts else ''}")
        self._options = parse_options(url, _Options)
        self.capabilities = dataclasses.replace(
            type(self).capabilities, dedupe=self._options.dedupe or None, max_size=self._options.max_size
        )
        self._broker = broker(url.path)
        self._clock = clock
        self._open: set[Producer | Consumer] = set()
        self._closed = False

    async def producer(self) -> Producer:
        self._check_open()
        producer = MemoryProducer(self, self._broker, self._clock, self._options)
        self._open.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_topic(topic)
        if group is not None:
            check_group(group)
        consumer = MemoryConsumer(self, self._broker, topic, group, self._clock, self._options)
        self._open.add(consumer)
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        self._check_open()
        return self._broker.depth(check_topic(topic), check_group(group), self._clock())

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        self._check_open()
        if group is not None:
            check_group(group)
        return self._broker.peek(check_topic(topic), group, limit, self._clock())

    async def topics(self) -> list[str]:
        self._check_open()
        return self._broker.topics()

    async def groups(self, topic: str) -> list[str]:
        self._check_open()
        return self._broker.groups(check_topic(topic))

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "this memory bus is closed")
        return Health(True, f"memory bus {self.url.path!r}, {len(self._broker.topics())} topics")

    async def close(self) -> None:
        self._closed = True
        while self._open:
            await self._open.pop().close()

    def forget(self, closed: Producer | Consumer) -> None:
        """A producer or consumer made here closed itself."""
        self._open.discard(closed)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this memory bus is closed")


class MemoryProducer(Producer):
    """A confirmed publish is one that is stored."""

    def __init__(self, bus: MemoryBus, broker: Broker, clock: Clock, options: _Options) -> None:
        self.broker = broker
        self._bus = bus
        self._clock = clock
        self._options = options
        self._known: set[str] = set()
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        await asyncio.sleep(0)  # a loop of publishes must let the consumers run, as it does on every other bus
        self.check(messages)
        self.broker.publish(messages, self._clock(), self._options.dedupe)

    def check(self, messages: Sequence[Message]) -> None:
        """Raise what makes one of these unpublishable."""
        if self._closed:
            raise ClosedError("this producer is closed")
        limit = self._options.max_size
        for message in messages:
            if message.topic not in self._known:
                self._known.add(check_topic(message.topic))
            if len(message.body) > limit:
                raise TooLargeError(
                    f"{message.topic}: a message of {len(message.body)} bytes is over the limit of {limit}; "
                    "send a reference to the data, or set a larger ?max_size=",
                    topic=message.topic,
                    size=len(message.body),
                    limit=limit,
                )

    async def close(self) -> None:
        self._closed = True
        self._bus.forget(self)


class MemoryConsumer(Consumer):
    """One consumer of a group, or a broadcast."""

    def __init__(
        self, bus: MemoryBus, broker: Broker, topic: str, group: str | None, clock: Clock, options: _Options
    ) -> None:
        self.topic = topic
        self.group = group
        self.lease = options.lease
        self._lease = options.lease
        self._bus = bus
        self._broker = broker
        self._clock = clock
        self._window = options.dedupe
        self._waiter = Waiter()
        self._topic, self._group = broker.join(topic, group, clock())
        self._closed = False

    @property
    def ended(self) -> bool:
        return self._closed

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        await asyncio.sleep(0)  # a loop of receives must let others run even when there is always a message
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not self._closed:
            now = self._clock()
            batch, due = self._broker.take(self._group, limit, now, self._lease, self, self._waiter)
            if batch:
                return batch
            pauses = [due - now] if due != float("inf") else []
            if self._clock is not time.time:
                pauses.append(_CLOCK_STEP)
            if deadline is not None:
                left = deadline - loop.time()
                if left <= 0:
                    break
                pauses.append(left)
            await self._waiter.wait(min(pauses, default=None))
        return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._broker.ack(self._topic, self._group, deliveries)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        self._broker.give_back(self._topic, self._group, deliveries, due=self._due(delay), count=True, reason=reason)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        self._broker.give_back(self._topic, self._group, deliveries, due=self._due(delay), count=False)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self._broker.extend(self._group, deliveries, self._clock() + self._lease)

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        """As :meth:`Consumer.finish`; atomic if ``producer`` is of a memory bus of the same name."""
        if not isinstance(producer, MemoryProducer) or producer.broker is not self._broker:
            await super().finish(deliveries, messages, producer)
            return
        producer.check(messages)
        self._broker.finish(self._topic, self._group, deliveries, messages, self._clock(), self._window)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._broker.leave(self._topic, self._group, self, self._waiter)
            self._bus.forget(self)

    def _due(self, delay: float) -> float:
        return self._clock() + delay if delay > 0 else 0.0
