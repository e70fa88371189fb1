"""The seat of an election in a database."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import BigInteger, Column, Connection, String, select, update

from taskmasters.leader import Held
from taskmasters.store.schema import ID_LENGTH, Schema, insert_new, table
from taskmasters.store.store import Store

__all__ = ["LEADER", "SqlSeat"]

_leader = table(
    "taskbus_leader",
    Column("name", String(ID_LENGTH), primary_key=True),
    Column("holder", String(ID_LENGTH), nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
)
LEADER = Schema("leader", 1, [_leader])


class SqlSeat:
    """A :class:`taskmasters.leader.Seat`: the row of ``name`` in ``store``."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def change(self, decide: Callable[[Held | None], Held | None]) -> None:
        """See :class:`taskmasters.leader.Seat`."""

        def work(tx: Connection) -> None:
            row = tx.execute(
                select(_leader.c.holder, _leader.c.term, _leader.c.beat).where(_leader.c.name == self._name)
            ).one_or_none()
            wanted = decide(None if row is None else Held(*row))
            if wanted is None:
                return
            if row is None:
                insert_new(tx, _leader, [{"name": self._name, **wanted._asdict()}])
            else:
                tx.execute(update(_leader).where(_leader.c.name == self._name).values(**wanted._asdict()))

        self._store.call(work)
