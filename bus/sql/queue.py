"""What consumers do in the database. Every function here runs inside a transaction; ``now`` is in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import orjson

from bus.contract import Delivery
from bus.sql import statements as sql
from bus.sql.database import Transaction
from bus.sql.membership import Member
from bus.sql.schema import delayed_lane, number_of

__all__ = ["Handle", "acknowledge", "claim", "extend", "give_back", "lost", "next_due"]

#: Bytes of new bodies, and of others, which one claim may bring; a single message may be larger.
_BUDGET = 32 * 1024**2
#: The most reasons kept of one message.
_HISTORY = 100
#: Sorts before everything ready.
_FIRST = 0
#: When it became ready, its id, and what is delivered if it is chosen.
_Candidate: TypeAlias = tuple[int, int, Delivery]
Key = TypeVar("Key")


class Handle:
    """What it takes to settle a delivery. ``lost``: somebody else has it."""

    __slots__ = ("attempt", "id", "lost")

    def __init__(self, id: int, attempt: int) -> None:
        self.id = id
        self.attempt = attempt
        self.lost = False


def next_due(tx: Transaction, member: Member, now: int) -> int | None:
    """When there will be something to claim though nothing is published; at most ``now`` if there is already."""
    found = tx.rows(sql.CHOOSE_GROUP, group_id=member.group_id)
    if not found or found[0][1]:
        return now
    due: int | None = found[0][2]
    return due


def claim(tx: Transaction, member: Member, limit: int, now: int) -> list[Delivery]:
    """Take up to ``limit`` messages: first those whose lease has ended, then each as it became ready."""
    found = tx.rows(sql.CHOOSE_GROUP, group_id=member.group_id)
    if not found:
        member.join(tx)
        return []
    position, pending, due = found[0]
    end = delayed_lane(member.topic_id)
    again = _ready_again(tx, member, limit, now) if due is not None and due <= now else []
    fresh = _new(tx, member, position, end, limit) if pending else []
    chosen = list(_merge(again, fresh, limit)) if again else fresh
    if again:
        ids = [id for _, id, _ in chosen if not position < id <= end]
        tx.run(sql.CLAIM_AGAIN, until=now + member.lease, owner=member.owner, ids=ids, group_id=member.group_id)
    if fresh:
        taken = [id for _, id, _ in chosen if position < id <= end] if again else [id for _, id, _ in chosen]
        _take_new(tx, member, position, taken, now)
    return [delivery for _, _, delivery in chosen]


def _ready_again(tx: Transaction, member: Member, limit: int, now: int) -> list[_Candidate]:
    window = {"group_id": member.group_id, "now": now}
    limit = _affordable(tx, member, sql.WEIGHT_OF_READY, window, limit)
    found = [
        (
            # Whoever held it is gone. It had its turn before all others that wait.
            _FIRST if owner is not None else ready_at,
            id,
            Delivery(body, str(number_of(id)), attempt + 1, key, _reasons(history), Handle(id, attempt + 1)),
        )
        for id, ready_at, attempt, owner, history, key, body in tx.bulk(sql.READY, limit=limit, **window)
    ]
    return sorted(found, key=_place)


def _new(tx: Transaction, member: Member, position: int, end: int, limit: int) -> list[_Candidate]:
    window = {"position": position, "end": end}
    limit = _affordable(tx, member, sql.WEIGHT_OF_NEW, window, limit)
    found = [
        (published, id, Delivery(body, str(number_of(id)), 1, key, (), Handle(id, 1)))
        for id, published, key, body in tx.bulk(sql.NEW, limit=limit, **window)
    ]
    return sorted(found, key=_id)


def _affordable(tx: Transaction, member: Member, weigh: str, window: dict[str, int], limit: int) -> int:
    """How many of up to ``limit`` messages may be fetched at once."""
    if limit * member.max_size > _BUDGET:
        weight, heaviest = tx.rows(weigh, limit=limit, **window)[0]
        if weight is not None and weight > _BUDGET:
            return max(1, _BUDGET // int(heaviest))
    return limit


def _take_new(tx: Transaction, member: Member, position: int, ids: Sequence[int], now: int) -> None:
    if ids:
        group_id, last = member.group_id, ids[-1]
        tx.run(
            sql.CLAIM_NEW, group_id=group_id, until=now + member.lease, owner=member.owner, position=position, last=last
        )
        tx.run(sql.MOVE_POSITION, last=last, count=len(ids), group_id=group_id)


def _merge(again: Sequence[_Candidate], fresh: Sequence[_Candidate], limit: int) -> Iterator[_Candidate]:
    """The first ``limit`` by when they became ready, the fresh ones in their order whatever the clock did."""
    old, new = iter(again), iter(fresh)
    next_old, next_new = next(old, None), next(new, None)
    for _ in range(limit):
        if next_old is not None and (next_new is None or next_old[:2] <= next_new[:2]):
            yield next_old
            next_old = next(old, None)
        elif next_new is not None:
            yield next_new
            next_new = next(new, None)
        else:
            return


def _place(candidate: _Candidate) -> tuple[int, int]:
    return candidate[:2]


def _id(candidate: _Candidate) -> int:
    return candidate[1]


def _reasons(history: str | None) -> tuple[str, ...]:
    return tuple(orjson.loads(history)) if history else ()


def lost(tx: Transaction, member: Member, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Those of ``deliveries`` that are no longer this member's."""
    missing: list[Delivery] = []
    for attempt, batch in _by(deliveries, _attempt):
        ids = [delivery.handle.id for delivery in batch]
        held = {id for (id,) in tx.rows(sql.HELD, ids=ids, attempt=attempt, **_who(member))}
        missing += [delivery for delivery in batch if delivery.handle.id not in held]
    return missing


