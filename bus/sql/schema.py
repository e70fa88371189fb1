"""The tables, and what they mean.

``messages`` holds what was published and is not done with. An ``id`` is a lane and a number: ``lane << 40 | number``.
Each topic has two lanes, one for what was published to be delivered at once and one for what was delayed. So what comes
next on a topic is the next id of its lane, however many delayed messages wait beside it, and no other index is needed.
Numbers are counted by ``topics.last`` and never used again; ``topics.kept`` counts the messages.

Each group reads the first lane in order: ``position`` is the last id it took, ``pending`` counts what is stored behind.
What a group took and has not settled stands in ``deliveries``, as do all its delayed messages. There ``ready_at`` is
when the message may be taken (again), because its delay or the lease of its ``owner`` ends. A message is deleted when
every group has it behind its position and none has a delivery of it.

A group with ``heard`` set belongs to one broadcast consumer, which renews it. It begins at the end, and no message is
deleted or kept for long on its account.

``starts`` says, for each start of the machine, what is added to the time since then (see :mod:`bus.steady`).

``published`` remembers the ids of messages for a while, in slots of time, so that the oldest are found without another
index.
"""

from __future__ import annotations

import os
import sqlite3

from bus.errors import BusURLError

__all__ = ["VERSION", "delayed_lane", "lane", "number_of", "prepare"]

#: Stands in the file as ``user_version``.
VERSION = 1
#: Stands in the file as ``application_id``: "tbus".
APPLICATION = 0x74627573
_BITS = 40

_TABLES = """
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last INTEGER NOT NULL, kept INTEGER NOT NULL
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, order_key TEXT, published INTEGER NOT NULL, due INTEGER, body BLOB NOT NULL
);
CREATE TABLE topic_groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic_id INTEGER NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    pending INTEGER NOT NULL, heard REAL, UNIQUE (topic_id, name)
);
CREATE TABLE deliveries (
    message_id INTEGER NOT NULL, group_id INTEGER NOT NULL, ready_at INTEGER NOT NULL, attempt INTEGER NOT NULL,
    owner INTEGER, history TEXT, PRIMARY KEY (message_id, group_id)
) WITHOUT ROWID;
CREATE INDEX deliveries_ready ON deliveries (group_id, ready_at, message_id, owner);
CREATE TABLE published (
    slot INTEGER NOT NULL, topic_id INTEGER NOT NULL, uid TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (slot, topic_id, uid)
) WITHOUT ROWID;
CREATE TABLE about (epoch TEXT NOT NULL);
"""
#: Not in the databases of the first taskbus, which goes on without it.
_STARTS = "CREATE TABLE IF NOT EXISTS starts (start TEXT PRIMARY KEY, ahead REAL NOT NULL) WITHOUT ROWID"


def lane(topic_id: int) -> int:
    """The id below every message of the topic that was published without delay."""
    return topic_id * 2 << _BITS


def delayed_lane(topic_id: int) -> int:
    """The id below every message of the topic that was published with a delay, and above all others of it."""
    return topic_id * 2 + 1 << _BITS


def number_of(message_id: int) -> int:
    """The place of a message among all of its topic."""
    return message_id & (1 << _BITS) - 1


def prepare(connection: sqlite3.Connection, path: str) -> str:
    """Make the tables in a new database, check them in an old one; returns its epoch.

    Raises:
        BusURLError: if it is somebody else's database, or of a version this taskbus does not know.
        sqlite3.Error.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if tables == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO about (epoch) VALUES (?)", (os.urandom(8).hex(),))
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute(f"PRAGMA application_id={APPLICATION}")
        elif application != APPLICATION:
            raise BusURLError(f"{path} is a database of something else; name another file")
        elif version != VERSION:
            raise BusURLError(
                f"{path} was made by another taskbus (its tables are of version {version}, this one knows {VERSION}); "
                "use that one, or name another file"
            )
        connection.execute(_STARTS)
        epoch: str = connection.execute("SELECT epoch FROM about").fetchone()[0]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return epoch
