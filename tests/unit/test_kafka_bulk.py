"""Writing many records: what it makes of librdkafka's silence, of its failures and of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

import bus.kafka.client
from bus import UnconfirmedError, UnreachableError
from bus.kafka.bulk import Bulk
from bus.kafka.records import Plain, Writes


class FakeMessage:
    def topic(self) -> str:
        return "t"


class FakeProducer:
    """Keeps what it is given until the test says what became of it."""

    def __init__(self, given: dict[str, Any]) -> None:
        assert given["delivery.report.only.error"]
        self.under_way: list[Callable[..., None]] = []
        self.purged = False
        self.then: Callable[[FakeProducer], None] = lambda producer: producer.under_way.clear()
        self.polls = 0

    def produce_batch(self, topic: str, messages: list[Any], *, partition: int, on_delivery: Any) -> int:
        self.under_way += [on_delivery] * len(messages)
        return len(messages)

    def __len__(self) -> int:
        return len(self.under_way)

    def poll(self, seconds: float) -> None:
        self.polls += 1
        if self.polls > 3:
            self.then(self)

    def purge(self) -> None:
        self.purged = True
        self.fail(KafkaError(KafkaError._PURGE_QUEUE))

    def fail(self, error: KafkaError) -> None:
        reports, self.under_way = self.under_way, []
        for report in reports:
            report(error, FakeMessage())

    def flush(self, seconds: float) -> None:
        pass


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeProducer]:
    """The producers that were made."""
    found: list[FakeProducer] = []

    def make(given: dict[str, Any]) -> FakeProducer:
        found.append(FakeProducer(given))
        return found[-1]

    monkeypatch.setattr(bus.kafka.client, "Producer", make)
    return found


def writes(count: int = 3) -> Writes:
    return Writes([], [Plain("t", (0,), [b"x"] * count)])


def test_nothing_left_is_success(made: list[FakeProducer]) -> None:
    async def run() -> None:
        bulk = Bulk({}, "here", 5.0)
        await bulk.send(writes(), "writing")
        assert made[0].polls > 3
        await bulk.close()

    asyncio.run(run())


def test_a_failure_is_told(made: list[FakeProducer]) -> None:
    async def run() -> None:
        bulk = Bulk({}, "here", 5.0)
        bulk.start()
        made[0].then = lambda producer: producer.fail(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS))
        with pytest.raises(UnreachableError, match="writing at here"):
            await bulk.send(writes(), "writing")
        await bulk.close()

    asyncio.run(run())


def test_after_a_fatal_error_nothing_counts_as_written(made: list[FakeProducer]) -> None:
    """What is under way is thrown away and told so, and the next call has another producer."""

    def die(producer: FakeProducer) -> None:
        if not producer.purged:
            bulk._fatal = KafkaError(KafkaError._FATAL, "out of sequence")

    bulk: Bulk

    async def run() -> None:
        nonlocal bulk
        bulk = Bulk({}, "here", 5.0)
        bulk.start()
        made[0].then = die
        with pytest.raises(UnconfirmedError):
            await bulk.send(writes(), "writing")
        assert made[0].purged
        await bulk.send(writes(), "writing")
        assert len(made) == 2
        await bulk.close()

    asyncio.run(run())


def test_what_librdkafka_does_not_take(made: list[FakeProducer], monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, and the next one is served."""

    async def run() -> None:
        bulk = Bulk({}, "here", 5.0)
        bulk.start()

        def refuse(*args: Any, **options: Any) -> int:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))

        with monkeypatch.context() as patch:
            patch.setattr(made[0], "produce_batch", refuse)
            with pytest.raises(Exception, match="writing"):
                await bulk.send(writes(), "writing")
        await bulk.send(writes(), "writing")
        await bulk.close()

    asyncio.run(run())


def test_closing_finishes_what_was_asked_for(made: list[FakeProducer]) -> None:
    """Also what waits for others to be confirmed."""

    async def run() -> None:
        bulk = Bulk({}, "here", 5.0)
        first = asyncio.create_task(bulk.send(writes(), "writing"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(bulk.send(writes(), "writing"))
        await asyncio.sleep(0)
        await bulk.close()
        await asyncio.gather(first, second)

    asyncio.run(run())
