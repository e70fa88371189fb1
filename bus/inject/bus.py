"""A bus with faults: every operation goes to the bus within, but for what the injector lets fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, ClassVar, TypeVar

from bus.contract import Bus, Consumer, Delivery, Depth, Health, Message, Peeked, Producer
from bus.errors import BadNameError, UnconfirmedError, UnreachableError
from bus.facts import Fact, Look
from bus.inject.injector import OPERATIONS, Fault, Injector
from bus.names import check_topic

__all__ = ["InjectedBus", "inject"]

_log = logging.getLogger("taskbus.bus")
Returned = TypeVar("Returned")
Item = TypeVar("Item")


def inject(
    bus: Bus,
    *,
    rate: float = 0.05,
    seed: int | None = None,
    wait: float = 0.1,
    operations: Collection[str] = OPERATIONS.keys(),
) -> InjectedBus:
    """``bus`` with faults injected: see :class:`Injector` for the arguments. Raises ValueError as that does.

    What is opened or closed is ``bus`` itself; what was made by it before has no faults.
    """
    return InjectedBus(bus, Injector(rate=rate, seed=seed, wait=wait, operations=operations))


class InjectedBus(Bus):
    """The bus ``inner`` with the faults that ``injector`` draws. URL, schemes and capabilities are those of ``inner``.

    A fault is one the contract allows: a transient error, a confirmation that does not come, a delivery that comes
    again. Closing never fails.
    """

    schemes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inner: Bus, injector: Injector) -> None:
        super().__init__(inner.url)
        self.schemes = inner.schemes  # type: ignore[misc]  # it stands in for that bus, whatever its class is
        self.capabilities = inner.capabilities
        self.inner = inner
        self.injector = injector
        self._told = False

    async def open(self) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "faults are injected into this bus: seed %d",
                self.injector.seed,
                extra={"event": "inject", "bus": str(self.url), "seed": self.injector.seed, "rate": self.injector.rate},
            )
        await self.call("open", self.inner.open)

    async def producer(self) -> Producer:
        return InjectedProducer(self, await self.call("producer", self.inner.producer))

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        return InjectedConsumer(self, await self.call("consumer", lambda: self.inner.consumer(topic, group), topic))

    async def depth(self, topic: str, group: str) -> Depth:
        return await self.call("depth", lambda: self.inner.depth(topic, group), topic)

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        return await self.call("peek", lambda: self.inner.peek(topic, group, limit), topic)

    async def topics(self) -> list[str]:
        return await self.call("topics", self.inner.topics)

    async def groups(self, topic: str) -> list[str]:
        return await self.call("groups", lambda: self.inner.groups(topic), topic)

    async def health(self) -> Health:
        try:
            health = await self.call("health", self.inner.health)
        except (UnreachableError, UnconfirmedError) as error:
            return Health(False, str(error))
        return Health(health.ok, f"{health.detail}; {self.injector}".removeprefix("; "))

    async def diagnose(self, look: Look) -> list[Fact]:
        return await self.inner.diagnose(look)

    async def close(self) -> None:
        if self._told:
            self._told = False
            _log.warning(
                "%s",
                self.injector,
                extra={"event": "injected", "bus": str(self.url), "seed": self.injector.seed, **self.injector.counts()},
            )
        await self.inner.close()

    async def call(self, operation: str, do: Callable[[], Awaitable[Returned]], topic: str | None = None) -> Returned:
        """``do`` it, or not, or do it and say that it may not have been done.

        Raises:
            UnreachableError, UnconfirmedError: injected. Whatever ``do`` raises.
        """
        return await self.do(self.injector.draw(operation), operation, do, topic)

    async def batch(
        self, operation: str, items: Sequence[Item], do: Callable[[Sequence[Item]], Awaitable[None]], topic: str | None
    ) -> None:
        """The same for a batch, of which only the first few may be done."""
        fault = self.injector.draw(operation, len(items))
        if fault is Fault.PARTIAL:
            some = self.injector.part(len(items))
            await do(items[:some])
            raise UnconfirmedError(f"injected fault: {operation} did {some} of {len(items)}, unconfirmed", topic=topic)
        await self.do(fault, operation, lambda: do(items), topic)

    async def do(
        self, fault: Fault | None, operation: str, do: Callable[[], Awaitable[Returned]], topic: str | None
    ) -> Returned:
        if fault is Fault.FAILED:
            raise UnreachableError(f"injected fault: {operation} failed; nothing was done", topic=topic)
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(self.injector.wait)
            # Opening raises what opening a bus that does not answer raises.
            error = UnreachableError if operation in ("open", "producer", "consumer") else UnconfirmedError
            raise error(f"injected fault: {operation} timed out; nothing was done", topic=topic)
        done = await do()
        if fault is Fault.UNKNOWN:
            raise UnconfirmedError(f"injected fault: {operation} was done, unconfirmed", topic=topic)
        return done


class InjectedProducer(Producer):
    """Publishes all, some or nothing, and may say that it does not know."""

    def __init__(self, bus: InjectedBus, inner: Producer) -> None:
        self.bus = bus
        self.inner = inner

    async def publish_many(self, messages: Sequence[Message]) -> None:
        topic = messages[0].topic if messages else None
        if self._refused(messages):
            await self.inner.publish_many(messages)
        await self.bus.batch("publish", messages, self.inner.publish_many, topic)

    def _refused(self, messages: Sequence[Message]) -> bool:
        """Whether all of them are refused for one that is bad, of which no part may be sent then."""
        able = self.bus.capabilities
        try:
            for topic in {message.topic for message in messages}:
                check_topic(topic)
        except BadNameError:
            return True
        return any(
            len(message.body) > (able.max_size or len(message.body)) or message.delay > (able.publish_delay or 0.0)
            for message in messages
        )

    async def close(self) -> None:
        await self.inner.close()


class InjectedConsumer(Consumer):
    """Receives late or twice, and settles all, some or nothing."""

    def __init__(self, bus: InjectedBus, inner: Consumer) -> None:
        self.topic = inner.topic
        self.group = inner.group
        self._bus = bus
        self._inner = inner
        #: Received, and to be lost: the next call yields them if this one is cancelled before they are.
        self._kept: list[Delivery] = []
        #: Finished in one step, which the caller does not know.
        self._finished: set[Delivery] = set()

    # Both may become others when a connection is made again.
    @property
    def lease(self) -> float | None:  # type: ignore[override]
        return self._inner.lease

    @property
    def epoch(self) -> str | None:  # type: ignore[override]
        return self._inner.epoch

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def __getattr__(self, name: str) -> Any:
        """What an adapter's consumer has beyond the contract, such as the size of a file."""
        return getattr(self._inner, name)

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            if self._kept and not self._inner.ended:
                taken, self._kept = self._kept[:limit], self._kept[limit:]
                return taken
            fault = self._bus.injector.draw("receive")
            if fault is Fault.LATE:
                late = self._bus.injector.wait
                await asyncio.sleep(late if deadline is None else max(0.0, min(late, deadline - loop.time())))
            left = None if deadline is None else max(0.0, deadline - loop.time())
            batch = await self._inner.receive(limit, left)
            if fault is not Fault.LOST or not batch:
                return batch
            self._kept = batch
            await self._inner.nack(batch)
            self._kept = []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._bus.batch("ack", deliveries, self._inner.ack, self.topic)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        async def do(some: Sequence[Delivery]) -> None:
            await self._inner.nack(some, delay=delay, reason=reason)

        await self._bus.batch("nack", deliveries, do, self.topic)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        async def do(some: Sequence[Delivery]) -> None:
            await self._inner.release(some, delay=delay)

        await self._bus.batch("release", deliveries, do, self.topic)

    async def terminate(self, deliveries: Sequence[Delivery], *, reason: str) -> None:
        async def do(some: Sequence[Delivery]) -> None:
            await self._inner.terminate(some, reason=reason)

        await self._bus.batch("terminate", deliveries, do, self.topic)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        fault = self._bus.injector.draw("extend")
        if fault is not Fault.LOST:
            return await self._bus.do(fault, "extend", lambda: self._inner.extend(deliveries), self.topic)
        lost = list(deliveries[: self._bus.injector.part(len(deliveries) + 1)]) if deliveries else []
        # They go to whoever asks next, which may be this consumer; the old delivery of them counts no more.
        await self._inner.nack(lost)
        return lost + await self._inner.extend(deliveries[len(lost) :])

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        """Atomic where the bus within is, and then done once, however often called; else two steps with own faults."""
        if not (
            self._bus.capabilities.atomic_finish
            and isinstance(producer, InjectedProducer)
            and producer.bus is self._bus
        ):
            await super().finish(deliveries, messages, producer)
            return
        if deliveries and self._finished.issuperset(deliveries):
            # The transaction of a server would find them gone; the bus within only knows that they are settled.
            self._finished.difference_update(deliveries)
            return
        within, fault = producer.inner, self._bus.injector.draw("finish")
        await self._bus.do(fault, "finish", lambda: self._finish(fault, deliveries, messages, within), self.topic)

    async def _finish(
        self, fault: Fault | None, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer
    ) -> None:
        await self._inner.finish(deliveries, messages, producer)
        if fault is Fault.UNKNOWN:
            self._finished.update(deliveries)

    async def close(self) -> None:
        await self._inner.close()
