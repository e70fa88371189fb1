"""Memory buses with one fault each: what the suite must not let pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from bus.contract import Consumer, Delivery, Depth, Message, Peeked, Producer
from bus.errors import LeaseLostError
from bus.memory.bus import MemoryConsumer, MemoryProducer
from tests.conformance.variants import Variant


class LosesOnNack(MemoryConsumer):
    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await self.ack(deliveries)


class LosesOnRelease(MemoryConsumer):
    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self.ack(deliveries)


class LosesOnClose(MemoryConsumer):
    async def close(self) -> None:
        await self.ack(self._group.of(self))
        await super().close()


class CountsOnClose(MemoryConsumer):
    async def close(self) -> None:
        await self.nack(self._group.of(self))
        await super().close()


class KeepsOnClose(MemoryConsumer):
    """Lets go without handing back: others wait for the lease."""

    async def close(self) -> None:
        self._closed = True
        self._waiter.wake()


class DeafToClose(MemoryConsumer):
    """A blocked receive does not notice that the consumer was closed."""

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        while True:
            batch = await super().receive(limit, timeout)
            if batch or timeout is not None:
                return batch
            await asyncio.Event().wait()


class AcksOnReceive(MemoryConsumer):
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        batch = await super().receive(limit, timeout)
        await self.ack(batch)
        return batch


class AcksNothing(MemoryConsumer):
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self.release(deliveries)


class AcksUpTo(MemoryConsumer):
    """Commits an offset, as a careless Kafka adapter does: everything older counts as done."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        newest = max(int(delivery.id) for delivery in deliveries)
        await super().ack([delivery for delivery in self._group.of(self) if int(delivery.id) <= newest])


class LastSettlementWins(MemoryConsumer):
    """Acknowledges what was handed back already."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await super().ack(deliveries)
        ids = {delivery.id for delivery in deliveries}
        waiting = await super().receive(1000, timeout=0.0)
        await super().ack([delivery for delivery in waiting if delivery.id in ids])
        await super().release([delivery for delivery in waiting if delivery.id not in ids])


class IgnoresNackDelay(MemoryConsumer):
    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await super().nack(deliveries, reason=reason)


class IgnoresReleaseDelay(MemoryConsumer):
    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await super().release(deliveries)


class HalvesDelays(MemoryConsumer):
    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await super().nack(deliveries, delay=delay / 2, reason=reason)


class ForgetsReasons(MemoryConsumer):
    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await super().nack(deliveries, delay=delay)


class AlwaysFirstAttempt(MemoryConsumer):
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        batch = await super().receive(limit, timeout)
        for delivery in batch:
            delivery.attempt = 1
        return batch


class CountsFromZero(MemoryConsumer):
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        batch = await super().receive(limit, timeout)
        for delivery in batch:
            delivery.attempt -= 1
        return batch


class CountsReleases(MemoryConsumer):
    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await super().nack(deliveries, delay=delay)


class NackUncounted(MemoryConsumer):
    """Counts crashes only."""

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await super().release(deliveries, delay=delay)


class NewIdEachTime(MemoryConsumer):
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        batch = await super().receive(limit, timeout)
        for delivery in batch:
            delivery.id += f"-{delivery.attempt}"
        return batch


class Greedy(MemoryConsumer):
    """Takes more from the bus than it was asked for, and keeps that for later."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._kept: list[Delivery] = []

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        if not self._kept:
            self._kept = await super().receive(limit + 5, timeout)
        batch, self._kept = self._kept[:limit], self._kept[limit:]
        return batch


class Generous(MemoryConsumer):
    """Returns more than it was asked for."""

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        return await super().receive(limit + 1, timeout)


class Impatient(MemoryConsumer):
    """Says after a while that there is nothing, where nobody set a timeout."""

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        return await super().receive(limit, 0.01)


class LosesWhenCancelled(MemoryConsumer):
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        batch = await super().receive(limit, timeout)
        await asyncio.sleep(0.002)
        return batch


class EndsWhenIdle(MemoryConsumer):
    @property
    def ended(self) -> bool:
        return self._closed or not (self._group.fresh or self._group.held)


class NeverExtends(MemoryConsumer):
    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return []


class SilentAboutLoss(MemoryConsumer):
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await super().ack(deliveries)
        except LeaseLostError:
            return


class StealsBack(MemoryConsumer):
    """A late ack is accepted although another consumer has the message, as JetStream's server does."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        current = [d.handle.delivery if d.handle is not None else d for d in deliveries]
        await super().ack(current)


class LosesTheRestOfTheBatch(MemoryConsumer):
    """Gives up at the first lost lease."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        lost = self._group.lost(deliveries)
        if lost:
            raise LeaseLostError("lost", deliveries=lost)
        await super().ack(deliveries)


