"""Topics, and what is published to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bus.contract import Message
from bus.sql import statements as sql
from bus.sql.database import Transaction
from bus.sql.schema import delayed_lane, lane

__all__ = ["DEDUPE", "Outgoing", "find_topic", "later", "outgoing", "publish"]

#: Seconds for which a published id is remembered.
DEDUPE = 600.0
_WINDOW = int(DEDUPE * 1e6)
#: Microseconds of one slot of remembered ids.
_SLOT = _WINDOW // 2
#: The longest delay, in seconds: some three thousand years.
_EVER = 1e11


class Outgoing(NamedTuple):
    """A message to publish. ``due`` is when it may be delivered, in microseconds, None = at once."""

    topic: str
    body: bytes
    key: str | None
    due: int | None
    id: str | None


def outgoing(messages: Iterable[Message], moment: float) -> list[Outgoing]:
    """``messages`` with their delays counted from ``moment`` (seconds)."""
    return [
        Outgoing(topic, body, key, later(moment, delay) if delay > 0 else None, id)
        for topic, body, key, delay, id in messages
    ]


def publish(tx: Transaction, messages: Iterable[Outgoing], now: int) -> None:
    """Store ``messages``, but those whose id was published within the window."""
    by_topic: dict[str, list[Outgoing]] = {}
    for message in messages:
        by_topic.setdefault(message.topic, []).append(message)
    for topic, batch in by_topic.items():
        topic_id, last, _ = find_topic(tx, topic)
        fresh = _unpublished(tx, topic_id, batch, now)
        if fresh:
            _store(tx, topic_id, last, fresh, now)


def later(moment: float, delay: float) -> int:
    """Microseconds of ``delay`` seconds after ``moment``."""
    return int((moment + min(delay, _EVER)) * 1e6)


def find_topic(tx: Transaction, topic: str) -> tuple[int, int, int]:
    """Id, last number and count of stored messages of a topic, which is made if it is new."""
    found = tx.rows(sql.FIND_TOPIC, topic=topic)
    if not found:
        tx.run(sql.MAKE_TOPIC, topic=topic)
        found = tx.rows(sql.FIND_TOPIC, topic=topic)
    topic_id, last, stored = found[0]
    return topic_id, last, stored


def _store(tx: Transaction, topic_id: int, last: int, batch: Sequence[Outgoing], now: int) -> None:
    first, first_delayed = lane(topic_id) + last + 1, delayed_lane(topic_id) + last + 1
    rows = [
        (place + (first if due is None else first_delayed), key, now, due, body)
        for place, (_, body, key, due, _) in enumerate(batch)
    ]
    tx.insert(sql.STORE, rows)
    tx.run(sql.STORED, last=last + len(batch), count=len(batch), topic_id=topic_id)
    at_once = sum(row[3] is None for row in rows)
    if at_once:
        tx.run(sql.MORE_PENDING, count=at_once, topic_id=topic_id)
    if at_once < len(batch):
        tx.run(sql.DELAY, first=first_delayed, last=first_delayed + len(batch) - 1, topic_id=topic_id)


def _unpublished(tx: Transaction, topic_id: int, batch: Sequence[Outgoing], now: int) -> list[Outgoing]:
    """Those without an id or with one not published within the window. Remembers these and forgets old ones."""
    uids = list({message.id for message in batch if message.id is not None})
    if not uids:
        return list(batch)
    slot, oldest = now // _SLOT, (now - _WINDOW) // _SLOT
    slots = list(range(oldest, slot + 1))
    found = tx.rows(sql.PUBLISHED, slots=slots, topic_id=topic_id, uids=uids, since=now - _WINDOW)
    known = {uid for (uid,) in found}
    fresh, rows = [], []
    for message in batch:
        if message.id is not None:
            if message.id in known:
                continue
            known.add(message.id)
            rows.append((slot, topic_id, message.id, now))
        fresh.append(message)
    tx.insert(sql.REMEMBER_PUBLISHED, rows)
    # Two are forgotten for each that is remembered: never much at once, and never more left over.
    for old_slot, old_topic in tx.rows(sql.FIRST_PUBLISHED, oldest=oldest):
        ((uid,),) = tx.rows(sql.SOME_PUBLISHED, slot=old_slot, topic_id=old_topic, limit=2 * len(uids))
        tx.run(sql.FORGET_PUBLISHED, slot=old_slot, topic_id=old_topic, uid=uid)
    return fresh
