"""The database in one file, by way of the standard library.

Everything here is called from one thread. ``sqlite3`` lets go of Python's interpreter lock for every row it inserts or
fetches, and while another thread computes it may wait 5 ms to get it back. So many rows travel in one step: into the
database by multi-row INSERTs and JSON lists, out of it as one JSON text and one blob.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import orjson

from bus.errors import BusError, BusURLError, ClosedError, CorruptError
from bus.sql.database import Transaction
from bus.sql.schema import prepare
from bus.sql.statements import Bulk
from bus.sql.trouble import BUSY, code_of, explain

__all__ = ["SqliteDatabase"]

#: Rows of one INSERT. Two sizes, so that few statements stay prepared.
_MANY = 100
_LIST = re.compile(r"IN :(\w+)")
_VALUES = re.compile(r"VALUES \(([^)]*)\)")
#: Seconds between tries for a lock: short at first, as most transactions take some milliseconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.01
#: The log is copied into the database after 2000 pages (of 4 KiB), and cut to 32 MiB if it has grown beyond.
_PRAGMAS = """
PRAGMA wal_autocheckpoint=2000; PRAGMA journal_size_limit=33554432; PRAGMA secure_delete=OFF; PRAGMA temp_store=MEMORY;
"""
Result = TypeVar("Result")


class _Expanded(NamedTuple):
    text: str
    lists: tuple[str, ...]


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._expanded: dict[str, _Expanded] = {}
        self._bulk: dict[str, _Expanded] = {}
        self._inserts: dict[str, tuple[str, str]] = {}

    def rows(self, text: str, **values: Any) -> list[tuple[Any, ...]]:
        return self._execute(self._expand(text), values).fetchall()

    def run(self, text: str, **values: Any) -> int:
        return self._execute(self._expand(text), values).rowcount

    def bulk(self, query: Bulk, **values: Any) -> list[tuple[Any, ...]]:
        expanded = self._bulk.get(query.text)
        if expanded is None:
            *plain, blob = query.columns
            columns = ", ".join([*plain, f"LENGTH({blob})"])
            inner = self._expand(query.text)
            text = f"SELECT json_group_array(json_array({columns})), CAST(group_concat({blob}, '') AS BLOB) "
            expanded = self._bulk[query.text] = _Expanded(f"{text} FROM ({inner.text})", inner.lists)
        found, blobs = self._execute(expanded, values).fetchall()[0]
        rows, start = [], 0
        for *row, length in orjson.loads(found):
            end = start + length
            rows.append((*row, blobs[start:end]))
            start = end
        return rows

    def insert(self, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if text not in self._inserts:
            self._inserts[text] = (_multiply(text, 1), _multiply(text, _MANY))
        one, many = self._inserts[text]
        whole = len(rows) - len(rows) % _MANY
        for start in range(0, whole, _MANY):
            self._cursor.execute(many, list(chain.from_iterable(rows[start : start + _MANY])))
        for row in rows[whole:]:
            self._cursor.execute(one, row)

    def _expand(self, text: str) -> _Expanded:
        found = self._expanded.get(text)
        if found is None:
            lists = tuple(_LIST.findall(text))
            expanded = _LIST.sub(r"IN (SELECT value FROM json_each(:\1))", text)
            found = self._expanded[text] = _Expanded(expanded, lists)
        return found

    def _execute(self, statement: _Expanded, values: dict[str, Any]) -> sqlite3.Cursor:
        for name in statement.lists:
            values[name] = orjson.dumps(values[name]).decode()
        return self._cursor.execute(statement.text, values)


def _multiply(text: str, count: int) -> str:
    match = _VALUES.search(text)
    if match is None:
        raise ValueError(f"no VALUES in {text}")
    row = "(" + ", ".join("?" * (match[1].count(",") + 1)) + ")"
    return f"{text[: match.start()]}VALUES {', '.join([row] * count)}{text[match.end() :]}"


class SqliteDatabase:
    """One file in WAL mode. Between processes, writers wait for each other and readers for nobody."""

    def __init__(self, path: str, *, synchronous: str, wait: float) -> None:
        self._path = path
        self._durable = synchronous
        self._wait = wait
        self._connection: sqlite3.Connection | None = None
        self._transaction: _SqliteTransaction | None = None
        self._file: tuple[int, int] | None = None
        self._version = -1
        self._level = ""
        self._waiting_since: float | None = None

    def open(self) -> str:
        try:
            connection = self._connection = sqlite3.connect(self._path, timeout=0.005, isolation_level=None)
            self._patiently(self._set_mode)
            self._patiently(partial(connection.executescript, _PRAGMAS))
            self._set_level(self._durable)
            epoch = self._patiently(lambda: prepare(connection, self._path))
        except sqlite3.Error as error:
            self.close()
            raise explain(error, self._path) from error
        except BusError:
            self.close()
            raise
        self._transaction = _SqliteTransaction(connection)
        self._file = _identity(self._path)
        return epoch

    def write(self, work: Callable[[Transaction], Result], *, durable: bool) -> Result:
        return self._transact("BEGIN IMMEDIATE", work, self._durable if durable else "normal")

    def read(self, work: Callable[[Transaction], Result]) -> Result:
        return self._transact("BEGIN", work, self._level)

    def changed(self) -> bool:
        connection, _ = self._checked()
        try:
            (version,) = self._patiently(lambda: connection.execute("PRAGMA data_version")).fetchone()
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def waits_for_lock(self) -> bool:
        """Whether another process has kept us from working for a second. May be asked from any thread."""
        since = self._waiting_since
        return since is not None and time.monotonic() - since > 1.0

    def _transact(self, begin: str, work: Callable[[Transaction], Result], level: str) -> Result:
        connection, transaction = self._checked()
        try:
            self._set_level(level)
            self._patiently(lambda: connection.execute(begin))
            result = work(transaction)
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise explain(error, self._path) from error
            raise
        return result

    def _checked(self) -> tuple[sqlite3.Connection, _SqliteTransaction]:
        """The connection. What is written to a deleted file would be confirmed, and seen by nobody."""
        if self._connection is None or self._transaction is None:
            raise ClosedError(f"{self._path} is not open")
        if _identity(self._path) != self._file:
            raise CorruptError(
                f"{self._path} was deleted or replaced while it was in use; start again to use what is there"
            )
        return self._connection, self._transaction

    def _set_mode(self) -> None:
        connection = self._connection
        if connection is None:
            return
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise BusURLError(f"{self._path}: its file system cannot share memory; put it on a local disk")

    def _set_level(self, level: str) -> None:
        if level != self._level and self._connection is not None:
            self._connection.execute(f"PRAGMA synchronous={level}")
            self._level = level

    def _patiently(self, attempt: Callable[[], Result]) -> Result:
        """``attempt``, tried again while another process has the lock.

        SQLite's own waiting is not used: it sleeps up to 100 ms at a time, and not at all where the mode is changed.
        """
        began, pause = time.monotonic(), _FIRST_PAUSE
        try:
            while True:
                try:
                    return attempt()
                except sqlite3.OperationalError as error:
                    if code_of(error) not in BUSY or time.monotonic() - began >= self._wait:
                        raise
                self._waiting_since = began
                time.sleep(random.uniform(0.5, 1.0) * pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        finally:
            self._waiting_since = None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
