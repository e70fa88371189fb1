"""What is written to Kafka, and how it is handed to librdkafka."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

__all__ = ["Plain", "Record", "Report", "Writes"]

#: Records handed to librdkafka before the event loop may do something else.
_CHUNK = 1000
#: The partition that librdkafka chooses.
_ANY = -1
#: A partition, and messages for it as librdkafka's client takes them.
_Run = tuple[int, list[dict[str, Any]]]
#: Called by librdkafka with what became of one message.
Report = Callable[[KafkaError | None, Message], None]


class Record(NamedTuple):
    """What is written to a topic of Kafka."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: list[tuple[str, str | bytes | None]] | None = None


class Plain(NamedTuple):
    """Bodies without key and headers, to be divided evenly among ``partitions``; left to librdkafka if these are none.

    Those of one partition are handed over together: to choose one for each costs as much as the rest.
    """

    topic: str
    partitions: Sequence[int]
    bodies: Sequence[bytes]


class Writes:
    """``records`` and ``plain`` ones that are written in one call, in order within their partitions."""

    #: Where the next message without a key goes. Others do not begin where we do.
    _turn = random.randrange(1 << 16)

    def __init__(self, records: Sequence[Record], plain: Sequence[Plain]) -> None:
        self.count = len(records) + sum([len(each.bodies) for each in plain])
        self._records = records
        self._plain = [each for each in plain if each.bodies]

    def calls(self, producer: Producer, report: Report) -> Iterator[Callable[[], bool]]:
        """What hands these over, in order: each to be called until it says that librdkafka has taken all it gave.

        Each may raise KafkaException.
        """
        records = self._records
        for start in range(0, len(records), _CHUNK):
            yield partial(_produce, producer, list(records[start : start + _CHUNK]), report)
        for topic, partitions, bodies in self._plain:
            for runs in self._portions(bodies, partitions):
                yield partial(_produce_runs, producer, topic, runs, report)

    @classmethod
    def _portions(cls, bodies: Sequence[bytes], partitions: Sequence[int]) -> Iterator[list[_Run]]:
        """As many to each partition, beginning with the one whose turn it is. Each is to be used before the next."""
        partitions = partitions or (_ANY,)
        # As many at a time as can be, for each time costs a system call.
        rounds = -(-len(bodies) // (_CHUNK * len(partitions)))
        size = -(-len(bodies) // (rounds * len(partitions)))
        portion = _CHUNK // size * size
        # The same ones again and again: were they made anew, Python would look for cycles among all there is to send.
        messages: list[dict[str, Any]] = [{} for _ in bodies[:portion]]
        for start in range(0, len(bodies), portion):
            part = bodies[start : start + portion]
            for message, body in zip(messages, part, strict=False):
                message["value"] = body
            runs: list[_Run] = []
            for at in range(0, len(part), size):
                runs.append((partitions[cls._turn % len(partitions)], messages[at : min(at + size, len(part))]))
                cls._turn += 1
            yield runs


def _produce(producer: Producer, records: list[Record], report: Report) -> bool:
    """One by one, in order. What was not taken is left in ``records``."""
    for number, (topic, value, key, headers) in enumerate(records):
        try:
            producer.produce(topic, value, key, on_delivery=report, headers=headers)
        except BufferError:
            del records[:number]
            return False
    return True


def _produce_runs(producer: Producer, topic: str, runs: list[_Run], report: Report) -> bool:
    """At half the cost, for messages without key and headers. What was not taken is left in ``runs``."""
    while runs:
        partition, messages = runs[0]
        if producer.produce_batch(topic, messages, partition=partition, on_delivery=report) < len(messages):
            messages[:] = [message for message in messages if "_error" in message]
            for message in messages:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    raise KafkaException(error)
            return False
        del runs[0]
    return True
