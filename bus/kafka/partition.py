"""The messages of one partition that are ours for now, and where each of them is."""

from __future__ import annotations

import enum
import time
from itertools import islice

from confluent_kafka import TopicPartition

from bus.contract import Delivery
from bus.kafka.copies import Origin
from bus.kafka.progress import LIMIT, WINDOW, Progress

__all__ = ["LOST", "OUT", "READY", "SETTLED", "SETTLING", "STAGED", "Entry", "Partition", "State"]

#: A delayed message this old, or one in the way of so many others, is written anew so that the group's offset goes on.
_OLD = 86_400.0
_CROWD = WINDOW // 2
_ROLLED = 200


class State(enum.Enum):
    """Where a message is."""

    READY = 0  #: read, and not given to anybody
    STAGED = 1  #: counted as delivered, and about to be yielded
    OUT = 2  #: yielded
    SETTLING = 3  #: a copy of it is being written
    SETTLED = 4
    LOST = 5  #: its partition went to another consumer before it was settled


# Python 3.11 looks a member of an enumeration up so slowly that it shows with tiny tasks.
READY, STAGED, OUT, SETTLING, SETTLED, LOST = State


class Entry:
    """One message. After a release it is replaced by another, so that the old delivery settles nothing."""

    __slots__ = ("_origin", "body", "count", "key", "offset", "partition", "seq", "state", "version", "written")

    def __init__(
        self, partition: Partition, offset: int, seq: int, body: bytes, key: bytes | None, origin: Origin | None
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.seq = seq
        self.body = body
        self.key = key
        self._origin = origin
        self.state = READY
        self.count = 0
        #: When it was written, Unix time; known of delayed ones.
        self.written = 0.0
        self.version = 0

    def __lt__(self, other: Entry) -> bool:
        return self.seq < other.seq

    @property
    def origin(self) -> Origin:
        """What is known of the message apart from this delivery."""
        return self._origin or Origin(f"{self.partition.number}:{self.offset}")

    def again(self) -> Entry:
        """The same message, ready."""
        return Entry(self.partition, self.offset, self.seq, self.body, self.key, self._origin)

    def delivery(self) -> Delivery:
        """What is yielded."""
        key = None if self.key is None else self.key.decode("utf-8", "surrogateescape")
        if self._origin is None:
            return Delivery(self.body, f"{self.partition.number}:{self.offset}", self.count, key, (), self)
        origin = self._origin
        return Delivery(self.body, origin.id, origin.attempts + self.count, key, origin.history, self)


class Partition:
    """A partition assigned to us. ``version`` counts its changes, ``confirmed`` is the last one that was committed."""

    __slots__ = ("confirmed", "delayed", "lost", "name", "number", "out", "paused", "progress", "retry", "version")

    def __init__(self, name: str, number: int, progress: Progress, *, retry: bool) -> None:
        self.name = name
        self.number = number
        self.progress = progress
        self.retry = retry
        self.version = 0
        self.confirmed = 0
        self.paused = False
        self.lost = False
        #: Staged, yielded or being settled.
        self.out: set[Entry] = set()
        #: Not yet due, by offset, oldest first.
        self.delayed: dict[int, Entry] = {}

    def stage(self, entry: Entry) -> None:
        """Count a delivery."""
        entry.count = self.progress.deliver(entry.offset)
        entry.state = STAGED
        self.out.add(entry)
        self.version += 1

    def settle(self, entry: Entry) -> None:
        """Done with it."""
        self.progress.settle(entry.offset)
        entry.state = SETTLED
        self.out.discard(entry)
        self.version += 1
        entry.version = self.version

    def take_back(self, entry: Entry, state: State) -> None:
        """Its delivery does not count."""
        self.progress.take_back(entry.offset)
        entry.state = state
        self.out.discard(entry)
        self.version += 1
        entry.version = self.version

    def give_up(self) -> None:
        """Nothing of it is ours any more."""
        for entry in self.out:
            entry.state = LOST
        self.out.clear()
        self.lost = True

    def in_the_way(self) -> list[Entry]:
        """Delayed messages that keep the group's offset back for too long, or for too many others."""
        now = time.time()
        oldest = next(iter(self.delayed.values()))
        if self.progress.oldest != oldest.offset or (self.progress.width < _CROWD and now - oldest.written < _OLD):
            return []
        return [entry for entry in islice(self.delayed.values(), _ROLLED) if entry.origin.due - now >= 1.0]

    def commit(self, limit: int = LIMIT) -> TopicPartition:
        """What to commit."""
        offset, text = self.progress.encode(limit)
        return TopicPartition(self.name, self.number, offset, metadata=text)
