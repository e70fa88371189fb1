"""What all memory buses of one name share: the topics, behind one lock.

A message is stored until every group of its topic has acknowledged it, or, while the topic has no group, for the first
one. A group made later receives what is still stored. Broadcasts neither hold a message nor use it up.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence

from bus.contract import Delivery, Depth, Message, Peeked
from bus.errors import LeaseLostError
from bus.memory.group import Group, Stored, Waiter

__all__ = ["Broker", "Topic", "broker"]

_BROKERS: dict[str, Broker] = {}


def broker(name: str) -> Broker:
    """The one broker of this process with that name, made on first use; it lives as long as the process."""
    return _BROKERS.setdefault(name, Broker())


class Topic:
    """The stored messages of one topic and the groups that read them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stored: dict[int, Stored] = {}
        self.groups: dict[str, Group] = {}
        self.broadcasts: list[Group] = []
        #: Message ids published within the window of de-duplication, and when that ends for each, oldest first.
        self.seen: OrderedDict[str, float] = OrderedDict()
        self.numbers = itertools.count(1)

    def publish(self, message: Message, now: float, window: float) -> None:
        """Store one message, unless its id was published within the ``window``."""
        if message.id is not None and window and self._repeated(message.id, now, window):
            return
        due = now + message.delay if message.delay > 0 else 0.0
        stored = Stored(next(self.numbers), message.body, message.key, due)
        self.stored[stored.seq] = stored
        stored.pending = len(self.groups)
        for group in itertools.chain(self.groups.values(), self.broadcasts):
            group.add(stored, now)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for group in itertools.chain(self.groups.values(), self.broadcasts):
            if group.waiting:
                group.wake()

    def new_group(self, now: float) -> Group:
        """A group that has everything still stored."""
        group = Group()
        for stored in self.stored.values():
            stored.pending += 1
            group.add(stored, now)
        return group

    def _repeated(self, id: str, now: float, window: float) -> bool:
        while self.seen and next(iter(self.seen.values())) <= now:
            self.seen.popitem(last=False)
        if id in self.seen:
            return True
        self.seen[id] = now + window
        return False


class Broker:
    """Every method is atomic and may be called from any thread. Times are readings of the caller's clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}

    def publish(self, messages: Sequence[Message], now: float, window: float) -> None:
        """Store all of these."""
        with self._lock:
            self._publish(messages, now, window)

    def join(self, name: str, group: str | None, now: float) -> tuple[Topic, Group]:
        """The topic and the group, made if they do not exist; a group of its own for a broadcast."""
        with self._lock:
            topic = self._topic(name)
            if group is None:
                joined = Group()
                topic.broadcasts.append(joined)
                return topic, joined
            if group not in topic.groups:
                topic.groups[group] = topic.new_group(now)
            return topic, topic.groups[group]

    def take(
        self, group: Group, limit: int, now: float, lease: float, owner: object, waiter: Waiter
    ) -> tuple[list[Delivery], float]:
        """Messages for ``owner``; if there are none, the ``waiter`` is woken when that changes before the time told."""
        with self._lock:
            batch = group.take(limit, now, lease, owner)
            due = now
            if not batch:
                due = group.next_due()
                group.waiting[waiter] = due
            return batch, due

    def ack(self, topic: Topic, group: Group, deliveries: Sequence[Delivery]) -> None:
        """Settle for good. Raises LeaseLostError."""
        with self._lock:
            lost = group.lost(deliveries)
            self._ack(topic, group, deliveries)
        _report(lost, topic)

    def give_back(
        self,
        topic: Topic,
        group: Group,
        deliveries: Sequence[Delivery],
        *,
        due: float,
        count: bool,
        reason: str | None = None,
    ) -> None:
        """Have these delivered again from ``due`` on (0 = at once). Raises LeaseLostError."""
        with self._lock:
            lost = group.lost(deliveries)
            entries = group.claim(deliveries)
            for entry in entries:
                if not count:
                    entry.attempt -= 1
                if reason is not None:
                    entry.history += (reason,)
            group.give_back(entries, due)
        _report(lost, topic)

    def extend(self, group: Group, deliveries: Sequence[Delivery], expires: float) -> list[Delivery]:
        """Move the end of the leases to ``expires``; returns the lost ones."""
        with self._lock:
            group.extend(deliveries, expires)
            return group.lost(deliveries)

    def finish(
        self,
        topic: Topic,
        group: Group,
        deliveries: Sequence[Delivery],
        messages: Sequence[Message],
        now: float,
        window: float,
    ) -> None:
        """Publish and acknowledge, or neither. Raises LeaseLostError."""
        with self._lock:
            lost = group.lost(deliveries)
            if not lost:
                self._publish(messages, now, window)
                self._ack(topic, group, deliveries)
        _report(lost, topic)

    def leave(self, topic: Topic, group: Group, owner: object, waiter: Waiter) -> None:
        """Hand back what ``owner`` holds and forget it."""
        with self._lock:
            group.waiting.pop(waiter, None)
            if group in topic.broadcasts:
                topic.broadcasts.remove(group)
            entries = group.claim(group.of(owner))
            for entry in entries:
                entry.attempt -= 1
            group.give_back(entries, 0.0)
        waiter.wake()

    def depth(self, name: str, group: str, now: float) -> Depth:
        """What is pending for a group; for one that does not exist, what it would receive."""
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                return Depth(0)
            if group in topic.groups:
                return topic.groups[group].depth(now)
            delayed = sum(1 for stored in topic.stored.values() if stored.due > now)
            return Depth(len(topic.stored) - delayed, delayed)

    def peek(self, name: str, group: str | None, limit: int, now: float) -> list[Peeked]:
        """The oldest pending messages of a group, or the oldest stored."""
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                return []
            if group is None or group not in topic.groups:
                oldest = itertools.islice(topic.stored.values(), limit)
                return [Peeked(s.id, s.body, "delayed" if s.due > now else "ready") for s in oldest]
            pending = topic.groups[group].pending(now)
            return [
                Peeked(entry.message.id, entry.message.body, state, entry.attempt)
                for entry, state in heapq.nsmallest(limit, pending, key=lambda pair: pair[0].message.seq)
            ]

    def topics(self) -> list[str]:
        """Names of the topics, sorted."""
        with self._lock:
            return sorted(self._topics)

    def groups(self, name: str) -> list[str]:
        """Names of the groups of a topic, sorted."""
        with self._lock:
            topic = self._topics.get(name)
            return sorted(topic.groups) if topic else []

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name)
        return topic

    def _publish(self, messages: Sequence[Message], now: float, window: float) -> None:
        topics: dict[str, Topic] = {}
        for message in messages:
            topic = topics.get(message.topic)
            if topic is None:
                topic = topics[message.topic] = self._topic(message.topic)
            topic.publish(message, now, window)
        for topic in topics.values():
            topic.wake()

    def _ack(self, topic: Topic, group: Group, deliveries: Sequence[Delivery]) -> None:
        entries = group.claim(deliveries)
        if group in topic.broadcasts:
            return
        for entry in entries:
            message = entry.message
            message.pending -= 1
            if not message.pending:
                del topic.stored[message.seq]


def _report(lost: Sequence[Delivery], topic: Topic) -> None:
    if lost:
        raise LeaseLostError(
            f"{topic.name}: the lease of {', '.join(d.id for d in lost[:5])}{' …' if len(lost) > 5 else ''} ended and "
            "another consumer has it; extend leases in time or set a longer ?lease=",
            deliveries=lost,
            topic=topic.name,
        )
