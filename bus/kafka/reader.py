"""The thread that owns one librdkafka consumer: it reads ahead, counts deliveries, commits and bears rebalances.

librdkafka's consumer may be used by one thread only. The event loop changes what is written here under a lock, and is
called back once per batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bus.errors import BusError
from bus.kafka.copies import read_origin
from bus.kafka.options import KafkaOptions
from bus.kafka.partition import LOST, OUT, SETTLED, SETTLING, STAGED, Entry, Partition, by_partition
from bus.kafka.progress import LIMIT, WINDOW, Progress
from bus.kafka.pulse import Pulse
from bus.kafka.shelf import Shelf
from bus.kafka.trouble import Trouble, is_fenced, is_refusal, kafka_error, mapped

__all__ = ["Reader"]

_log = logging.getLogger("taskbus.kafka")
#: Messages read ahead, and their bytes; twice as many at most.
_AHEAD = 4000
_BYTES = 32 * 1024**2
_BATCH = 2000
#: Seconds a poll may take while nothing is held: so long may a first settlement or close have to wait.
_POLL = 0.1
#: Seconds between polls while something is held and nothing comes: from, to.
_SHORT, _LONG = 0.001, 0.02
#: Seconds between polls that only keep the membership, with all that is read ahead waiting.
_KEEP = 0.5
#: Seconds between two tries to commit.
_AGAIN = 0.1
Key = tuple[str, int]


class Reader:
    """One member of a group, or with ``starts`` (a broadcast) a reader of all partitions from given offsets on."""

    def __init__(
        self,
        given: dict[str, Any],
        options: KafkaOptions,
        topics: Sequence[str],
        *,
        starts: Sequence[TopicPartition] | None,
        wake: Callable[[], None],
        roll: Callable[[list[Entry]], None],
    ) -> None:
        self._given = given | {"error_cb": self._on_error}
        self._options = options
        self._topics = topics
        self._starts = starts
        self._wake, self._roll = wake, roll
        self._loop = asyncio.get_running_loop()
        self.lock = threading.Condition()
        #: Yielded to nobody yet, and counted as delivered by a confirmed commit.
        self.arrived: deque[Entry] = deque()
        #: The error after which nothing can be received any more.
        self.failed: BusError | None = None
        self.trouble = Trouble()
        self.joined = False
        self._wanted = 0
        self._stirred = False
        self._closing = False
        self._parts: dict[Key, Partition] = {}
        self._dirty: set[Partition] = set()
        self._shelf = Shelf()
        self._staged: list[Entry] = []
        self._waiters: list[tuple[asyncio.Future[None], dict[Partition, int]]] = []
        self._seq = 0
        self._limit = LIMIT
        self._commit_at = 0.0
        self._idle = _SHORT
        #: Where the event loop hangs we do not poll, and the group gives our messages to others.
        self._pulse = Pulse(options.stall)
        self._rolling = False
        self._thread = threading.Thread(target=self._run, name=f"kafka-{topics[0]}", daemon=True)

    # Called on the event loop, most of it with the lock held.

    def start(self) -> None:
        """Join the group."""
        self._thread.start()

    def want(self, limit: int) -> None:
        """Up to ``limit`` messages are asked for."""
        with self.lock:
            self._wanted = limit
            if limit:
                self._stir()

    def _stir(self) -> None:
        self._stirred = True
        self.lock.notify_all()

    def take(self, limit: int) -> list[Entry]:
        """What has arrived, now yielded."""
        with self.lock:
            arrived = self.arrived
            taken: list[Entry] = []
            while arrived and len(taken) < limit:
                entry = arrived.popleft()
                if entry.state is STAGED:
                    entry.state = OUT
                    taken.append(entry)
            return taken

    def changed(self, parts: Collection[Partition]) -> None:
        """Something of these is to be committed. With the lock held."""
        self._dirty.update(parts)
        self._stir()

    def put_back(self, entry: Entry) -> None:
        """Ready again, as if it had not been delivered. With the lock held."""
        again = entry.again()
        entry.partition.take_back(entry, SETTLED)
        self._shelf.put_back(again)
        self.changed((entry.partition,))

    def confirmation(self, parts: Mapping[Partition, Sequence[Entry]]) -> asyncio.Future[None]:
        """Done when what became of these is committed or lost. With the lock held."""
        future: asyncio.Future[None] = self._loop.create_future()
        needed: dict[Partition, int] = {}
        for part, entries in parts.items():
            version = max([entry.version for entry in entries])
            if not part.lost and part.confirmed < version:
                needed[part] = version
        if needed and self._starts is None and not self._closing:
            self._waiters.append((future, needed))
        else:
            future.set_result(None)
        return future

    def forget(self, future: asyncio.Future[None]) -> None:
        """Nobody waits for this any more."""
        with self.lock:
            self._waiters = [waiter for waiter in self._waiters if waiter[0] is not future]

    def rolled(self) -> None:
        """What ``roll`` was called for is done, or failed."""
        with self.lock:
            self._rolling = False

    def stop(self) -> None:
        """End the thread, which hands everything back."""
        with self.lock:
            self._closing = True
            self._stir()

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended. Not on the event loop."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before us
            self._loop.call_soon_threadsafe(self._wake)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self.trouble.error is None:
            self.trouble.met(error)
        if error.fatal() or (is_refusal(error) and not self.joined):
            self._fail(error)

    def _fail(self, error: KafkaError | BaseException) -> None:
        self.failed = mapped(error, f"receiving from {self._topics[0]}", self._topics[0])
        self._tell()

    def _run(self) -> None:
        try:
            consumer = Consumer(self._given)
        except (KafkaException, ValueError) as error:
            self._fail(error)
            return
        try:
            if self._starts is None:
                consumer.subscribe(
                    list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
                )
            else:
                for start in self._starts:
                    self._add(start.topic, start.partition, Progress(start.offset))
                consumer.assign(list(self._starts))
                self._join()
            while not self._closing:
                self._turn(consumer)
        except KafkaException as error:
            self._fail(error)
        except Exception as error:  # a thread's last words must reach whoever waits for it
            _log.exception("reading %s stopped", self._topics[0])
            self._fail(error)
        finally:
            self._leave(consumer)

    def _join(self) -> None:
        if not self.joined:
            self.joined = True
            self._tell()

    def _turn(self, consumer: Consumer) -> None:
        now = time.monotonic()
        with self.lock:
            self._stirred = False
            self._shelf.promote()
            self._stage()
            dirty = bool(self._dirty) and now >= self._commit_at
        if dirty:
            self._commit(consumer)
        alive = self._pulse.beats()
        self._closing = self._closing or self._pulse.ended
        with self.lock:
            full = self._is_full()
            held = bool(self._staged or self.arrived or self._dirty) or any(part.out for part in self._parts.values())
            # Only our own waiting can be interrupted, so librdkafka's is used where nobody could want to.
            ours = held or full or not alive or bool(self._shelf)
            wait = min(_POLL, self._shelf.until_due())
            if full or not alive:
                wait = _KEEP
            elif ours:
                wait = min(wait, self._idle)
            if ours and wait and not self._stirred:
                self.lock.wait(wait)
        if alive:
            self._steer(consumer)
            got = self._read(consumer, 0.0 if ours else wait, 1 if full else _BATCH)
            self._idle = 0.0 if got and not full else min(_LONG, max(_SHORT, self._idle * 2))

    def _is_full(self) -> bool:
        return len(self._shelf) >= _AHEAD or self._shelf.ready_bytes >= _BYTES

    def _stage(self) -> None:
        """Count as delivered what is asked for; it is yielded when that is committed."""
        taken = self._shelf.take(self._wanted - len(self._staged) - len(self.arrived))
        if not taken:
            return
        if self._starts is not None:
            for entry in taken:
                entry.attempt, entry.state = 1, STAGED
            self.arrived.extend(taken)
            self._wanted = 0
            self._tell()
            return
        for part, entries in by_partition(taken).items():
            part.stage(entries)
            self._dirty.add(part)
        self._staged += taken

    def _commit(self, consumer: Consumer) -> bool:
        """Commit what has changed, and tell those who wait for it. False if that failed."""
        with self.lock:
            parts = {part: part.version for part in self._dirty if not part.lost}
            self._dirty.clear()
            offsets = [part.commit(self._limit) for part in parts]
        if not offsets:
            return True
        failed: KafkaError | None = None
        try:
            done = consumer.commit(offsets=offsets, asynchronous=False)
            failures = {(each.topic, each.partition) for each in done if each.error is not None}
            failed = next((each.error for each in done if each.error is not None), None)
        except KafkaException as error:
            failed = kafka_error(error)
            failures = {(part.name, part.number) for part in parts}
        with self.lock:
            for part, version in parts.items():
                if (part.name, part.number) in failures:
                    self._dirty.add(part)
                else:
                    part.confirmed = max(part.confirmed, version)
            if failed is not None:
                self._refused(failed)
            self._hand_over()
        return failed is None

    def _refused(self, error: KafkaError) -> None:
        self._commit_at = time.monotonic() + _AGAIN
        if error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
            self._limit //= 2
            _log.warning(
                "%s: the broker takes no more than %d characters beside an offset (offset.metadata.max.bytes): "
                "tasks settled out of order may be done again after a crash",
                self._topics[0],
                self._limit,
            )
        elif not is_fenced(error):
            self.trouble.met(error)
            _log.warning("%s: a commit failed, trying again: %s", self._topics[0], error.str())

    def _hand_over(self) -> None:
        """Yield what was counted, and answer those who wait. With the lock held."""
        staged, self._staged = self._staged, []
        counted = [entry for entry in staged if entry.state is STAGED and not entry.partition.lost]
        self.arrived.extend(counted)
        self._wanted = max(0, self._wanted - len(counted))
        done = []
        left = []
        for future, needed in self._waiters:
            if all(part.lost or part.confirmed >= version for part, version in needed.items()):
                done.append(future)
            else:
                left.append((future, needed))
        self._waiters = left
        if done:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, done)
        if counted:
            self._tell()

    def _steer(self, consumer: Consumer) -> None:
        """Pause what must not be read further, and resume the rest."""
        with self.lock:
            over = len(self._shelf) >= 2 * _AHEAD or self._shelf.ready_bytes >= 2 * _BYTES
            under = not self._is_full()
            crowded = self._shelf.delayed_bytes >= _BYTES
            stop: list[TopicPartition] = []
            go: list[TopicPartition] = []
            for part in self._parts.values():
                width = part.progress.width if self._starts is None else 0
                if part.paused:
                    if under and width < WINDOW * 3 // 4 and not (part.retry and crowded):
                        part.paused = False
                        go.append(TopicPartition(part.name, part.number))
                elif over or width >= WINDOW - _BATCH or (part.retry and crowded):
                    part.paused = True
                    stop.append(TopicPartition(part.name, part.number))
                if part.retry and part.delayed and not self._rolling:
                    self._roll_on(part)
        if stop:
            consumer.pause(stop)
        if go:
            consumer.resume(go)

    def _roll_on(self, part: Partition) -> None:
        """What is delayed for long and keeps the group's offset back is written anew behind the others."""
        chosen = part.in_the_way()
        for entry in chosen:
            entry.state = SETTLING
        if chosen:
            self._rolling = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._roll, chosen)

    def _read(self, consumer: Consumer, wait: float, most: int) -> bool:
        first = consumer.poll(wait)
        if first is None:
            return False
        messages = [first]
        if most > 1:
            messages += consumer.consume(most - 1, 0.0)
        with self.lock:
            self._sort_in(messages)
        return True

    def _sort_in(self, messages: Sequence[Message]) -> None:
        """Put what was read on the shelf."""
        parts, seq = self._parts, self._seq
        ready: list[Entry] = []
        for message in messages:
            if (error := message.error()) is not None:
                self._event(message, error)
                continue
            name, number, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
            part = parts.get((name, number))
            if part is None or not part.progress.see(offset):
                continue
            seq += 1
            origin = read_origin(message.headers(), f"retry-{number}:{offset}") if part.retry else None
            entry = Entry(part, offset, seq, message.value() or b"", message.key(), origin)
            if origin is None:
                ready.append(entry)
            else:
                self._shelf.add_copy(entry, origin.due, message.timestamp()[1] / 1000)
        if seq > self._seq:
            self.trouble.over()
        self._shelf.add(ready)
        self._seq = seq

    def _event(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            part = self._parts.get((message.topic() or "", message.partition() or 0))
            if part is not None:
                part.progress.skip(message.offset() or 0)
            return
        self.trouble.met(error)
        if error.fatal() or (is_refusal(error) and not self.joined):
            self._fail(error)
        _log.warning("%s: %s", self._topics[0], error.str())

    def _add(self, name: str, number: int, progress: Progress) -> None:
        self._parts[name, number] = Partition(name, number, progress, retry=name != self._topics[0])

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        found = parts
        if parts:
            try:
                found = consumer.committed(parts, timeout=self._options.timeout)
            except KafkaException as error:
                # Without the text beside the offsets some may come again; none is lost.
                _log.warning("%s: cannot read how far the group is: %s", self._topics[0], error)
        with self.lock:
            for part in found:
                base = part.offset if part.offset >= 0 else None
                self._add(part.topic, part.partition, Progress(base, part.metadata))
        consumer.incremental_assign([TopicPartition(part.topic, part.partition, part.offset) for part in found])
        self._join()

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        """Let running tasks of these partitions end, for a while, then commit and give them up."""
        keys = [(part.topic, part.partition) for part in parts]
        until = time.monotonic() + self._options.handover
        with self.lock:
            going = [part for key in keys if (part := self._parts.get(key)) is not None]
            self._withdraw(going)
        while not self._closing:
            self._commit(consumer)
            with self.lock:
                left = until - time.monotonic()
                if left <= 0 or not any(part.out for part in going):
                    break
                self._stirred = False
                if not self._dirty:
                    self.lock.wait(min(left, _KEEP))
        with self.lock:
            for part in going:
                for entry in list(part.out):
                    part.take_back(entry, LOST)
                self._dirty.add(part)
        self._commit(consumer)
        self._drop(keys)
        consumer.incremental_unassign(parts)

    def _withdraw(self, going: list[Partition]) -> None:
        """What nobody has been given yet of these partitions is not given to anybody."""
        for part in going:
            for entry in [each for each in part.out if each.state is STAGED]:
                part.take_back(entry, LOST)
                self._dirty.add(part)
        self._shelf.withdraw(going)

    def _lost(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        """Others have these partitions already: nothing is committed."""
        keys = [(part.topic, part.partition) for part in parts]
        with self.lock:
            self._withdraw([part for key in keys if (part := self._parts.get(key)) is not None])
        _log.warning("%s: the group gave %d partitions of ours to others", self._topics[0], len(parts))
        self._drop(keys)
        consumer.incremental_unassign(parts)

    def _drop(self, keys: list[Key]) -> None:
        with self.lock:
            for key in keys:
                part = self._parts.pop(key, None)
                if part is not None:
                    part.give_up()
                    self._dirty.discard(part)
            self._hand_over()
        self._tell()

    def _leave(self, consumer: Consumer) -> None:
        """Hand everything back and leave the group."""
        try:
            with self.lock:
                self._closing = True
                for part in self._parts.values():
                    for entry in list(part.out):
                        part.take_back(entry, SETTLED)
                        self._dirty.add(part)
                self.arrived.clear()
                self._staged.clear()
            if self._starts is None and self.failed is None:
                self._commit(consumer)
        finally:
            with contextlib.suppress(KafkaException, RuntimeError):
                consumer.close()
            with self.lock:
                for part in self._parts.values():
                    part.lost = True
                self._hand_over()
            self._tell()


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
