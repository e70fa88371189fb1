"""The table of the batcher: each request, and how many of its tasks are made."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    String,
    Text,
    delete,
    func,
    select,
    update,
)

from task.task import derive_id
from taskmasters.store.schema import ID_LENGTH, Blob, Schema, insert_new, table

__all__ = [
    "REQUESTS",
    "Row",
    "add",
    "advance",
    "end",
    "find",
    "forget",
    "is_known",
    "key_of",
    "open_count",
    "open_rows",
    "start",
]

_DERIVED = 64
_requests = table(
    "taskbus_batcher",
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    #: Derived from the id of the request, which may be longer than a key, and from which attempt at it this is.
    Column("key", String(_DERIVED), nullable=False, unique=True),
    Column("id", Text, nullable=False),
    Column("body", Blob(), nullable=False),
    Column("arrived", Double, nullable=False),
    #: How many tasks it has, when the first was made, and what the file of its rows was then; NULL before.
    Column("total", BigInteger),
    Column("began", Double),
    Column("signature", Text),
    #: How many are in the outbox or sent.
    Column("made", BigInteger, nullable=False),
    #: When all were made, or it was given up; NULL before.
    Column("ended", Double),
    Index("taskbus_batcher_ended", "ended", "number"),
)
REQUESTS = Schema("batcher", 1, [_requests])


class Row(NamedTuple):
    """One request. ``body`` is the task that asks. Moments are seconds since the epoch."""

    key: str
    id: str
    body: bytes
    arrived: float
    total: int | None
    began: float | None
    signature: str | None
    made: int


_COLUMNS = [_requests.c[name] for name in Row._fields]


def key_of(id: str, attempt: str) -> str:
    """The key of an attempt at the request ``id``."""
    return derive_id("batcher", id, attempt)


def is_known(tx: Connection, key: str) -> bool:
    """Whether it came before."""
    return tx.execute(select(_requests.c.number).where(_requests.c.key == key)).first() is not None


def add(tx: Connection, key: str, id: str, body: bytes, now: float) -> None:
    """A new request."""
    row = {"key": key, "id": id[:ID_LENGTH], "body": body, "arrived": now, "made": 0}
    insert_new(tx, _requests, [row])


def open_rows(tx: Connection, limit: int) -> list[Row]:
    """The oldest that have not ended."""
    query = select(*_COLUMNS).where(_requests.c.ended.is_(None)).order_by(_requests.c.number).limit(limit)
    return [Row(*row) for row in tx.execute(query)]


def find(tx: Connection, id: str) -> list[Row]:
    """Those of that id that have not ended."""
    query = select(*_COLUMNS).where(_requests.c.ended.is_(None), _requests.c.id == id[:ID_LENGTH])
    return [Row(*row) for row in tx.execute(query)]


def open_count(tx: Connection) -> int:
    """How many have not ended."""
    return tx.execute(select(func.count()).where(_requests.c.ended.is_(None))).scalar_one()


def start(tx: Connection, key: str, total: int, signature: str, now: float) -> bool:
    """Its tasks are right and so many. False if another instance has found that out, or it has ended."""
    mine = (_requests.c.key == key) & _requests.c.total.is_(None) & _requests.c.ended.is_(None)
    return tx.execute(update(_requests).where(mine).values(total=total, signature=signature, began=now)).rowcount == 1


def advance(tx: Connection, key: str, made: int, now_made: int) -> bool:
    """``now_made`` are made where ``made`` were. False if another instance has made more, or it has ended."""
    mine = (_requests.c.key == key) & (_requests.c.made == made) & _requests.c.ended.is_(None)
    return tx.execute(update(_requests).where(mine).values(made=now_made)).rowcount == 1


def end(tx: Connection, key: str, now: float) -> bool:
    """It has come to its end. False if it had before."""
    mine = (_requests.c.key == key) & _requests.c.ended.is_(None)
    return tx.execute(update(_requests).where(mine).values(ended=now)).rowcount == 1


def forget(tx: Connection, before: float, limit: int = 1000) -> int:
    """Forget up to ``limit`` that ended before that moment. Returns how many."""
    old = select(_requests.c.number).where(_requests.c.ended < before).limit(limit)
    numbers = list(tx.execute(old).scalars())
    if numbers:
        tx.execute(delete(_requests).where(_requests.c.number.in_(numbers)))
    return len(numbers)
