"""Groups, and the consumers that are members of one."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from bus.sql import statements as sql
from bus.sql.database import Transaction
from bus.sql.schema import delayed_lane, lane
from bus.sql.topic import find_topic

__all__ = ["Listeners", "Member"]

#: Seconds unheard of after which a broadcast consumer is thought dead.
_DEAF = 60.0
#: The same where nobody has watched: longer than any change of the clock one would make.
_LONG_DEAF = 86400.0


class Member:
    """One consumer of one group of one topic. ``lease`` is in seconds; ``group`` None makes a group of its own."""

    def __init__(self, topic: str, group: str | None, lease: float, max_size: int) -> None:
        self.topic = topic
        self.group = group
        #: Microseconds.
        self.lease = int(lease * 1e6)
        self.max_size = max_size
        #: Marks what this consumer has claimed.
        self.owner = random.getrandbits(62)
        self.topic_id = 0
        self.group_id = 0
        #: Whether its last claim found something, and so the next one may.
        self.flowing = False

    def join(self, tx: Transaction) -> None:
        """Make the group if it is new. A new one gets what is stored; a broadcast what is published from now on."""
        # A group name cannot hold a tilde.
        name = f"~{self.owner}" if self.group is None else self.group
        self.topic_id, last, stored = find_topic(tx, self.topic)
        found = tx.rows(sql.FIND_GROUP, topic_id=self.topic_id, name=name)
        if not found:
            first = lane(self.topic_id)
            delayed = {"first": delayed_lane(self.topic_id), "last": delayed_lane(self.topic_id) + last}
            (waiting,) = tx.rows(sql.COUNT_STORED, now=0, **delayed)[0]
            tx.run(
                sql.MAKE_GROUP,
                topic_id=self.topic_id,
                name=name,
                position=first + last if self.group is None else first,
                pending=0 if self.group is None else stored - waiting,
                heard=time.time() if self.group is None else None,
            )
            found = tx.rows(sql.FIND_GROUP, topic_id=self.topic_id, name=name)
            if self.group is not None and waiting:
                tx.run(sql.DELAY_FOR_GROUP, group_id=found[0][0], **delayed)
        self.group_id = found[0][0]

    def leave(self, tx: Transaction) -> None:
        """End the group of a broadcast consumer."""
        if self.group is None:
            _forget(tx, self.group_id, self.topic_id)


class Listeners:
    """Renews the groups of this connection's broadcast consumers and forgets those of dead processes.

    A group is forgotten when it stood unrenewed between two looks of ours, a minute apart. The clock alone is not
    asked: it may have been set, or the machine may just have woken up.
    """

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._since = 0.0

    def any(self, tx: Transaction) -> bool:
        """Whether there are any."""
        return bool(tx.rows(sql.LISTENERS))

    def tend(self, tx: Transaction, ours: Sequence[Member]) -> None:
        """Say that ours are alive, and forget the groups nobody has renewed for long."""
        if ours:
            tx.run(sql.LISTENING, heard=time.time(), group_ids=[member.group_id for member in ours])
        elapsed, wall = time.monotonic(), time.time()
        current = {id: (topic_id, heard) for id, topic_id, heard in tx.rows(sql.LISTENERS)}
        watched = elapsed - self._since >= _DEAF
        for id, (topic_id, heard) in current.items():
            if (watched and self._seen.get(id) == heard) or heard < wall - _LONG_DEAF:
                _forget(tx, id, topic_id)
        if watched:
            self._since = elapsed
            self._seen = {id: heard for id, (_, heard) in current.items()}


def _forget(tx: Transaction, group_id: int, topic_id: int) -> None:
    tx.run(sql.FORGET_DELIVERIES, group_id=group_id)
    tx.run(sql.FORGET_GROUP, group_id=group_id)
    floor, lasting = tx.rows(sql.FLOOR, topic_id=topic_id)[0]
    if lasting:
        # Only what a group has behind its position and not settled is looked at, which is never much, and the delayed.
        first, delayed = lane(topic_id), delayed_lane(topic_id)
        for start, end in ((first, floor), (delayed, lane(topic_id + 1))):
            count = tx.run(sql.SWEEP, first=start, last=end, floor=floor, delayed=delayed)
            tx.run(sql.UNSTORED, count=count, topic_id=topic_id)
