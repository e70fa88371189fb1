"""``null:`` swallows what is published and has nothing to receive: for measuring and for dry runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bus.capabilities import Capabilities, Durability
from bus.contract import Bus, Consumer, Delivery, Message, Producer
from bus.errors import ClosedError
from bus.names import check_group, check_topic
from bus.registry import Clock
from bus.url import BusURL, parse_options

__all__ = ["NullBus"]


@dataclass(frozen=True, slots=True)
class _Options:
    pass


class NullBus(Bus):
    """Publishing is confirmed and forgotten; every topic is an input that has already ended."""

    schemes = ("null",)
    #: What is never delivered is never delivered too early: any delay is kept.
    capabilities = Capabilities(durability=Durability.D0, finite=True, publish_delay=float("inf"))

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        parse_options(url, _Options)
        self._closed = False

    async def producer(self) -> Producer:
        self._check_open()
        return _NullProducer()

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        self._check_open()
        check_topic(topic)
        if group is None:
            raise self._unsupported("broadcast")
        return _NullConsumer(topic, check_group(group))

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the null bus is closed")


class _NullProducer(Producer):
    def __init__(self) -> None:
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")
        for message in messages:
            check_topic(message.topic)

    async def close(self) -> None:
        self._closed = True


class _NullConsumer(Consumer):
    def __init__(self, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group

    @property
    def ended(self) -> bool:
        return True

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        pass

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        pass

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        pass

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return []

    async def close(self) -> None:
        pass
