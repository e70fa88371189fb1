"""What the cron taskmaster must remember: the latest instant of each rule it has dealt with. A small SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

from task.errors import StateError

__all__ = ["Fired", "NoState", "SqliteState", "State", "StateError"]

_SCHEMA = "CREATE TABLE IF NOT EXISTS fired (rule TEXT PRIMARY KEY, schedule TEXT NOT NULL, instant INTEGER NOT NULL)"
#: An instant never goes back while the schedule is the same, whichever of several replicas writes last.
_INSERT = "INSERT INTO fired (rule, schedule, instant) VALUES "
_MERGE = """
ON CONFLICT (rule) DO UPDATE SET schedule = excluded.schedule,
    instant = CASE WHEN schedule = excluded.schedule THEN max(instant, excluded.instant) ELSE excluded.instant END
"""
#: Rules written by one statement, whose 3 values each SQLite has room for. One by one would take long beside other
#: work: sqlite3 lets go of the interpreter for each statement, and may wait 5 ms to have it back.
_MANY = 300
#: Rule id, schedule, instant.
Fired = tuple[str, str, int]
Returned = TypeVar("Returned")


class State(Protocol):
    """Keeps the latest instant of each rule. The schedule is kept with it: another schedule begins anew."""

    def read(self, schedules: Mapping[str, str]) -> dict[str, int]:
        """The latest instants of those of these rules, given as id and schedule, that are known with that schedule."""
        ...

    def write(self, fired: Iterable[Fired]) -> None:
        """Remember rule id, schedule and latest instant of some rules."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class SqliteState:
    """A state file. Every method raises StateError if it cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            with connection:
                connection.execute(_SCHEMA)
            return connection

        self._connection = self._guard(connect)

    def read(self, schedules: Mapping[str, str]) -> dict[str, int]:
        """See :class:`State`."""
        rows = self._guard(lambda: self._connection.execute("SELECT rule, schedule, instant FROM fired").fetchall())
        return {rule: instant for rule, schedule, instant in rows if schedules.get(rule) == schedule}

    def write(self, fired: Iterable[Fired]) -> None:
        """See :class:`State`. Lasting when it returns, but for a power failure."""

        rows = list(fired)

        def write() -> None:
            with self._connection:
                for start in range(0, len(rows), _MANY):
                    some = rows[start : start + _MANY]
                    statement = _INSERT + ",".join(["(?,?,?)"] * len(some)) + _MERGE
                    self._connection.execute(statement, list(chain.from_iterable(some)))

        self._guard(write)

    def close(self) -> None:
        """See :class:`State`."""
        self._guard(self._connection.close)

    def _guard(self, call: Callable[[], Returned]) -> Returned:
        try:
            return call()
        except sqlite3.Error as error:
            hint = (
                "" if Path(self._path).is_file() else "; name a place that can be written with --state, or - for none"
            )
            raise StateError(f"the state file {self._path} cannot be used: {error}{hint}") from error


class NoState:
    """Remembers nothing: every start begins with the present."""

    def read(self, schedules: Mapping[str, str]) -> dict[str, int]:
        """See :class:`State`."""
        return {}

    def write(self, fired: Iterable[Fired]) -> None:
        """See :class:`State`."""

    def close(self) -> None:
        """See :class:`State`."""
