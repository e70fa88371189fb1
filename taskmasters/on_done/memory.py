"""What the on-done taskmaster remembers: done tasks that wait for others, and those it has dealt with before.

A done task is remembered before it is acknowledged. That something was dealt with is remembered after its children were
confirmed: a crash in between makes them again, with the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Column, Connection, Double, Index, Integer, String, Text, bindparam, delete, func, select

from task.codec import decode, encode
from task.task import derive_id
from taskmasters.on_done.joins import Arrival, Join, Known
from taskmasters.on_done.rules import OnDoneRule
from taskmasters.store import Schema, Store
from taskmasters.store.schema import ID_LENGTH, Blob, insert_new, table

__all__ = ["MEMORY", "Memory"]

_parts = table(
    "taskbus_join_parts",
    Column("joining", String(ID_LENGTH), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("body", Blob(), nullable=False),
    Column("arrived", Double, nullable=False),
    Index("taskbus_join_parts_arrived", "arrived"),
)
#: What was dealt with: done tasks, and joins.
_past = table(
    "taskbus_on_done",
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("at", Double, nullable=False),
    Index("taskbus_on_done_at", "at"),
)
MEMORY = Schema("on-done", 1, [_parts, _past])
#: Rows looked at in one cleaning.
_MOST = 1000
_LARGEST = 1 << 30
# Made once: making a statement takes longer than to do it.
_AT = select(_past.c.at).where(_past.c.id == bindparam("past"))
_OLD = select(_past.c.id).where(_past.c.at < bindparam("before")).limit(_MOST)
_PARTS = select(_parts).where(_parts.c.joining == bindparam("join")).order_by(_parts.c.number)
_JOINED = delete(_parts).where(_parts.c.joining == bindparam("join"))
_BEGUN = (
    select(_parts.c.joining, _parts.c.rule, _parts.c.key, func.min(_parts.c.arrived).label("since"))
    .group_by(_parts.c.joining, _parts.c.rule, _parts.c.key)
    .limit(_MOST)
)


class Memory:
    """In ``store``, for the taskmasters that are called ``group`` together.

    ``window`` is how long a done task is known to have been dealt with, in seconds; 0 = not at all.
    """

    def __init__(self, store: Store, group: str, window: float) -> None:
        self._store = store
        self._group = group
        self.window = window

    async def arrive(self, arrivals: Sequence[Arrival], now: float) -> list[Known]:
        """Remember these, and tell what is known of each. Raises StateError."""
        return await self._store.run(lambda tx: self.arrive_in(tx, arrivals, now))

    def arrive_in(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Known]:
        """The same in the transaction ``tx``."""
        # What one of these arrivals has made is not made again by another of them.
        made: set[str] = set()
        return [self._arrive(tx, arrival, now, made) for arrival in arrivals]

    async def dealt_with(self, ids: Sequence[str], joins: Sequence[Join], now: float) -> None:
        """The children of these done tasks and joins are confirmed. Raises StateError."""
        if joins or (ids and self.window):
            await self._store.run(lambda tx: self.dealt_with_in(tx, ids, joins, now))

    def dealt_with_in(self, tx: Connection, ids: Sequence[str], joins: Sequence[Join], now: float) -> None:
        """The same in the transaction ``tx``."""
        done = {self._joining(join.rule, join.key): now for join in joins}
        if self.window:
            done |= {self._task(id): now for id in ids}
        insert_new(tx, _past, [{"id": id, "at": at} for id, at in done.items()])
        for join in joins:
            tx.execute(_JOINED, {"join": self._joining(join.rule, join.key)})

    async def forget(self, rules: Mapping[str, OnDoneRule], now: float) -> list[tuple[str, str]]:
        """Give up joins that have waited too long; returns their rules and keys. Raises StateError."""
        return await self._store.run(lambda tx: self.forget_in(tx, rules, now))

    def _arrive(self, tx: Connection, arrival: Arrival, now: float, made: set[str]) -> Known:
        if self.window:
            if arrival.id in made:
                return Known(True, ())
            made.add(arrival.id)
            at = tx.execute(_AT, {"past": self._task(arrival.id)}).scalar()
            if at is not None and now - at < self.window:
                return Known(True, ())
        joins = []
        for rule, key, number in arrival.parts:
            joining = self._joining(rule, key)
            if joining in made or tx.execute(_AT, {"past": joining}).first() is not None:
                continue
            row = {
                "joining": joining,
                "number": number,
                "rule": rule.id,
                "key": key,
                "task_id": arrival.id,
                "body": encode(arrival.task),
                "arrived": now,
            }
            # The first of several that fit stays, so that what comes of them does not depend on who looks when.
            insert_new(tx, _parts, [row])
            found = tx.execute(_PARTS, {"join": joining}).all()
            if len(found) == len(rule.matches):
                parents = [(decode(part.body, _LARGEST), part.task_id) for part in found]
                joins.append(Join(rule, key, parents))
                made.add(joining)
        return Known(False, joins)

    def forget_in(self, tx: Connection, rules: Mapping[str, OnDoneRule], now: float) -> list[tuple[str, str]]:
        """The same in the transaction ``tx``."""
        longest = max([self.window, *(rule.gather.within for rule in rules.values() if rule.gather)], default=0.0)
        old = list(tx.execute(_OLD, {"before": now - longest}).scalars())
        if old:
            tx.execute(delete(_past).where(_past.c.id.in_(old)))
        given_up = []
        for row in tx.execute(_BEGUN).all():
            rule = rules.get(row.rule)
            within = rule.gather.within if rule is not None and rule.gather is not None else 0.0
            if now - row.since > within:
                tx.execute(_JOINED, {"join": row.joining})
                given_up.append((row.rule, row.key))
        return given_up

    def _joining(self, rule: OnDoneRule, key: str) -> str:
        # A rule that waits for other done tasks than before begins anew.
        return derive_id("joining", self._group, rule.id, *map(str, rule.matches), key)

    def _task(self, id: str) -> str:
        return derive_id("dealt-with", self._group, id)