def acknowledge(tx: Transaction, member: Member, deliveries: Sequence[Delivery]) -> None:
    """These are done with, as far as they are this member's. A message that no group needs any more is deleted."""
    for attempt, batch in _by(deliveries, _attempt):
        tx.run(sql.SETTLE, ids=[delivery.handle.id for delivery in batch], attempt=attempt, **_who(member))
    floor, lasting = tx.rows(sql.FLOOR, topic_id=member.topic_id)[0]
    if lasting:
        ids = [delivery.handle.id for delivery in deliveries]
        count = tx.run(sql.DELETE_DONE, ids=ids, floor=floor, delayed=delayed_lane(member.topic_id))
        tx.run(sql.UNSTORED, count=count, topic_id=member.topic_id)


def give_back(
    tx: Transaction,
    member: Member,
    deliveries: Sequence[Delivery],
    ready_at: int | None,
    *,
    counted: bool,
    reason: str | None = None,
) -> None:
    """Have these delivered again, as far as they are this member's: from ``ready_at`` on, None = in their old place.

    ``counted``: the attempt counts. ``reason`` joins the history.
    """
    for (attempt, history), batch in _by(deliveries, _attempt_and_history):
        values = {"ids": [delivery.handle.id for delivery in batch], "attempt": attempt, **_who(member)}
        values["counted"] = attempt if counted else attempt - 1
        if ready_at is None:
            tx.run(sql.RETURN_TO_PLACE, **values)
        else:
            reasons = history if reason is None else (*history, reason)[-_HISTORY:]
            text = orjson.dumps(reasons).decode() if reasons else None
            tx.run(sql.RETURN, ready_at=ready_at, history=text, **values)


def extend(tx: Transaction, member: Member, deliveries: Sequence[Delivery], now: int) -> list[Delivery]:
    """Start the lease of these anew; returns those that are no longer this member's."""
    renewed = 0
    for attempt, batch in _by(deliveries, _attempt):
        ids = [delivery.handle.id for delivery in batch]
        renewed += tx.run(sql.EXTEND, until=now + member.lease, ids=ids, attempt=attempt, **_who(member))
    return [] if renewed == len(deliveries) else lost(tx, member, deliveries)


def _by(deliveries: Sequence[Delivery], key: Callable[[Delivery], Key]) -> Iterable[tuple[Key, list[Delivery]]]:
    groups: dict[Key, list[Delivery]] = {}
    for delivery in deliveries:
        groups.setdefault(key(delivery), []).append(delivery)
    return groups.items()


def _attempt(delivery: Delivery) -> int:
    attempt: int = delivery.handle.attempt
    return attempt


def _attempt_and_history(delivery: Delivery) -> tuple[int, tuple[str, ...]]:
    return delivery.handle.attempt, delivery.history


def _who(member: Member) -> dict[str, int]:
    return {"group_id": member.group_id, "owner": member.owner}
