"""Writing records: a few at once here, their reports fetched by a thread, and many by a producer of their own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bus.kafka.bulk import Bulk
from bus.kafka.client import Client, Failure
from bus.kafka.records import Plain, Record, Writes

__all__ = ["Sender"]

#: Seconds between looks at librdkafka while nothing is under way: for events such as a token to be renewed.
_IDLE = 1.0
#: Records that are written in bulk.
_MANY = 100


class _Batch(Failure):
    """The reports of one call."""

    def __init__(self, count: int, over: Callable[[], None]) -> None:
        super().__init__()
        self._left = itertools.count(count - 1, -1)
        self._over = over

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka."""
        self.note(error, message)
        # Atomic, as two threads may fetch reports: that which does, and an event loop that waits for room.
        if not next(self._left):
            self._over()


class Sender(Client):
    """Writes records and returns when every one is confirmed by all replicas in sync."""

    def __init__(self, given: dict[str, Any], where: str, timeout: float) -> None:
        super().__init__(given, where, timeout)
        self._bulk = Bulk(given, where, timeout)
        self._thread: threading.Thread | None = None
        self._under_way = 0
        self._busy = threading.Condition()
        self._ending = False

    def _started(self, producer: Producer) -> None:
        self._ending = False
        self._thread = threading.Thread(target=self._serve, args=(producer,), name="kafka-sender", daemon=True)
        self._thread.start()

    def _serve(self, producer: Producer) -> None:
        while True:
            with self._busy:
                if not self._under_way and not self._ending:
                    self._busy.wait(_IDLE)
                if self._ending and (not self._under_way or self._fatal is not None):
                    return
                idle = not self._under_way and not self._ending
            producer.poll(0 if idle else 0.05)
            if idle:
                self._bulk.poll()

    def warm(self) -> None:
        """Begin to connect: librdkafka takes half a second before the first message."""
        self.start()
        self._bulk.start()

    async def send(self, records: Sequence[Record], doing: str, plain: Sequence[Plain] = ()) -> None:
        """Write these: ``records`` in order, and ``plain`` ones.

        Raises:
            UnconfirmedError, UnreachableError, FullError: some may have been written.
            UnauthorisedError, NoSuchTopicError, UnsupportedError, ClosedError.
        """
        writes = Writes(records, plain)
        if writes.count >= _MANY:
            await self._bulk.send(writes, doing)
        elif writes.count:
            await self._send(writes, doing)

    async def _send(self, writes: Writes, doing: str) -> None:
        producer = self.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def over() -> None:
            with contextlib.suppress(RuntimeError):  # the loop ended before its publish did
                loop.call_soon_threadsafe(_done, future)

        batch = _Batch(writes.count, over)
        with self._busy:
            self._under_way += 1
            self._busy.notify_all()
        try:
            await self._hand_over(producer, writes, batch.report, doing, poll=False)
            await future
        finally:
            # The reports of what was written come although nobody waits for them any more.
            with self._busy:
                self._under_way -= 1
        if batch.error is not None:
            raise self._failed(batch.error, doing, batch.topic)

    async def refresh(self, topic: str) -> None:
        """Let librdkafka look at the topic again: it remembers that one was missing."""
        for client in (self, self._bulk):
            producer = client.start()
            with contextlib.suppress(KafkaException):
                await asyncio.to_thread(producer.list_topics, topic, self._timeout)

    def _stop(self) -> None:
        with self._busy:
            self._ending = True
            self._busy.notify_all()
        if self._thread is not None:
            self._thread.join(self._timeout)
        super()._stop()

    async def close(self) -> None:
        """Finish what is being written and let go. Idempotent."""
        if not self._closed:
            self._closed = True
            await self._bulk.close()
            await asyncio.to_thread(self._stop)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
