"""What was read ahead: messages that are ready, and those that are not due yet."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Collection

from bus.kafka.partition import Entry, Partition, State

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

    def add(self, entry: Entry) -> None:
        """Ready, behind the others."""
        self._ready.append(entry)
        self.ready_bytes += len(entry.body)

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
            if not entry.partition.lost and entry.state is State.READY:
                self.add(entry)

    def take(self) -> Entry | None:
        """The next one that is still ours."""
        while self._again or self._ready:
            entry = heapq.heappop(self._again) if self._again else self._ready.popleft()
            self.ready_bytes -= len(entry.body)
            if not entry.partition.lost:
                return entry
        return None

    def withdraw(self, parts: Collection[Partition]) -> None:
        """Nothing of these partitions is given to anybody any more."""
        self._ready = deque(entry for entry in self._ready if entry.partition not in parts)
        self._again = sorted(entry for entry in self._again if entry.partition not in parts)
        self._delayed = sorted((due, entry) for due, entry in self._delayed if entry.partition not in parts)
        self.ready_bytes = sum(len(entry.body) for entry in (*self._ready, *self._again))
        self.delayed_bytes = sum(len(entry.body) for _, entry in self._delayed)
