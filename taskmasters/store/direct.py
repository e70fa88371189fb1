"""A database that one thread has for itself, such as that of a simulation, without what several would need.

SQLAlchemy takes several times as long for a small statement as SQLite does. So one that is done again and again is
compiled once, and its text given to the driver. One connection stays open for all transactions.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import ClauseElement, Connection, Engine, Float, LargeBinary
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TupleType

__all__ = ["Direct"]

Returned = TypeVar("Returned")
_Values = Mapping[str, Any]
#: Texts kept of one statement: for different keys, and lengths of lists behind IN.
_MOST = 1000


class _Text(NamedTuple):
    """What the driver is given: SQL, and of each of its places the name of the value, and the number in a list."""

    sql: str
    places: Sequence[tuple[str, int | None]]
    #: Values that stand in the statement itself.
    fixed: _Values
    #: Names of values that are lists.
    lists: Sequence[str]

    def fill(self, given: _Values) -> list[Any]:
        values = {**self.fixed, **given} if self.fixed else given
        return [values[name] if number is None else values[name][number] for name, number in self.places]


class _Statement:
    """One statement, with its texts by the keys of its values and the lengths of its lists."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._texts: dict[tuple[Any, ...], _Text] = {}
        self._lists: dict[tuple[str, ...], tuple[Sequence[str], _Values]] = {}
        self.row: Callable[[Sequence[Any]], Any] | None = None

    def text(self, given: _Values, dialect: Dialect) -> _Text | None:
        """None if the driver cannot be given these values as they are."""
        keys = tuple(given)
        known = self._lists.get(keys)
        if known is not None:
            lists, fixed = known
            lengths = [len(given[name] if name in given else fixed[name]) for name in lists]
            found = self._texts.get((keys, *lengths))
            if found is not None:
                return found
        return self._compile(keys, given, dialect)

    def _compile(self, keys: tuple[str, ...], given: _Values, dialect: Dialect) -> _Text | None:
        compiled = cast(ClauseElement, self._statement).compile(dialect=dialect, column_keys=list(keys))
        if not isinstance(compiled, SQLCompiler) or not _is_plain(compiled, dialect):
            return None
        values = compiled.construct_params(dict(given))
        state = compiled.construct_expanded_state(dict(given))
        places: dict[str, tuple[str, int | None]] = {name: (name, None) for name in values}
        for name, expanded in state.parameter_expansion.items():
            places |= {one: (name, number) for number, one in enumerate(expanded)}
        fixed = {name: value for name, value in values.items() if name not in given}
        lists = tuple(state.parameter_expansion)
        text = _Text(state.statement, [places[name] for name in state.positiontup or ()], fixed, lists)
        if len(self._texts) >= _MOST:
            self._texts.clear()
        self._lists[keys] = lists, fixed
        self._texts[(keys, *(len(values[name]) for name in lists))] = text
        return text


class Direct:
    """As much of a Connection as is used, and its transactions."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.connect()
        # It begins, as far as SQLAlchemy knows, and never ends.
        self._connection.begin()
        self._driver = cast(sqlite3.Connection, self._connection.connection.driver_connection)
        self._driver.execute("COMMIT")
        self.dialect = engine.dialect
        #: None for one that was done once, False for one that is SQLAlchemy's business.
        self._known: WeakKeyDictionary[Executable, _Statement | bool | None] = WeakKeyDictionary()

    def transaction(self, work: Callable[[Connection], Returned]) -> Returned:
        """Call ``work`` in a transaction, undone if it raises. Raises what SQLAlchemy would."""
        self._driver.execute("BEGIN")
        try:
            result = work(cast(Connection, self))
            self._driver.execute("COMMIT")
        except BaseException as error:
            if self._driver.in_transaction:
                self._driver.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise DBAPIError("", None, error) from error
            raise
        return result

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def execute(self, statement: Executable, parameters: _Values | Sequence[_Values] | None = None) -> Any:
        """See :meth:`sqlalchemy.Connection.execute`."""
        known = self._known.get(statement, True)
        if known is True:
            # Most that is done once is not done again, and to compile it would take longer than what is saved.
            self._known[statement] = None
            return self._connection.execute(statement, parameters)
        if known is None:
            known = self._known[statement] = _Statement(statement)
        many = parameters if isinstance(parameters, Sequence) else [parameters or {}]
        text = known.text(many[0], self.dialect) if known and many else None
        if not known or text is None or (text.lists and len(many) > 1):
            self._known[statement] = False
            return self._connection.execute(statement, parameters)
        if len(many) > 1:
            return _Found([], self._driver.executemany(text.sql, [text.fill(one) for one in many]).rowcount)
        cursor = self._driver.execute(text.sql, text.fill(many[0]))
        if cursor.description is None:
            return _Found([], cursor.rowcount)
        if known.row is None:
            known.row = _row([name for name, *_ in cursor.description])
        return _Found(list(map(known.row, cursor.fetchall())), cursor.rowcount)


def _row(names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """Makes rows like SQLAlchemy's."""
    plain = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    made = type("Row", (plain,), {"__slots__": (), "_mapping": property(lambda row: row._asdict())})
    return made._make  # type: ignore[attr-defined, no-any-return]


class _Found:
    """As much of a CursorResult as is used."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def scalars(self) -> _Found:
        return _Found([row[0] for row in self._rows], self.rowcount)

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def scalar_one(self) -> Any:
        return self.one()[0]


def _is_plain(compiled: SQLCompiler, dialect: Dialect) -> bool:
    """Whether SQLAlchemy would do nothing to the values on their way but what the driver does by itself."""
    given = [bind.type for bind in compiled.binds.values()]
    found = [column.type for column in getattr(compiled.statement, "selected_columns", ())]
    return not any(isinstance(type, TupleType) for type in given) and all(
        isinstance(type, (LargeBinary, Float))
        or (
            type.dialect_impl(dialect).bind_processor(dialect) is None
            and type.dialect_impl(dialect).result_processor(dialect, None) is None
        )
        for type in (*given, *found)
    )
