"""What people, dashboards and autoscalers see of the database. Every function runs inside a transaction."""

from __future__ import annotations

from bus.contract import Depth, Peeked
from bus.sql import statements as sql
from bus.sql.database import Transaction
from bus.sql.schema import delayed_lane, lane, number_of

__all__ = ["depth", "groups", "peek", "topics"]


def depth(tx: Transaction, topic: str, group: str, now: int) -> Depth:
    """What is pending for a group, known or not. Only what is delayed or was taken before is counted one by one."""
    found = tx.rows(sql.FIND_TOPIC, topic=topic)
    if not found:
        return Depth(0)
    topic_id, _, stored = found[0]
    known = tx.rows(sql.FIND_GROUP, topic_id=topic_id, name=group)
    if not known:
        (delayed,) = tx.rows(sql.COUNT_STORED, first=delayed_lane(topic_id), last=lane(topic_id + 1), now=now)[0]
        return Depth(stored - delayed, delayed)
    group_id, _, pending = known[0]
    ready, delayed, in_flight = tx.rows(sql.DEPTH, group_id=group_id, now=now)[0]
    return Depth(pending + int(ready), int(delayed), int(in_flight))


def peek(tx: Transaction, topic: str, group: str | None, limit: int, now: int) -> list[Peeked]:
    """The oldest pending messages of a group, or the oldest stored of a topic."""
    found = tx.rows(sql.FIND_TOPIC, topic=topic)
    if not found:
        return []
    topic_id = found[0][0]
    first, delayed, end = lane(topic_id), delayed_lane(topic_id), lane(topic_id + 1)
    known = tx.rows(sql.FIND_GROUP, topic_id=topic_id, name=group) if group is not None else []
    seen: list[tuple[int, Peeked]] = []
    if known:
        group_id, position, _ = known[0]
        for start, stop in ((first, delayed), (delayed, end)):
            for id, ready_at, attempt, owner, body in tx.rows(
                sql.PEEK_DELIVERIES, first=start, last=stop, group_id=group_id, limit=limit
            ):
                state = "ready" if ready_at <= now else "delayed" if owner is None else "in-flight"
                seen.append((number_of(id), Peeked(str(number_of(id)), body, state, attempt)))
        ranges = [(position, delayed)]
    else:
        ranges = [(first, delayed), (delayed, end)]
    for start, stop in ranges:
        for id, due, body in tx.rows(sql.PEEK_STORED, first=start, last=stop, limit=limit):
            state = "delayed" if due is not None and due > now else "ready"
            seen.append((number_of(id), Peeked(str(number_of(id)), body, state)))
    return [peeked for _, peeked in sorted(seen, key=_number)[:limit]]


def topics(tx: Transaction) -> list[str]:
    """Names of the topics that were published to or have had a consumer."""
    return [name for (name,) in tx.rows(sql.TOPICS)]


def groups(tx: Transaction, topic: str) -> list[str]:
    """Names of the lasting groups of a topic."""
    return [name for (name,) in tx.rows(sql.GROUPS, topic=topic)]


def _number(item: tuple[int, Peeked]) -> int:
    return item[0]
