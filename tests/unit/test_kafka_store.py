"""What Kafka's servers answer is told apart: what passes, what is missing, what they do not know yet."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

import bus.kafka.store
from bus import NoSuchTopicError, UnreachableError
from bus.kafka.options import KafkaOptions
from bus.kafka.store import Store


def ask() -> None:
    """A question about a topic that the server asked does not know."""
    raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))


def test_a_topic_that_was_made_and_is_not_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worth trying again, and is looked for anew then; one that nobody made is missing."""
    monkeypatch.setattr(bus.kafka.store, "_SETTLING", 0.1)
    store = Store({}, "here", KafkaOptions())
    made: list[list[str]] = []

    def make(names: list[str]) -> dict[str, tuple[int, ...]]:
        made.append(names)
        return dict.fromkeys(names, (0,))

    monkeypatch.setattr(store, "_make", make)

    async def run() -> None:
        with pytest.raises(NoSuchTopicError):
            await store.run(ask, "looking", "other")
        await store.ensure("fresh")
        await store.ensure("fresh")
        with pytest.raises(UnreachableError, match="does not know the topic fresh yet"):
            await store.run(ask, "looking", "fresh")
        await store.ensure("fresh")
        await store.close()

    asyncio.run(run())
    assert made == [["fresh"], ["fresh"]]


class _Topic:
    """What librdkafka tells of a topic."""

    def __init__(self, *leaders: int) -> None:
        self.partitions = {number: _Partition(leader) for number, leader in enumerate(leaders)}


class _Partition:
    def __init__(self, leader: int) -> None:
        self.leader = leader


class _Client:
    """A topic that changes between one look and the next."""

    def __init__(self, *looks: _Topic) -> None:
        self._looks = list(looks)

    def list_topics(self, timeout: float) -> _Client:
        self.topics = {"t": self._looks.pop(0)}
        return self


def test_partitions_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without a leader are left out. After a while it is looked again, and after an error at once."""
    store = Store({}, "here", KafkaOptions())
    client = _Client(_Topic(1, 2), _Topic(1, 2, 1), _Topic(1, -1, 1))
    monkeypatch.setattr(store, "client", lambda: client)

    async def run() -> None:
        assert await store.ensure("t") == (0, 1)
        assert await store.ensure("t") == (0, 1)
        monkeypatch.setattr(bus.kafka.store, "_FRESH", -1.0)
        await store.ensure("t")
        monkeypatch.setattr(bus.kafka.store, "_FRESH", 60.0)
        assert store._looking is not None
        await store._looking
        assert await store.ensure("t") == (0, 1, 2)
        store.forget("t")
        assert await store.ensure("t") == (0, 2)
        await store.close()

    asyncio.run(run())
