"""One group's view of a topic: what is ready, what is delayed and what is in flight.

Nothing here locks: the broker's lock is held by whoever calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from bus.contract import Delivery, Depth

__all__ = ["Entry", "Group", "Stored", "Waiter"]


class Stored:
    """A message as published, shared by the groups. ``pending`` counts the groups that have not acknowledged it."""

    __slots__ = ("body", "due", "id", "key", "pending", "seq")

    def __init__(self, seq: int, body: bytes, key: str | None, due: float) -> None:
        self.seq = seq
        self.id = str(seq)
        self.body = body
        self.key = key
        self.due = due
        self.pending = 0


class Entry:
    """One message in one group.

    ``delivery`` is the latest one handed out and so tells a holder from one whose lease was lost. ``expires`` only
    permits others to take the message; until somebody does, its holder may still settle it.
    """

    __slots__ = ("attempt", "delivery", "expires", "held", "history", "message", "owner")

    def __init__(self, message: Stored) -> None:
        self.message = message
        self.attempt = 0
        self.history: tuple[str, ...] = ()
        self.delivery: Delivery | None = None
        self.expires = 0.0
        self.held: OrderedDict[int, Entry] | None = None
        self.owner: object = None


class Waiter:
    """A consumer blocked in ``receive``, which other threads may wake. Made in the loop that waits."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let the wait return. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed under its consumer: nobody waits there
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float | None) -> None:
        """Return when woken or when ``seconds`` passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


class Group:
    """A message is in exactly one of ``fresh``, ``returned``, ``delayed`` and ``held``, or acknowledged and gone."""

    def __init__(self) -> None:
        #: Never delivered, in the order of publishing.
        self.fresh: deque[Entry] = deque()
        #: Handed back or no longer delayed: a heap by the order of publishing.
        self.returned: list[tuple[int, Entry]] = []
        #: A heap by the time each becomes due.
        self.delayed: list[tuple[float, int, Entry]] = []
        #: In flight, by length of lease: with one length the order of insertion is the order of expiry.
        self.held: dict[float, OrderedDict[int, Entry]] = {}
        #: Who waits, and the time at which each looks again by itself.
        self.waiting: dict[Waiter, float] = {}

    def add(self, message: Stored, now: float) -> None:
        """A message published, or stored before the group existed. The caller wakes the waiting."""
        entry = Entry(message)
        if message.due > now:
            heapq.heappush(self.delayed, (message.due, message.seq, entry))
        else:
            self.fresh.append(entry)

    def take(self, limit: int, now: float, lease: float, owner: object) -> list[Delivery]:
        """Put at most ``limit`` messages in flight for ``owner``, older ones first."""
        entries = self._expired(limit, now)
        again = bool(entries)
        while self.delayed and self.delayed[0][0] <= now:
            _, seq, entry = heapq.heappop(self.delayed)
            heapq.heappush(self.returned, (seq, entry))
        fresh, returned = self.fresh, self.returned
        while len(entries) < limit and (fresh or returned):
            if returned and (not fresh or returned[0][0] < fresh[0].message.seq):
                entries.append(heapq.heappop(returned)[1])
            else:
                entries.append(fresh.popleft())
        if not entries:
            return []
        if again:
            entries.sort(key=lambda entry: entry.message.seq)
        expires = now + lease
        held = self.held.setdefault(lease, OrderedDict())
        batch: list[Delivery] = []
        for entry in entries:
            message = entry.message
            entry.attempt += 1
            entry.expires = expires
            entry.owner = owner
            entry.held = held
            held[message.seq] = entry
            delivery = Delivery(message.body, message.id, entry.attempt, message.key, entry.history, entry)
            entry.delivery = delivery
            batch.append(delivery)
        self.wake(expires)
        return batch

    def lost(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that somebody else was given meanwhile."""
        return [d for d in deliveries if d.handle is not None and d.handle.delivery is not d]

    def claim(self, deliveries: Sequence[Delivery]) -> list[Entry]:
        """Take out of flight what is neither lost nor settled already."""
        entries: list[Entry] = []
        for delivery in deliveries:
            entry = delivery.handle
            if entry is None or entry.delivery is not delivery:
                continue
            delivery.handle = entry.delivery = entry.owner = None
            del entry.held[entry.message.seq]
            entry.held = None
            entries.append(entry)
        return entries

    def extend(self, deliveries: Sequence[Delivery], expires: float) -> None:
        """Start anew the leases of what is neither lost nor settled."""
        for delivery in deliveries:
            entry = delivery.handle
            if entry is not None and entry.delivery is delivery:
                entry.expires = expires
                entry.held.move_to_end(entry.message.seq)

    def give_back(self, entries: Sequence[Entry], due: float) -> None:
        """Deliver these again from ``due`` on; 0 = at once."""
        for entry in entries:
            if due:
                heapq.heappush(self.delayed, (due, entry.message.seq, entry))
            else:
                heapq.heappush(self.returned, (entry.message.seq, entry))
        if entries:
            self.wake(due)

    def of(self, owner: object) -> list[Delivery]:
        """The deliveries ``owner`` has not settled and not lost."""
        return [
            entry.delivery
            for held in self.held.values()
            for entry in held.values()
            if entry.owner is owner and entry.delivery is not None
        ]

    def next_due(self) -> float:
        """When a delayed message or the end of a lease will make something ready; ``inf`` = never."""
        due = [next(iter(held.values())).expires for held in self.held.values() if held]
        if self.delayed:
            due.append(self.delayed[0][0])
        return min(due, default=float("inf"))

    def wake(self, due: float = 0.0) -> None:
        """Wake those who would not have looked again by ``due``."""
        for waiter in [waiter for waiter, until in self.waiting.items() if until > due]:
            del self.waiting[waiter]
            waiter.wake()

    def pending(self, now: float) -> Iterator[tuple[Entry, str]]:
        """Everything not acknowledged, with its state, in no order."""
        for entry in self.fresh:
            yield entry, "ready"
        for _, entry in self.returned:
            yield entry, "ready"
        for due, _, entry in self.delayed:
            yield entry, "delayed" if due > now else "ready"
        for held in self.held.values():
            for entry in held.values():
                yield entry, "in-flight" if entry.expires > now else "ready"

    def depth(self, now: float) -> Depth:
        """How much is in each state."""
        delayed = sum(1 for due, _, _ in self.delayed if due > now)
        in_flight = sum(1 for held in self.held.values() for entry in held.values() if entry.expires > now)
        total = len(self.fresh) + len(self.returned) + len(self.delayed) + sum(len(held) for held in self.held.values())
        return Depth(total - delayed - in_flight, delayed, in_flight)

    def _expired(self, limit: int, now: float) -> list[Entry]:
        entries: list[Entry] = []
        for held in self.held.values():
            while held and len(entries) < limit:
                seq, entry = next(iter(held.items()))
                if entry.expires > now:
                    break
                del held[seq]
                entries.append(entry)
        return entries
