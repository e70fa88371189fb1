"""Memory buses that are not quite: the base of the lesser and of the broken ones."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any, ClassVar

from bus.capabilities import Durability
from bus.conformance import ManualClock, Target
from bus.contract import Consumer, Producer
from bus.memory.bus import MemoryBus, MemoryConsumer, MemoryProducer
from bus.registry import Clock
from bus.url import BusURL, parse_url

__all__ = ["Variant", "target_of"]


class Variant(MemoryBus):
    """A memory bus whose consumers, producers and declaration a subclass replaces."""

    consumers: ClassVar[type[MemoryConsumer]] = MemoryConsumer
    producers: ClassVar[type[MemoryProducer]] = MemoryProducer
    #: What is declared differently from the memory bus.
    declares: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str | BusURL, *, clock: Clock) -> None:
        super().__init__(parse_url(url) if isinstance(url, str) else url, clock=clock)
        self.capabilities = dataclasses.replace(self.capabilities, **self.declares)

    async def producer(self) -> Producer:
        await (await super().producer()).close()
        producer = self.producers(self, self._broker, self._clock, self._options)
        self._open.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        await (await super().consumer(topic, group)).close()
        consumer = self.consumers(self, self._broker, topic, group, self._clock, self._options)
        self._open.add(consumer)
        return consumer


def target_of(bus: Any, options: str = "", **settings: Any) -> Target:
    """A target for a variant, with little patience: what does not come at once never will."""
    made: dict[str, Any] = {
        "url": f"memory:{uuid.uuid4()}{options}",
        "durability": Durability.D0,
        "clock": ManualClock(),
        "make": bus,
        "patience": 0.3,
        "quiet": 0.05,
        "limit": 30.0,
    }
    return Target(**{**made, **settings})
