"""One librdkafka producer per bus, idempotent; its delivery reports are counted and told once per batch.

A thread waits for the reports of a few messages: so they are known at once. Those of many are fetched on the event
loop, as each would have to wait there for the interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bus.errors import BusError, ClosedError, UnconfirmedError
from bus.kafka.trouble import mapped

__all__ = ["Record", "Sender"]

_log = logging.getLogger("taskbus.kafka")
#: Records handed to librdkafka before the event loop may do something else.
_CHUNK = 1000
#: Seconds between looks at librdkafka while nothing is under way: for events such as a token to be renewed.
_IDLE = 1.0
#: Seconds to wait when librdkafka's queue is full.
_FULL = 0.005
#: Records whose reports are fetched on the event loop, and seconds between two looks for them: from, to.
_MANY = 100
_SOON, _LATER = 0.001, 0.02


#: Bodies of messages without key and headers, by topic.
Plain = Mapping[str, Sequence[bytes]]
_NONE: Plain = MappingProxyType({})
_Report = Callable[[KafkaError | None, Message], None]


class Record(NamedTuple):
    """What is written to a topic of Kafka."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: list[tuple[str, str | bytes | None]] | None = None


class _Batch:
    """The reports of one call."""

    def __init__(self, count: int, over: Callable[[], None]) -> None:
        self._count = count
        #: Atomic, as reports come on two threads.
        self._reported = itertools.count(1)
        self._over = over
        self.over = False
        self.error: KafkaError | None = None
        self.topic: str | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka."""
        if error is not None and self.error is None:
            self.error, self.topic = error, message.topic()
        if next(self._reported) == self._count:
            self.over = True
            self._over()


class Sender:
    """Writes records and returns when every one is confirmed by all replicas in sync."""

    def __init__(self, given: dict[str, Any], where: str, timeout: float) -> None:
        self._given = {
            "acks": "all",
            "enable.idempotence": True,
            # A lone message hardly waits, and of many enough have come to fill a request.
            "linger.ms": 0.3,
            "message.timeout.ms": round(timeout * 1000),
            "partitioner": "murmur2_random",
            "sticky.partitioning.linger.ms": 0,
            "queue.buffering.max.messages": 100_000,
            "error_cb": self._on_error,
            **given,
        }
        self._where = where
        self._timeout = timeout
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        #: Calls under way, and those of them with so few messages that the thread waits for the reports.
        self._under_way = 0
        self._few = 0
        self._busy = threading.Condition()
        self._fatal: KafkaError | None = None
        self._ending = False
        self._closed = False

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error

    def _start(self) -> Producer:
        if self._closed:
            raise ClosedError("the kafka bus is closed")
        if self._producer is not None and self._fatal is not None:
            _log.warning("kafka at %s: the producer begins anew: %s", self._where, self._fatal.str())
            self._stop()
        if self._producer is None:
            self._fatal = None
            self._ending = False
            try:
                self._producer = Producer(self._given)
            except (KafkaException, ValueError) as error:
                raise mapped(error, f"kafka at {self._where}") from error
            self._thread = threading.Thread(
                target=self._serve, args=(self._producer,), name="kafka-sender", daemon=True
            )
            self._thread.start()
        return self._producer

    def _serve(self, producer: Producer) -> None:
        while True:
            with self._busy:
                if not self._few and not self._ending:
                    self._busy.wait(_IDLE)
                if self._ending and (not self._under_way or self._fatal is not None):
                    return
                idle = not self._few and not self._ending
            producer.poll(0 if idle else 0.05)

    def warm(self) -> None:
        """Begin to connect: librdkafka takes half a second before the first message."""
        self._start()

    async def send(self, records: Sequence[Record], doing: str, plain: Plain = _NONE) -> None:
        """Write these in order: ``records``, and ``plain`` ones.

        Raises:
            UnconfirmedError, UnreachableError, FullError: some may have been written.
            UnauthorisedError, NoSuchTopicError, UnsupportedError, ClosedError.
        """
        count = len(records) + sum(map(len, plain.values()))
        if not count:
            return
        producer = self._start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def over() -> None:
            with contextlib.suppress(RuntimeError):  # the loop ended before its publish did
                loop.call_soon_threadsafe(_done, future)

        batch = _Batch(count, over)
        few = count < _MANY
        with self._busy:
            self._under_way += 1
            self._few += few
            self._busy.notify_all()
        try:
            until = loop.time() + self._timeout
            for hand_over in self._calls(producer, records, plain, batch.report):
                while not hand_over():
                    if loop.time() > until:
                        raise UnconfirmedError(f"{doing}: kafka at {self._where} takes no more")
                    await asyncio.sleep(_FULL)
                    producer.poll(0)
                if not few:
                    producer.poll(0)
                await asyncio.sleep(0)
            look = _SOON
            while not few and not batch.over:
                await asyncio.sleep(look)
                producer.poll(0)
                look = min(2 * look, _LATER)
            await future
        except KafkaException as error:
            raise mapped(error, doing) from error
        finally:
            # The reports of what was written come although nobody waits for them any more.
            with self._busy:
                self._under_way -= 1
                self._few -= few
        if batch.error is not None:
            raise self._failed(batch.error, doing, batch.topic)

    @staticmethod
    def _calls(
        producer: Producer, records: Sequence[Record], plain: Plain, report: _Report
    ) -> Iterator[Callable[[], bool]]:
        """What hands these over, in order: each to be called until it says that librdkafka has taken all it gave."""
        for start in range(0, len(records), _CHUNK):
            yield partial(_produce, producer, list(records[start : start + _CHUNK]), report)
        for topic, values in plain.items():
            for start in range(0, len(values), _CHUNK):
                messages = [{"value": body} for body in values[start : start + _CHUNK]]
                yield partial(_produce_batch, producer, topic, messages, report)

    async def refresh(self, topic: str) -> None:
        """Let librdkafka look at the topic again: it remembers that one was missing."""
        producer = self._start()
        with contextlib.suppress(KafkaException):
            await asyncio.to_thread(producer.list_topics, topic, self._timeout)

    def _failed(self, error: KafkaError, doing: str, topic: str | None) -> BusError:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = self._fatal or error
            return UnconfirmedError(f"{doing}: {error.str()}; try again", topic=topic)
        return mapped(error, f"{doing} at {self._where}", topic)

    def _stop(self) -> None:
        producer, self._producer = self._producer, None
        with self._busy:
            self._ending = True
            self._busy.notify_all()
        if self._thread is not None:
            self._thread.join(self._timeout)
        if producer is not None:
            producer.purge()
            producer.flush(0.1)

    async def close(self) -> None:
        """Finish what is being written and let go. Idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._stop)


def _produce(producer: Producer, records: list[Record], report: _Report) -> bool:
    """One by one, in order. What was not taken is left in ``records``."""
    for number, (topic, value, key, headers) in enumerate(records):
        try:
            producer.produce(topic, value, key, on_delivery=report, headers=headers)
        except BufferError:
            del records[:number]
            return False
    return True


def _produce_batch(producer: Producer, topic: str, messages: list[dict[str, Any]], report: _Report) -> bool:
    """At half the cost, for messages without key and headers. What was not taken is left in ``messages``."""
    if producer.produce_batch(topic, messages, on_delivery=report) == len(messages):
        return True
    messages[:] = [message for message in messages if "_error" in message]
    for message in messages:
        error = message.pop("_error")
        if error.code() != KafkaError._QUEUE_FULL:
            raise KafkaException(error)
    return not messages


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
