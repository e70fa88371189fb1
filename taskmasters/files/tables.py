"""The tables of the files taskmaster: what was seen of each file, and what was done about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    String,
    Text,
    and_,
    delete,
    insert,
    select,
    update,
)

from task.task import derive_id
from taskmasters.files.entry import Entry
from taskmasters.store.schema import ID_LENGTH, Schema, insert_new, table

__all__ = [
    "FILES",
    "Row",
    "begin",
    "begun",
    "claim",
    "claimed",
    "drop",
    "forget",
    "mark_gone",
    "read",
    "retire",
    "save",
]

Item = TypeVar("Item")
_DERIVED = 64
#: Values in a statement.
_ROWS = 400

_files = table(
    "taskbus_files",
    Column("rule", String(ID_LENGTH), primary_key=True),
    #: Derived from the path, which may be longer than a key.
    Column("key", String(_DERIVED), primary_key=True),
    Column("path", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime", Double, nullable=False),
    Column("arrived", Double, nullable=False),
    #: Key of its group; empty if the rule has none.
    Column("grp", Text, nullable=False),
    #: Id of the task it was sent in; empty if it is not to be sent; NULL while it waits for its group.
    Column("task", String(_DERIVED)),
    #: Since when it is not where it was; NULL while it is.
    Column("gone", Double),
    Index("taskbus_files_gone", "gone"),
)
#: The rules whose first look was dealt with.
_rules = table(
    "taskbus_files_rules", Column("rule", String(ID_LENGTH), primary_key=True), Column("began", Double, nullable=False)
)
#: One row: which instance is at work.
_owner = table(
    "taskbus_files_owner",
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("token", String(_DERIVED), nullable=False),
)
FILES = Schema("files", 1, [_files, _rules, _owner])


class Row(NamedTuple):
    """One file of one rule."""

    rule: str
    entry: Entry
    arrived: float
    group: str
    task: str | None
    gone: bool = False


def claim(tx: Connection, token: str) -> None:
    """From now on only the instance that has ``token`` works on these tables."""
    tx.execute(delete(_owner))
    tx.execute(insert(_owner), {"one": 1, "token": token})


def claimed(tx: Connection, token: str) -> bool:
    """Whether that is still so."""
    return tx.execute(select(_owner.c.token)).scalar() == token


def read(tx: Connection, rule: str) -> list[Row]:
    """All that is known of a rule's files."""
    found = tx.execute(select(_files).where(_files.c.rule == rule))
    return [Row(rule, _entry(row), row.arrived, row.grp, row.task, row.gone is not None) for row in found]


def save(tx: Connection, rows: Sequence[Row]) -> None:
    """Write these in place of what was known of the same files."""
    for rule, some in _by_rule((row.rule, row) for row in rows):
        for part in _slices(some):
            values = [_values(row) for row in part]
            keys = [value["key"] for value in values]
            tx.execute(delete(_files).where(and_(_files.c.rule == rule, _files.c.key.in_(keys))))
            tx.execute(insert(_files), values)


def drop(tx: Connection, files: Iterable[tuple[str, str]]) -> None:
    """Forget these, by rule and path."""
    for rule, paths in _by_rule(files):
        for part in _slices([_key(path) for path in paths]):
            tx.execute(delete(_files).where(and_(_files.c.rule == rule, _files.c.key.in_(part))))


def mark_gone(tx: Connection, files: Iterable[tuple[str, str]], since: float | None) -> None:
    """These are gone since then, or with None are there again."""
    for rule, paths in _by_rule(files):
        for part in _slices([_key(path) for path in paths]):
            tx.execute(update(_files).where(and_(_files.c.rule == rule, _files.c.key.in_(part))).values(gone=since))


def retire(tx: Connection, rules: Sequence[str], now: float) -> None:
    """The files of all rules but these count as gone from now on, as their rules are."""
    tx.execute(update(_files).where(_files.c.rule.not_in(rules), _files.c.gone.is_(None)).values(gone=now))


def forget(tx: Connection, before: float, limit: int = 5000) -> list[tuple[str, str]]:
    """Forget up to ``limit`` files that are gone since before that moment. Returns their rules and paths."""
    old = select(_files.c.rule, _files.c.path).where(_files.c.gone < before).limit(limit)
    found = [(row.rule, row.path) for row in tx.execute(old)]
    drop(tx, found)
    return found


def begin(tx: Connection, rules: Iterable[str], now: float) -> None:
    """The first look of these rules was dealt with."""
    insert_new(tx, _rules, [{"rule": rule, "began": now} for rule in rules])


def begun(tx: Connection) -> set[str]:
    """The rules whose first look was dealt with."""
    return set(tx.execute(select(_rules.c.rule)).scalars())


def _values(row: Row) -> dict[str, Any]:
    path, size, mtime, version = row.entry
    return {
        "rule": row.rule,
        "key": _key(path),
        "path": path,
        "version": version,
        "size": size,
        "mtime": mtime,
        "arrived": row.arrived,
        "grp": row.group,
        "task": row.task,
        "gone": None,
    }


def _entry(row: Any) -> Entry:
    return Entry(row.path, row.size, row.mtime, row.version)


def _key(path: str) -> str:
    return derive_id("path", path)


def _by_rule(pairs: Iterable[tuple[str, Item]]) -> Iterable[tuple[str, list[Item]]]:
    found: dict[str, list[Item]] = {}
    for rule, item in pairs:
        found.setdefault(rule, []).append(item)
    return found.items()


def _slices(items: Sequence[Item]) -> Iterable[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, _ROWS)):
        yield some
