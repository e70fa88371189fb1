"""The tables, and what they mean.

``messages`` holds what was published and is not yet done with. Each group reads the messages of its topic in order;
``cursor`` is the last it has looked at. What it looked at and has not settled stands in ``deliveries``: ``ready_at`` is
when it may be taken (again): at once, when its delay is over, or when the lease of its ``owner`` ends. Settling demands
the same owner and attempt, so that whoever lost a lease cannot settle. A message is deleted when no group needs it.
"""

from __future__ import annotations

import os
import sqlite3

from bus.errors import CorruptError

__all__ = ["VERSION", "prepare"]

#: Stands in the file as ``user_version``.
VERSION = 1

_TABLES = """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT, due REAL, body BLOB NOT NULL
);
CREATE INDEX messages_topic ON messages (topic, id);
CREATE TABLE groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, name TEXT NOT NULL, cursor INTEGER NOT NULL,
    expires REAL, UNIQUE (topic, name)
);
CREATE TABLE deliveries (
    group_id INTEGER NOT NULL, message_id INTEGER NOT NULL, ready_at REAL NOT NULL, attempt INTEGER NOT NULL,
    owner TEXT, history TEXT, PRIMARY KEY (group_id, message_id)
) WITHOUT ROWID;
CREATE INDEX deliveries_ready ON deliveries (group_id, ready_at, message_id);
CREATE TABLE published (
    topic TEXT NOT NULL, uid TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (topic, uid)
) WITHOUT ROWID;
CREATE INDEX published_at ON published (at);
CREATE TABLE about (epoch TEXT NOT NULL);
"""


def prepare(connection: sqlite3.Connection, path: str) -> str:
    """Make the tables in a new database, check them in an old one; returns its epoch.

    Raises:
        CorruptError: if it is somebody else's database or of another version.
        sqlite3.Error.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO about (epoch) VALUES (?)", (os.urandom(8).hex(),))
            connection.execute(f"PRAGMA user_version={VERSION}")
        elif version != VERSION:
            kind = f"of version {version}, this taskbus reads version {VERSION}" if version else "not a taskbus bus"
            raise CorruptError(f"{path} is a database {kind}; use another file")
        epoch: str = connection.execute("SELECT epoch FROM about").fetchone()[0]
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return epoch
