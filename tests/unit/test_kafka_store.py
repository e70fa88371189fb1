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
