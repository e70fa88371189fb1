"""Tasks that are to be sent, now or later, stored together with the state that follows from having made them.

One is put in the transaction that decides on it and sent by a :class:`~taskmasters.store.relay.Relay` afterwards.
An id that was put once is not put again, also after it was sent, until it is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    String,
    bindparam,
    delete,
    func,
    select,
    update,
)

from taskmasters.store.schema import ID_LENGTH, Blob, Schema, insert_new, table

__all__ = [
    "OUTBOX",
    "Outgoing",
    "Stored",
    "count",
    "due",
    "forget",
    "put",
    "refuse",
    "sent",
    "take",
    "wake",
    "withdraw",
]

Item = TypeVar("Item")

#: Rows of a statement.
_ROWS = 500


class Outgoing(NamedTuple):
    """A task to be sent. ``due`` is a moment: seconds since the epoch. ``id`` is at most 200 characters."""

    id: str
    topic: str
    body: bytes
    due: float


class Stored(NamedTuple):
    """One that waits. ``number`` grows in the order of putting."""

    number: int
    message: Outgoing


_outbox = table(
    "taskbus_outbox",
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(ID_LENGTH), nullable=False, unique=True),
    Column("topic", String(ID_LENGTH), nullable=False),
    #: Empty once it was sent.
    Column("body", Blob(), nullable=False),
    #: When it is to be sent; NULL once it was, or when the bus refused it.
    Column("due", Double),
    #: When it was sent or refused; NULL while it waits.
    Column("settled", Double),
    Index("taskbus_outbox_due", "due", "number"),
    Index("taskbus_outbox_settled", "settled"),
)
OUTBOX = Schema("outbox", 1, [_outbox])
# Statements that are done for every turn are made once: making one takes longer than to do it.
_DUE = (
    select(_outbox.c.number, _outbox.c.id, _outbox.c.topic, _outbox.c.body, _outbox.c.due)
    .where(_outbox.c.due <= bindparam("now"))
    .order_by(_outbox.c.due, _outbox.c.number)
    .limit(bindparam("most", type_=Integer))
)
_WAKE = select(func.min(_outbox.c.due))
_SETTLE = update(_outbox).where(_outbox.c.number.in_(bindparam("numbers", expanding=True)))
_SENT = _SETTLE.values(due=None, settled=bindparam("now"), body=b"")
_REFUSED = _SETTLE.values(due=None, settled=bindparam("now"))
_WITHDRAWN = delete(_outbox).where(_outbox.c.id.in_(bindparam("ids", expanding=True)), _outbox.c.due.is_not(None))


def put(tx: Connection, *messages: Outgoing) -> None:
    """Store these to be sent. One whose id is known already is left as it was.

    Raises:
        ValueError: for an id that is too long.
    """
    for message in messages:
        if len(message.id) > ID_LENGTH:
            raise ValueError(f"an id in the outbox has at most {ID_LENGTH} characters: {message.id[:40]!r}…")
    for some in _slices(messages):
        insert_new(tx, _outbox, [message._asdict() for message in some])


def withdraw(tx: Connection, ids: Iterable[str]) -> int:
    """Take back those of ``ids`` that were not sent yet, as if they had never been put. Returns how many."""
    taken = 0
    for some in _slices(list(ids)):
        taken += tx.execute(_WITHDRAWN, {"ids": some}).rowcount
    return taken


def due(tx: Connection, now: float, limit: int, without: Collection[str] = ()) -> list[Stored]:
    """The first ``limit`` that are due, in order of moment and putting, but for those of the topics ``without``."""
    found = _DUE.where(_outbox.c.topic.not_in(sorted(without))) if without else _DUE
    rows = tx.execute(found, {"now": now, "most": limit})
    return [Stored(row.number, Outgoing(row.id, row.topic, row.body, row.due)) for row in rows]


def wake(tx: Connection) -> float | None:
    """The moment the next one is due; None if none waits."""
    return tx.execute(_WAKE).scalar()


def sent(tx: Connection, stored: Sequence[Stored], now: float) -> None:
    """These were published and confirmed: only their ids are remembered."""
    for some in _slices(stored):
        numbers = [one.number for one in some]
        tx.execute(_SENT, {"numbers": numbers, "now": now})


def take(tx: Connection, now: float) -> list[Outgoing]:
    """Everything that is due, in order of moment and putting; it counts as sent. For those who have no bus."""
    found: list[Outgoing] = []
    while batch := due(tx, now, _ROWS):
        sent(tx, batch, now)
        found += [stored.message for stored in batch]
        if len(batch) < _ROWS:
            break
    return found


def refuse(tx: Connection, stored: Sequence[Stored], now: float) -> None:
    """The bus will never take these: they are not tried again; their bodies stay."""
    for some in _slices(stored):
        numbers = [one.number for one in some]
        tx.execute(_REFUSED, {"numbers": numbers, "now": now})


def forget(tx: Connection, before: float, limit: int = 10_000) -> int:
    """Forget up to ``limit`` ids that were sent or refused before that moment. Returns how many."""
    old = select(_outbox.c.number).where(_outbox.c.settled < before).limit(limit)
    numbers = list(tx.execute(old).scalars())
    for some in _slices(numbers):
        tx.execute(delete(_outbox).where(_outbox.c.number.in_(some)))
    return len(numbers)


def count(tx: Connection) -> int:
    """How many wait, due or not."""
    return tx.execute(select(func.count()).where(_outbox.c.due.is_not(None))).scalar_one()


def _slices(items: Sequence[Item]) -> Iterable[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, _ROWS)):
        yield some
