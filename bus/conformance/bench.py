"""What every test of the suite stands on: a connected bus, fresh names, and waiting with deadlines."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import pytest

from bus.capabilities import Capabilities
from bus.conformance.target import Target
from bus.contract import Bus, Consumer, Delivery, Message, Producer

__all__ = ["Bench", "bodies", "case", "same"]

Test = Callable[[Any, "Bench"], Awaitable[None]]


def bodies(count: int, start: int = 0) -> list[bytes]:
    """Different bodies which every bus takes."""
    return [b'{"n":%d}' % number for number in range(start, start + count)]


def same(got: Iterable[Delivery | bytes], expected: Iterable[bytes]) -> None:
    """Assert that exactly the expected bodies came, each as often as expected, in whatever order."""
    came = Counter(item if isinstance(item, bytes) else item.body for item in got)
    wanted = Counter(expected)
    lost, extra = wanted - came, came - wanted
    assert not lost, f"{lost.total()} of {wanted.total()} messages are lost: {sorted(lost)[:10]}"
    assert not extra, f"{extra.total()} messages came once too often or were never published: {sorted(extra)[:10]}"


def case(*needs: str, lacks: Sequence[str] = (), delivers: bool = True) -> Callable[[Test], Callable[..., None]]:
    """Make an ``async def test(self, bench)`` a pytest test of the fixture ``target``.

    It is skipped, saying so, unless every capability in ``needs`` is declared and none in ``lacks``. ``delivers`` says
    that the test receives, which a bus that ends before anything is published (:file:`null:`) never lets it.
    """

    def decorate(test: Test) -> Callable[..., None]:
        def run(self: Any, target: Target) -> None:
            bench = Bench(target)
            bench.require(*needs, lacks=lacks, delivers=delivers)
            asyncio.run(_within(target.limit, test, self, bench))

        run.__name__ = test.__name__
        run.__qualname__ = test.__qualname__
        run.__doc__ = test.__doc__
        run.__module__ = test.__module__
        run.capabilities = (*needs, *lacks)  # type: ignore[attr-defined]
        return run

    return decorate


async def _within(limit: float, test: Test, suite: Any, bench: Bench) -> None:
    guard = asyncio.timeout(limit)
    try:
        async with guard, bench.bus:
            try:
                await test(suite, bench)
            finally:
                await bench.close()
    except TimeoutError as error:
        seconds = limit if guard.expired() else bench.target.patience
        raise AssertionError(f"the bus hangs: this should have been done within {seconds:g} s") from error


class Bench:
    """One connection to the bus under test, and the ways to use it that all tests share."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.bus = target.connect()
        self.caps: Capabilities = self.bus.capabilities
        self.topic = self.name()
        self._others: list[Bus] = []
        self._producer: Producer | None = None

    def name(self) -> str:
        """A topic name nobody has used."""
        return f"conformance-{uuid.uuid4().hex}"

    def require(self, *needs: str, lacks: Sequence[str] = (), delivers: bool = True) -> None:
        """Skip unless the capabilities are declared so."""
        for capability in needs:
            if not self.declared(capability):
                pytest.skip(f"capability {capability} is not declared")
        for capability in lacks:
            if self.declared(capability):
                pytest.skip(f"capability {capability} is declared")
        if delivers and not self.delivers:
            pytest.skip("finite without retained is declared: nothing published can ever be received")

    @property
    def delivers(self) -> bool:
        """Whether anything published can be received."""
        return self.caps.retained or not self.caps.finite

    def declared(self, capability: str) -> bool:
        """Whether a capability has a value that promises something."""
        value = getattr(self.caps, capability)
        return bool(value) and getattr(value, "value", value) != "none"

    async def connect(self) -> Bus:
        """One more connection, closed with the bench."""
        other = self.target.connect()
        self._others.append(other)
        await other.open()
        return other

    async def producer(self) -> Producer:
        """The bench's own producer."""
        if self._producer is None:
            self._producer = await self.bus.producer()
        return self._producer

    async def publish(self, *messages: bytes, topic: str | None = None) -> None:
        """Publish these bodies in one call."""
        await (await self.producer()).publish_many([Message(topic or self.topic, body) for body in messages])

    async def consumer(self, group: str | None = "g", topic: str | None = None, bus: Bus | None = None) -> Consumer:
        """A consumer of the bench's topic."""
        return await (bus or self.bus).consumer(topic or self.topic, group)

    async def feed(self, messages: Sequence[bytes], group: str = "g") -> Consumer:
        """Publish, and a consumer that has yet to receive it all, in the order of doing which this bus allows."""
        if self.caps.retained:
            await self.publish(*messages)
            return await self.consumer(group)
        consumer = await self.consumer(group)
        await self.publish(*messages)
        return consumer

    async def take(self, consumer: Consumer, count: int, limit: int = 100) -> list[Delivery]:
        """Receive exactly ``count``, not settled."""
        taken: list[Delivery] = []
        while len(taken) < count:
            asked = min(limit, count - len(taken))
            batch = await consumer.receive(asked, timeout=self.target.patience)
            assert batch, f"{count - len(taken)} of {count} messages did not come within {self.target.patience:g} s"
            assert len(batch) <= asked, f"receive({asked}) returned {len(batch)} messages"
            taken += batch
        return taken

    async def one(self, consumer: Consumer) -> Delivery:
        """Receive one."""
        return (await self.take(consumer, 1))[0]

    async def nothing(self, consumer: Consumer) -> None:
        """Assert that nothing comes."""
        batch = await consumer.receive(10, timeout=self.target.quiet)
        assert not batch, f"nothing should have come, but {batch} did"

    async def drain(self, consumer: Consumer, expected: Sequence[bytes]) -> list[Delivery]:
        """Receive and acknowledge exactly the expected bodies, and nothing after them."""
        taken: list[Delivery] = []
        while len(taken) < len(expected):
            batch = await consumer.receive(500, timeout=self.target.patience)
            if not batch:
                break
            await consumer.ack(batch)
            taken += batch
        taken += await consumer.receive(500, timeout=self.target.quiet)
        same(taken, expected)
        return taken

    async def pass_time(self, consumer: Consumer, seconds: float) -> list[Delivery]:
        """Let time pass, and return what came meanwhile."""
        if self.target.clock:
            self.target.clock.advance(seconds)
            return await consumer.receive(10, timeout=self.target.quiet)
        return await consumer.receive(10, timeout=seconds)

    async def watch(self, consumer: Consumer, seconds: float) -> None:
        """Let time pass, and assert that nothing comes meanwhile."""
        batch = await self.pass_time(consumer, seconds)
        assert not batch, f"nothing should have come within {seconds:g} s, but {batch} did"

    def require_length(self, consumer: Consumer) -> None:
        """Skip unless the lease can end while the consumer's process lives."""
        if consumer.lease is None:
            pytest.skip("lease has no length here: it ends with the consumer's process")

    def expire(self, consumer: Consumer) -> None:
        """See that what ``consumer`` holds comes back: by moving time, or later by patience."""
        self.require_length(consumer)
        assert consumer.lease is not None
        if self.target.clock:
            self.target.clock.advance(consumer.lease + 0.1)

    async def close(self) -> None:
        """Close every connection but the first."""
        for other in self._others:
            await other.close()
