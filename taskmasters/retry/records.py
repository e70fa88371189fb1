"""What is remembered of each task that failed, from its first failure until some time after its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from sqlalchemy import Column, Connection, Double, Index, Integer, String, bindparam, delete, insert, select

from task.task import Task
from task.times import format_time
from taskmasters.store.schema import ID_LENGTH, Blob, Schema, table

__all__ = ["RECORDS", "Record", "Try", "forget", "load", "save", "try_of"]

#: The most attempts whose end is remembered: so many of the first, and of the last.
_FIRST, _LAST = 20, 80
#: Characters kept of what an attempt said.
_LONGEST = 1000
#: Rows of a statement.
_ROWS = 500

Try = dict[str, Any]
Item = TypeVar("Item")

_table = table(
    "taskbus_retry",
    Column("id", String(ID_LENGTH), primary_key=True),
    #: When the first failure came.
    Column("first", Double, nullable=False),
    #: Number of the retry that was decided on last.
    Column("number", Integer, nullable=False),
    #: 1 once it came to an end.
    Column("ended", Integer, nullable=False),
    #: After this moment it may be forgotten, once it is old enough.
    Column("changed", Double, nullable=False),
    Column("tries", Blob(), nullable=False),
    Index("taskbus_retry_changed", "changed"),
)
RECORDS = Schema("retry", 1, [_table])
# Made once: making a statement takes longer than to do it.
_LOAD = select(_table).where(_table.c.id.in_(bindparam("ids", expanding=True)))
_DELETE = delete(_table).where(_table.c.id.in_(bindparam("ids", expanding=True)))
_INSERT = insert(_table)
_OLD = select(_table.c.id).where(_table.c.changed < bindparam("before")).limit(bindparam("most", type_=Integer))


@dataclass(slots=True)
class Record:
    """One task, under an ``id`` that is not used for another life of it. Moments are seconds since the epoch.

    ``number`` is that of the retry decided on last; ``tries`` are the attempts that ended.
    """

    id: str
    first: float
    number: int = 0
    ended: bool = False
    changed: float = 0.0
    tries: list[Try] = field(default_factory=list)

    def add(self, attempt: Try) -> None:
        """Remember how one more attempt ended."""
        self.tries.append(attempt)
        if len(self.tries) > _FIRST + _LAST:
            del self.tries[_FIRST]


def try_of(task: Task, number: int) -> Try:
    """How attempt ``number``, counted from 1, ended."""
    found: Try = {"attempt": number, "result": str(task.result or ""), "msg": task.msg[:_LONGEST]}
    for key, moment in (("started", task.started), ("completed", task.completed)):
        if moment is not None:
            found[key] = format_time(moment)
    return found


def load(tx: Connection, ids: Collection[str]) -> dict[str, Record]:
    """The records there are of these ids."""
    found: dict[str, Record] = {}
    for some in _slices(sorted(ids)):
        for row in tx.execute(_LOAD, {"ids": some}):
            tries = orjson.loads(row.tries)
            found[row.id] = Record(row.id, row.first, row.number, bool(row.ended), row.changed, tries)
    return found


def save(tx: Connection, records: Sequence[Record]) -> None:
    """Store these as they are now."""
    for some in _slices(records):
        tx.execute(_DELETE, {"ids": [record.id for record in some]})
        tx.execute(
            _INSERT,
            [
                {
                    "id": record.id,
                    "first": record.first,
                    "number": record.number,
                    "ended": int(record.ended),
                    "changed": record.changed,
                    "tries": orjson.dumps(record.tries),
                }
                for record in some
            ],
        )


def forget(tx: Connection, before: float, limit: int = 1000) -> int:
    """Forget up to ``limit`` records that did not change since that moment. Returns how many."""
    old = list(tx.execute(_OLD, {"before": before, "most": limit}).scalars())
    for some in _slices(old):
        tx.execute(_DELETE, {"ids": some})
    return len(old)


def _slices(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    return (items[start : start + _ROWS] for start in range(0, len(items), _ROWS))
