"""One librdkafka producer, idempotent, that is made when it is first needed and anew after a fatal error."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bus.errors import BusError, ClosedError, UnconfirmedError
from bus.kafka.records import Report, Writes
from bus.kafka.trouble import mapped

__all__ = ["Client", "Failure"]

_log = logging.getLogger("taskbus.kafka")
#: Seconds to wait when librdkafka's queue is full.
_FULL = 0.005


class Failure:
    """The first failure among the messages of one call."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None
        self.topic: str | None = None

    def note(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka with what became of a message."""
        if error is not None and self.error is None:
            self.error, self.topic = error, message.topic()


class Client:
    """Writes with confirmation by all replicas in sync. ``given`` is for librdkafka."""

    def __init__(self, given: dict[str, Any], where: str, timeout: float) -> None:
        self._given = {
            "acks": "all",
            "enable.idempotence": True,
            # With more, librdkafka may take the second for a confirmation of the first (docs/decisions/0017).
            "max.in.flight.requests.per.connection": 1,
            # Any more keeps a lone message for a millisecond, and many fill a request without.
            "linger.ms": 0,
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
        self._fatal: KafkaError | None = None
        self._closed = False

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error

    def start(self) -> Producer:
        """The producer; it begins to connect when it is made. Raises ClosedError, BusURLError."""
        if self._closed:
            raise ClosedError("the kafka bus is closed")
        if self._producer is not None and self._fatal is not None:
            _log.warning("kafka at %s: the producer begins anew: %s", self._where, self._fatal.str())
            self._stop()
        if self._producer is None:
            self._fatal = None
            try:
                self._producer = Producer(self._given)
            except (KafkaException, ValueError) as error:
                raise mapped(error, f"kafka at {self._where}") from error
            self._started(self._producer)
        return self._producer

    def _started(self, producer: Producer) -> None:
        """A producer was just made."""

    async def _hand_over(self, producer: Producer, writes: Writes, report: Report, doing: str, *, poll: bool) -> None:
        """Give these to librdkafka, and with ``poll`` fetch reports meanwhile.

        Raises:
            UnconfirmedError: there was no room for them.
            BusError: librdkafka refused one.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        try:
            for call in writes.calls(producer, report):
                while not call():
                    if loop.time() > until:
                        raise UnconfirmedError(f"{doing}: kafka at {self._where} takes no more")
                    await asyncio.sleep(_FULL)
                    producer.poll(0)
                if poll:
                    producer.poll(0)
                await asyncio.sleep(0)
        except KafkaException as error:
            raise mapped(error, doing) from error

    def _failed(self, error: KafkaError, doing: str, topic: str | None) -> BusError:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = self._fatal or error
            return UnconfirmedError(f"{doing}: {error.str()}; try again", topic=topic)
        return mapped(error, f"{doing} at {self._where}", topic)

    def _stop(self) -> None:
        """Let go of the producer. Blocks for a moment."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0.1)
