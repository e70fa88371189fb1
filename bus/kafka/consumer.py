"""Receiving and settling, on the event loop; the work is done by the thread of a :class:`Reader`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

from confluent_kafka import TopicPartition

from bus.contract import Consumer, Delivery
from bus.errors import BusError, LeaseLostError, UnconfirmedError
from bus.kafka.copies import Origin, write_origin
from bus.kafka.names import retry_topic
from bus.kafka.options import KafkaOptions
from bus.kafka.partition import LOST, OUT, READY, SETTLED, SETTLING, Entry, Partition, State, by_partition
from bus.kafka.reader import Reader
from bus.kafka.records import Record
from bus.kafka.sender import Sender

__all__ = ["KafkaConsumer"]

_log = logging.getLogger("taskbus.kafka")
#: Seconds to wait for a first share of the topic. It comes later where a member of the group died just before.
_JOIN = 1.0


class KafkaConsumer(Consumer):
    """See :class:`bus.Consumer`. What it holds stays its own until its process dies or its event loop hangs."""

    def __init__(
        self,
        given: dict[str, Any],
        options: KafkaOptions,
        sender: Sender,
        topic: str,
        group: str | None,
        gone: Callable[[KafkaConsumer], None],
        *,
        epoch: str | None = None,
        starts: Sequence[TopicPartition] | None = None,
    ) -> None:
        self.topic, self.group = topic, group
        self.epoch = epoch
        self._options = options
        self._sender = sender
        self._gone = gone
        self._event = asyncio.Event()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        topics = [topic] if group is None else [topic, retry_topic(topic, group)]
        self._reader = Reader(given, options, topics, starts=starts, wake=self._event.set, roll=self._roll)

    async def join(self) -> None:
        """Join the group. Raises what the servers refuse it for."""
        self._reader.start()
        loop = asyncio.get_running_loop()
        until = loop.time() + _JOIN
        while not self._reader.joined and self._reader.failed is None and loop.time() < until:
            await self._wait(until - loop.time())
        if self._reader.failed is not None:
            await self.close()
            raise self._reader.failed

    @property
    def ended(self) -> bool:
        return self._closed

    @property
    def trouble(self) -> str:
        """What the client library said last, if that is not over."""
        trouble = self._reader.failed or self._reader.trouble.error
        return str(trouble) if isinstance(trouble, BusError) else trouble.str() if trouble is not None else ""

    async def _wait(self, seconds: float | None) -> None:
        self._event.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        ends = None if timeout is None else loop.time() + timeout
        reader = self._reader
        try:
            while not self._closed:
                self._event.clear()
                if taken := reader.take(limit):
                    return list[Delivery](taken)
                if reader.failed is not None:
                    raise reader.failed
                left = None if ends is None else ends - loop.time()
                if left is not None and left <= 0:
                    return []
                reader.want(limit)
                if not self._event.is_set():
                    await self._wait_set(left)
            return []
        finally:
            reader.want(0)

    async def _wait_set(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        parts = by_partition(cast("Sequence[Entry]", deliveries))
        with self._reader.lock:
            self._settle(parts, OUT)
            confirmed = self._reader.confirmation(parts)
        await self._confirmed(confirmed, parts)

    def _settle(self, parts: Mapping[Partition, Sequence[Entry]], state: State) -> None:
        """Those of these that are in ``state`` are done with. With the lock held."""
        changed = []
        for part, entries in parts.items():
            ours = [entry for entry in entries if entry.state is state]
            if part.lost:
                for entry in ours:
                    entry.state = LOST
            elif ours:
                part.settle(ours)
                changed.append(part)
        if changed:
            self._reader.changed(changed)

    async def _confirmed(self, future: asyncio.Future[None], parts: Mapping[Partition, Sequence[Entry]]) -> None:
        try:
            async with asyncio.timeout(self._options.timeout):
                await future
        except TimeoutError:
            text = f"{self.topic}: Kafka did not confirm a commit within {self._options.timeout:g} s"
            raise UnconfirmedError(text, topic=self.topic) from None
        finally:
            if not future.done() or future.cancelled():
                self._reader.forget(future)
        lost: list[Delivery] = []
        for part, entries in parts.items():
            if part.lost and not self._closed:
                for entry in entries:
                    if entry.state is SETTLED and part.confirmed < entry.version:
                        entry.state = LOST
            lost += dict.fromkeys([entry for entry in entries if entry.state is LOST])
        if lost:
            text = f"{self.topic}: {len(lost)} messages went to another consumer before they were settled"
            raise LeaseLostError(text, deliveries=lost, topic=self.topic)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        reasons = () if reason is None else (reason,)
        await self._give_back(deliveries, delay, attempts=0, reasons=reasons)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        if delay > 0:
            await self._give_back(deliveries, delay, attempts=-1, reasons=())
            return
        parts = by_partition(cast("Sequence[Entry]", deliveries))
        with self._reader.lock:
            for entry in chain.from_iterable(parts.values()):
                if entry.state is OUT and self.group is not None:
                    if entry.partition.lost:
                        entry.state = LOST
                    else:
                        self._reader.put_back(entry)
            confirmed = self._reader.confirmation(parts)
        await self._confirmed(confirmed, parts)

    async def _give_back(
        self, deliveries: Sequence[Delivery], delay: float, *, attempts: int, reasons: tuple[str, ...]
    ) -> None:
        entries = list(dict.fromkeys(cast("Sequence[Entry]", deliveries)))
        due = time.time() + delay if delay > 0 else 0.0
        parts = by_partition(entries)
        with self._reader.lock:
            ours = [entry for entry in entries if entry.state is OUT and not entry.partition.lost]
            for entry in ours:
                entry.state = SETTLING
        await self._copy(
            ours,
            [Origin(entry.origin.id, entry.attempt + attempts, due, entry.origin.history + reasons) for entry in ours],
        )
        with self._reader.lock:
            confirmed = self._reader.confirmation(parts)
        await self._confirmed(confirmed, parts)

    async def _copy(self, entries: Sequence[Entry], origins: Sequence[Origin]) -> None:
        """Write these anew, and settle them when that is confirmed."""
        if self.group is not None:
            name = retry_topic(self.topic, self.group)
            records = [
                Record(name, entry.body, entry.raw_key, write_origin(origin))
                for entry, origin in zip(entries, origins, strict=True)
            ]
            sent = False
            try:
                await self._sender.send(records, f"giving back messages of {self.topic}")
                sent = True
            finally:
                if not sent:
                    with self._reader.lock:
                        for entry in entries:
                            if entry.state is SETTLING:
                                entry.state = OUT
        with self._reader.lock:
            self._settle(by_partition(entries), SETTLING)

    def _roll(self, entries: list[Entry]) -> None:
        task = asyncio.get_running_loop().create_task(self._roll_on(entries))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _roll_on(self, entries: list[Entry]) -> None:
        try:
            await self._copy(entries, [entry.origin for entry in entries])
        except BusError as error:
            _log.warning("%s: delayed messages cannot be written anew: %s", self.topic, error)
        finally:
            with self._reader.lock:
                for entry in entries:
                    if entry.state is OUT:
                        entry.state = READY
            self._reader.rolled()

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        with self._reader.lock:
            return [
                delivery
                for delivery in cast("Sequence[Entry]", deliveries)
                if delivery.state is LOST or (delivery.state is OUT and delivery.partition.lost)
            ]

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._closed = True
        self._event.set()
        for task in list(self._tasks):
            task.cancel()
            await asyncio.wait({task})
        self._reader.stop()
        if not await asyncio.to_thread(self._reader.wait, self._options.timeout + 5.0):
            _log.warning("%s: Kafka does not answer; what was held comes back when the session ends", self.topic)
        self._gone(self)
