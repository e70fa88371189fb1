"""What the cron taskmaster must remember, in a database that several replicas share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import BigInteger, Column, Connection, String, Text, bindparam, or_, select, update

from task.task import derive_id
from taskmasters.store import Schema, Store
from taskmasters.store.schema import ID_LENGTH, insert_new, table

__all__ = ["FIRED", "SharedState"]

_fired = table(
    "taskbus_cron",
    Column("name", String(ID_LENGTH), primary_key=True),
    Column("rule", String(ID_LENGTH), primary_key=True),
    Column("schedule", Text, nullable=False),
    Column("instant", BigInteger, nullable=False),
)
FIRED = Schema("cron", 1, [_fired])
_ADVANCE = (
    update(_fired)
    .where(
        _fired.c.name == bindparam("of"),
        _fired.c.rule == bindparam("which"),
        or_(_fired.c.schedule != bindparam("schedule_now"), _fired.c.instant < bindparam("instant_now")),
    )
    .values(schedule=bindparam("schedule_now"), instant=bindparam("instant_now"))
)


class SharedState:
    """A :class:`taskmasters.cron.state.State` in ``store``, for the rules called ``name``."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        #: Rules that have a row: none is ever taken away.
        self._there: set[str] = set()

    def read(self, schedules: Mapping[str, str]) -> dict[str, int]:
        """See :class:`taskmasters.cron.state.State`."""
        found = self._store.call(self._all)
        known = {rule: found.get(_key(rule)) for rule in schedules}
        return {rule: row[1] for rule, row in known.items() if row is not None and row[0] == schedules[rule]}

    def write(self, fired: Iterable[tuple[str, str, int]]) -> None:
        """See :class:`taskmasters.cron.state.State`."""
        given = {_key(rule): (schedule, instant) for rule, schedule, instant in fired}
        if given:
            self._store.call(lambda tx: self._merge(tx, given))
            self._there.update(given)

    def close(self) -> None:
        """See :class:`taskmasters.cron.state.State`. The store is its owner's."""

    def _all(self, tx: Connection) -> dict[str, tuple[str, int]]:
        rows = tx.execute(select(_fired.c.rule, _fired.c.schedule, _fired.c.instant).where(_fired.c.name == self._name))
        return {row.rule: (row.schedule, row.instant) for row in rows}

    def _merge(self, tx: Connection, given: Mapping[str, tuple[str, int]]) -> None:
        """An instant never goes back while the schedule is the same, whichever of several replicas writes last."""
        rows = [
            {"of": self._name, "which": rule, "schedule_now": schedule, "instant_now": instant}
            for rule, (schedule, instant) in given.items()
        ]
        insert_new(
            tx,
            _fired,
            [
                {"name": self._name, "rule": rule, "schedule": schedule, "instant": instant}
                for rule, (schedule, instant) in given.items()
                if rule not in self._there
            ],
        )
        tx.execute(_ADVANCE, rows)


def _key(rule: str) -> str:
    return rule if len(rule) <= ID_LENGTH else derive_id("rule", rule)
