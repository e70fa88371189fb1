"""What was read ahead: messages that are ready, and those that are not due yet."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Collection, Sequence

from bus.kafka.partition import READY, Entry, Partition

__all__ = ["Shelf"]


class Shelf:
    """Messages of every partition, in the order they arrived in or become due. Bodies are counted in bytes."""

    def __init__(self) -> None:
        self._ready: deque[Entry] = deque()
        #: Handed back unbegun: these go first, in their order.
        self._again: list[Entry] = []
        self._delayed: list[tuple[float, Entry]] = []
        self.ready_bytes = 0
        self.delayed_bytes = 0

    def __len__(self) -> int:
        """How many are ready."""
        return len(self._ready) + len(self._again)

    def add(self, entries: Sequence[Entry]) -> None:
        """Ready, behind the others."""
        self._ready.extend(entries)
        self.ready_bytes += sum([len(entry.body) for entry in entries])

    def add_copy(self, entry: Entry, due: float, written: float) -> None:
        """A message of the retry topic, written and due at these moments (Unix time): ready, or delayed."""
        if due > time.time():
            entry.written = written
            self.delay(entry, due)
        else:
            self.add([entry])

    def put_back(self, entry: Entry) -> None:
        """Ready again, before the others."""
        heapq.heappush(self._again, entry)
        self.ready_bytes += len(entry.body)

    def delay(self, entry: Entry, due: float) -> None:
        """Ready at ``due``, Unix time."""
        heapq.heappush(self._delayed, (due, entry))
        self.delayed_bytes += len(entry.body)
        entry.partition.delayed[entry.offset] = entry

    def until_due(self) -> float:
        """Seconds until the next one is due; infinity if none is delayed."""
        return max(0.0, self._delayed[0][0] - time.time()) if self._delayed else float("inf")

    def promote(self) -> None:
        """What is due is ready."""
        now = time.time()
        while self._delayed and (self._delayed[0][0] <= now or self._delayed[0][1].partition.lost):
            _, entry = heapq.heappop(self._delayed)
            self.delayed_bytes -= len(entry.body)
            entry.partition.delayed.pop(entry.offset, None)
            if not entry.partition.lost and entry.state is READY:
                self.add([entry])

    def take(self, limit: int) -> list[Entry]:
        """Up to ``limit`` of the next ones that are still ours."""
        again, ready = self._again, self._ready
        taken: list[Entry] = []
        while len(taken) < limit and (again or ready):
            entry = heapq.heappop(again) if again else ready.popleft()
            self.ready_bytes -= len(entry.body)
            if not entry.partition.lost:
                taken.append(entry)
        return taken

    def withdraw(self, parts: Collection[Partition]) -> None:
        """Nothing of these partitions is given to anybody any more."""
        self._ready = deque(entry for entry in self._ready if entry.partition not in parts)
        self._again = sorted(entry for entry in self._again if entry.partition not in parts)
        self._delayed = sorted((due, entry) for due, entry in self._delayed if entry.partition not in parts)
        self.ready_bytes = sum(len(entry.body) for entry in (*self._ready, *self._again))
        self.delayed_bytes = sum(len(entry.body) for _, entry in self._delayed)
