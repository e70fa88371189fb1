"""Buses that honestly do less than the memory bus they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bus.capabilities import Order
from bus.contract import Bus, Consumer, Delivery, Depth, Message, Peeked, Producer
from bus.errors import UnsupportedError
from bus.memory.bus import MemoryConsumer, MemoryProducer
from tests.conformance.variants import Variant

__all__ = ["ModestBus", "SolitaryBus"]

_CEILING = 100.0
_LONGEST = 120.0


class _ModestProducer(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        if any(message.delay > 0 for message in messages):
            raise UnsupportedError("no delay")
        await super().publish_many([message._replace(id=None) for message in messages])


class _ModestConsumer(MemoryConsumer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._since: dict[Delivery, float] = {}

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        batch = await super().receive(limit, timeout)
        for delivery in batch:
            delivery.attempt = 1
            self._since[delivery] = self._clock()
        return batch

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await super().nack(deliveries)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await super().release(deliveries)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        lost: list[Delivery] = []
        for delivery in deliveries:
            expires = min(self._clock() + self._lease, self._since[delivery] + _CEILING)
            lost += self._broker.extend(self._group, [delivery], expires)
        return lost

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        await Consumer.finish(self, deliveries, messages, producer)


class ModestBus(Variant):
    """Groups, sharing, and leases with a ceiling, as many brokers have them, and nothing else."""

    consumers = _ModestConsumer
    producers = _ModestProducer
    declares: ClassVar[dict[str, Any]] = {
        "lease_ceiling": _CEILING,
        "order": Order.NONE,
        "dedupe": None,
        "publish_delay": None,
        "nack_delay": None,
        **dict.fromkeys(
            [
                "depth",
                "depth_tells_delayed",
                "retained",
                "replay",
                "attempts",
                "history",
                "atomic_finish",
                "broadcast",
                "peek",
                "topics",
            ],
            False,
        ),
    }

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        if group is None:
            raise UnsupportedError("no broadcast")
        known = group in self._broker.groups(topic)
        consumer = await super().consumer(topic, group)
        if not known:
            await consumer.ack(await consumer.receive(1_000_000, timeout=0.0))
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        return await Bus.depth(self, topic, group)

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        return await Bus.peek(self, topic, group, limit)

    async def topics(self) -> list[str]:
        return await Bus.topics(self)

    async def groups(self, topic: str) -> list[str]:
        return await Bus.groups(self, topic)


class _SolitaryProducer(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        if any(message.delay > _LONGEST for message in messages):
            raise UnsupportedError(f"no delay over {_LONGEST:g} s")
        await super().publish_many(messages)


class _SolitaryConsumer(MemoryConsumer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lease = None
        self._lease = 1e9


class SolitaryBus(Variant):
    """One consumer of one group at a time and no leases, but delays to a limit and everything to look at."""

    consumers = _SolitaryConsumer
    producers = _SolitaryProducer
    declares: ClassVar[dict[str, Any]] = {
        "groups": False,
        "shared": False,
        "lease": False,
        "broadcast": False,
        "replay": False,
        "order": Order.KEY,
        "publish_delay": _LONGEST,
        "nack_delay": 90.0,
    }

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        if group is None:
            raise UnsupportedError("no broadcast", topic=topic)
        open_now = any(isinstance(each, Consumer) and each.topic == topic for each in self._open)
        if open_now or set(self._broker.groups(topic)) - {group}:
            raise UnsupportedError("there is a consumer already", topic=topic)
        return await super().consumer(topic, group)
