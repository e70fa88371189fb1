"""The messages of one partition that are ours for now, and where each of them is."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Sequence
from itertools import islice

from confluent_kafka import TopicPartition

from bus.contract import Delivery
from bus.kafka.copies import Origin
from bus.kafka.progress import LIMIT, WINDOW, Progress

__all__ = ["LOST", "OUT", "READY", "SETTLED", "SETTLING", "STAGED", "Entry", "Partition", "State", "by_partition"]

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


class Entry(Delivery):
    """One message. After a release it is replaced by another, so that the old delivery settles nothing.

    ``attempt`` is known once it was counted, and ``written``, Unix time, of delayed ones.
    """

    __slots__ = ("_origin", "offset", "partition", "raw_key", "seq", "state", "version", "written")

    written: float

    def __init__(
        self, partition: Partition, offset: int, seq: int, body: bytes, key: bytes | None, origin: Origin | None
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.seq = seq
        self.body = body
        self.raw_key = key
        self._origin = origin
        self.id = f"{partition.number}:{offset}" if origin is None else origin.id
        self.state = READY
        self.version = 0

    def __lt__(self, other: Entry) -> bool:
        return self.seq < other.seq

    @property
    def key(self) -> str | None:  # type: ignore[override]
        """The key as text."""
        return None if self.raw_key is None else self.raw_key.decode("utf-8", "surrogateescape")

    @property
    def history(self) -> tuple[str, ...]:  # type: ignore[override]
        """Reasons of earlier nacks, oldest first."""
        return () if self._origin is None else self._origin.history

    @property
    def origin(self) -> Origin:
        """What is known of the message apart from this delivery."""
        return self._origin or Origin(self.id)

    def again(self) -> Entry:
        """The same message, ready."""
        return Entry(self.partition, self.offset, self.seq, self.body, self.raw_key, self._origin)


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

    def stage(self, entries: Sequence[Entry]) -> None:
        """Count a delivery of each."""
        counts = self.progress.deliver([entry.offset for entry in entries])
        for entry, count in zip(entries, counts, strict=True):
            entry.attempt = count if entry._origin is None else entry._origin.attempts + count
            entry.state = STAGED
        self.out.update(entries)
        self.version += 1

    def settle(self, entries: Sequence[Entry]) -> None:
        """Done with these."""
        self.progress.settle([entry.offset for entry in entries])
        self.out.difference_update(entries)
        self.version = version = self.version + 1
        for entry in entries:
            entry.state = SETTLED
            entry.version = version

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


def by_partition(entries: Iterable[Entry]) -> dict[Partition, list[Entry]]:
    """These in their order, by where they are from."""
    found: dict[Partition, list[Entry]] = {}
    last, batch = None, []
    for entry in entries:
        part = entry.partition
        if part is not last:
            last, batch = part, found.setdefault(part, [])
        batch.append(entry)
    return found
