"""Tables: created where they are missing, with a version each part of taskbus keeps of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, Engine, Insert, Integer, LargeBinary, MetaData, String, Table, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import SchemaItem

from task.errors import StateError

__all__ = ["ID_LENGTH", "Blob", "Schema", "insert_new", "metadata", "table"]

#: Characters of the longest id that may be a key. Of longer texts a derived id is the key.
ID_LENGTH = 200
#: How often tables are tried to create: another process may create the same ones at the same time.
_TRIES = 5

metadata = MetaData()


def Blob() -> LargeBinary:  # noqa: N802 - it is used as a type
    """Bytes of any length a bus carries. A plain one would end at 64 KiB in MySQL."""
    return LargeBinary(2**32 - 1)


def table(name: str, *parts: SchemaItem) -> Table:
    """A table of ours, whose texts compare alike in every database: MySQL is told to compare them byte by byte.

    A number that a row had is never given to another one, as SQLite would unless told.
    """
    return Table(
        name,
        metadata,
        *parts,
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        sqlite_autoincrement=True,
    )


class Schema:
    """The tables of one part of taskbus. ``version`` grows with every change that older code could not live with."""

    def __init__(self, name: str, version: int, tables: Sequence[Table]) -> None:
        self.name = name
        self.version = version
        self.tables = tuple(tables)


_versions = table(
    "taskbus_schema", Column("name", String(ID_LENGTH), primary_key=True), Column("version", Integer, nullable=False)
)


def prepare(engine: Engine, schemas: Sequence[Schema], shown: str) -> None:
    """Create what is missing.

    Raises:
        StateError: if the tables there are of another version.
        SQLAlchemyError: from the database.
    """
    tables = [_versions, *(table for schema in schemas for table in schema.tables)]
    known = _create(engine, schemas, tables, _TRIES)
    for schema in schemas:
        found = known.get(schema.name, schema.version)
        if found != schema.version:
            age = "newer" if found > schema.version else "older"
            raise StateError(
                f"the tables of {schema.name} in {shown} have version {found}, which is {age} than the "
                f"{schema.version} of this taskbus; use the taskbus that made them, or another place for the state"
            )


def _create(engine: Engine, schemas: Sequence[Schema], tables: list[Table], tries: int) -> dict[str, int]:
    """Create what is missing; the versions that were there before."""
    try:
        with engine.begin() as tx:
            metadata.create_all(tx, tables)
            known = {row.name: row.version for row in tx.execute(select(_versions))}
            insert_new(tx, _versions, [{"name": s.name, "version": s.version} for s in schemas if s.name not in known])
            return known
    except DBAPIError:
        if tries == 1:
            raise
    return _create(engine, schemas, tables, tries - 1)


def insert_new(tx: Connection, into: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert those of ``rows`` whose key is not there yet."""
    if rows:
        tx.execute(_insert_new(tx.dialect.name, into), rows)


@lru_cache(maxsize=256)
def _insert_new(dialect: str, into: Table) -> Insert:
    # Made once for each table: making a statement takes longer than to do it.
    if dialect == "mysql":
        from sqlalchemy.dialects import mysql

        # INSERT IGNORE would also cut texts that are too long. Setting a column to itself changes nothing.
        key = next(iter(into.primary_key.columns))
        return mysql.insert(into).on_duplicate_key_update({key.name: key})
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(into).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(into).on_conflict_do_nothing()