class LeaseForEver(MemoryConsumer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lease = 1e9


class LeaseTooShort(MemoryConsumer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lease /= 4


class AcksBeforePublishing(MemoryConsumer):
    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        await self.ack(deliveries)
        await producer.publish_many(messages)


class PublishesBeforeAcking(MemoryConsumer):
    """Not atomic, though the memory bus declares it."""

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        await Consumer.finish(self, deliveries, messages, producer)


class FinishForgetsToAck(MemoryConsumer):
    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        await producer.publish_many(messages)


class LastFirst(MemoryConsumer):
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        self._group.fresh.reverse()
        batch = await super().receive(limit, timeout)
        self._group.fresh.reverse()
        return batch


class LeavesATaskRunning(MemoryConsumer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._task = asyncio.create_task(asyncio.Event().wait())


class LosesEveryHundredth(MemoryProducer):
    count = 0

    async def publish_many(self, messages: Sequence[Message]) -> None:
        kept = []
        for message in messages:
            LosesEveryHundredth.count += 1
            if LosesEveryHundredth.count % 100:
                kept.append(message)
        await super().publish_many(kept)


class PublishesTwice(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        await super().publish_many(messages)
        await super().publish_many(messages[-1:])


class SendsUntilTheBadOne(MemoryProducer):
    """Sends the messages before the one that is refused."""

    async def publish_many(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await super().publish_many([message])


class StripsBodies(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        await super().publish_many([message._replace(body=message.body.strip()) for message in messages])


class IgnoresPublishDelay(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        await super().publish_many([message._replace(delay=0.0) for message in messages])


class DelaysEverything(MemoryProducer):
    """One delayed message holds up those behind it."""

    async def publish_many(self, messages: Sequence[Message]) -> None:
        delayed = any(stored.due for topic in self.broker._topics.values() for stored in topic.stored.values())
        await super().publish_many([m._replace(delay=m.delay or (50.0 if delayed else 0.0)) for m in messages])


class IgnoresIds(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        await super().publish_many([message._replace(id=None) for message in messages])


class RemembersIdsForEver(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        self.check(messages)
        self.broker.publish(messages, self._clock(), 1e9)


class TakesAnyName(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        self._known.update(message.topic for message in messages)
        await super().publish_many(messages)


class PublishesAfterClose(MemoryProducer):
    async def close(self) -> None:
        pass


class LeaksLibraryErrors(MemoryProducer):
    async def publish_many(self, messages: Sequence[Message]) -> None:
        if any(len(message.body) > self._options.max_size for message in messages):
            raise OSError(90, "Message too long")
        await super().publish_many(messages)


class OneGroup(Variant):
    """Every group is the same."""

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        return await super().consumer(topic, group and "g" + group[:0])


class OneTopic(Variant):
    """Topics whose names begin alike are the same."""

    async def producer(self) -> Producer:
        producer = await super().producer()
        publish = producer.publish_many

        async def publish_many(messages: Sequence[Message]) -> None:
            await publish([m._replace(topic=m.topic[:12] if m.topic.startswith("conf") else m.topic) for m in messages])

        setattr(producer, "publish_many", publish_many)  # noqa: B010 - mypy refuses the assignment
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        return await super().consumer(topic[:12] if topic.startswith("conf") else topic, group)


class PrivateGroups(Variant):
    """Consumers of one group each get everything."""

    made = 0

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        PrivateGroups.made += 1
        return await super().consumer(topic, f"g{PrivateGroups.made}" if group == "g" else group)


class BroadcastIsAGroup(Variant):
    """Broadcast consumers share."""

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        return await super().consumer(topic, group or "broadcast")


class CloseForgetsConsumers(Variant):
    async def close(self) -> None:
        self._closed = True


class DepthTakesTheDelayedForHeld(Variant):
    """Cannot tell a delayed message from one that somebody holds."""

    async def depth(self, topic: str, group: str) -> Depth:
        seen = await super().depth(topic, group)
        return Depth(seen.ready, 0, seen.in_flight + seen.delayed)


class DepthOfReadyOnly(Variant):
    async def depth(self, topic: str, group: str) -> Depth:
        return Depth((await super().depth(topic, group)).ready)


class DepthMakesAGroup(Variant):
    async def depth(self, topic: str, group: str) -> Depth:
        self._broker.join(topic, group, self._clock())
        return await super().depth(topic, group)


class PeekReceives(Variant):
    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        consumer = await self.consumer(topic, group or "g")
        batch = await consumer.receive(limit, timeout=0.0)
        await consumer.nack(batch)
        return [Peeked(delivery.id, delivery.body, "ready", 0) for delivery in batch]


class TopicsUnsorted(Variant):
    async def topics(self) -> list[str]:
        return (await super().topics())[::-1]


class GroupsForgotten(Variant):
    async def groups(self, topic: str) -> list[str]:
        return (await super().groups(topic))[:1]


class RefusesSecondClose(Variant):
    async def close(self) -> None:
        if self._closed:
            raise RuntimeError("closed twice")
        await super().close()
