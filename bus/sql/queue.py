"""What the bus does in the database. Every function here runs inside a transaction on the database's thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from bus.contract import Delivery, Depth, Message, Peeked

__all__ = ["Claimed", "Queue", "publish", "topics"]

#: Seconds for which a published id is remembered.
DEDUPE = 600.0
#: Seconds after which a broadcast group nobody reads is forgotten.
EPHEMERAL = 60.0
#: Messages looked at in one transaction on the way to the next that is not delayed.
_SCAN = 1000

_DELETE_MESSAGE = """
DELETE FROM messages WHERE id = :id
AND EXISTS (SELECT 1 FROM groups WHERE topic = :topic AND expires IS NULL)
AND NOT EXISTS (SELECT 1 FROM groups WHERE topic = :topic AND cursor < :id)
AND NOT EXISTS (SELECT 1 FROM groups g JOIN deliveries d ON d.group_id = g.id AND d.message_id = :id
                WHERE g.topic = :topic)
"""
_SWEEP = """
DELETE FROM messages WHERE topic = :topic
AND EXISTS (SELECT 1 FROM groups WHERE topic = :topic AND expires IS NULL)
AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.topic = :topic AND g.cursor < messages.id)
AND NOT EXISTS (SELECT 1 FROM groups g JOIN deliveries d ON d.group_id = g.id AND d.message_id = messages.id
                WHERE g.topic = :topic)
"""
_MINE = "WHERE group_id = ? AND message_id = ? AND owner = ? AND attempt = ?"


class Claimed(NamedTuple):
    """What a claim brought. ``next_due`` is when something more becomes ready by itself; ``again`` = ask at once."""

    deliveries: list[Delivery]
    next_due: float | None
    again: bool


def publish(db: sqlite3.Connection, messages: Sequence[Message], now: float) -> None:
    """Store ``messages``, but those whose id was published within the window."""
    if any(message.id is not None for message in messages):
        db.execute("DELETE FROM published WHERE at < ?", (now - DEDUPE,))
        messages = [message for message in messages if message.id is None or _is_new(db, message, now)]
    db.executemany(
        "INSERT INTO messages (topic, key, due, body) VALUES (?, ?, ?, ?)",
        [(m.topic, m.key, now + m.delay if m.delay > 0 else None, m.body) for m in messages],
    )


def _is_new(db: sqlite3.Connection, message: Message, now: float) -> bool:
    row = (message.topic, message.id, now)
    return db.execute("INSERT OR IGNORE INTO published (topic, uid, at) VALUES (?, ?, ?)", row).rowcount == 1


def topics(db: sqlite3.Connection) -> list[str]:
    """Names of the topics that hold a message or have a group."""
    # One index lookup per topic: DISTINCT would read the index entry of every message.
    found = {name for (name,) in db.execute("SELECT DISTINCT topic FROM groups WHERE expires IS NULL")}
    last = ""
    while (row := db.execute("SELECT MIN(topic) FROM messages WHERE topic > ?", (last,)).fetchone())[0] is not None:
        last = row[0]
        found.add(last)
    return sorted(found)


class Queue:
    """One group of one topic, for one consumer. ``name`` None makes an ephemeral group that begins at the end."""

    def __init__(self, topic: str, name: str | None, owner: str, lease: float) -> None:
        self.topic = topic
        self._name = name
        self._owner = owner
        self._lease = lease
        self._id = 0

    def join(self, db: sqlite3.Connection, now: float) -> None:
        """Make the group if it is new."""
        self._forget_ephemeral(db, now)
        if self._name is None:
            (last,) = db.execute("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'messages'").fetchone()
            row = (self.topic, f"~{self._owner}", last, now + EPHEMERAL)
            db.execute("INSERT INTO groups (topic, name, cursor, expires) VALUES (?, ?, ?, ?)", row)
        else:
            db.execute("INSERT OR IGNORE INTO groups (topic, name, cursor) VALUES (?, ?, 0)", (self.topic, self._name))
        name = self._name or f"~{self._owner}"
        (self._id,) = db.execute("SELECT id FROM groups WHERE topic = ? AND name = ?", (self.topic, name)).fetchone()

    def _forget_ephemeral(self, db: sqlite3.Connection, now: float) -> None:
        for group, topic in db.execute("SELECT id, topic FROM groups WHERE expires < ?", (now,)).fetchall():
            self._forget(db, group, topic)

    def _forget(self, db: sqlite3.Connection, group: int, topic: str) -> None:
        db.execute("DELETE FROM deliveries WHERE group_id = ?", (group,))
        db.execute("DELETE FROM groups WHERE id = ?", (group,))
        db.execute(_SWEEP, {"topic": topic})

    def leave(self, db: sqlite3.Connection) -> None:
        """An ephemeral group ends with its only consumer."""
        if self._name is None:
            self._forget(db, self._id, self.topic)

    def keep(self, db: sqlite3.Connection, now: float) -> None:
        """An ephemeral group is still read."""
        db.execute("UPDATE groups SET expires = ? WHERE id = ? AND expires IS NOT NULL", (now + EPHEMERAL, self._id))

    def pending(self, db: sqlite3.Connection, now: float) -> bool:
        """Whether a claim would find anything, without writing."""
        row = db.execute(
            """SELECT EXISTS (SELECT 1 FROM deliveries WHERE group_id = :group AND ready_at <= :now)
            OR EXISTS (SELECT 1 FROM messages WHERE topic = :topic
                       AND id > (SELECT cursor FROM groups WHERE id = :group))""",
            {"group": self._id, "topic": self.topic, "now": now},
        ).fetchone()
        return bool(row[0])

    def claim(self, db: sqlite3.Connection, limit: int, now: float) -> Claimed:
        """Take up to ``limit`` messages: first what became ready again, then new ones."""
        until = now + self._lease
        rows = db.execute(
            """SELECT d.message_id, d.attempt, d.history, m.key, m.body FROM deliveries d
            JOIN messages m ON m.id = d.message_id WHERE d.group_id = ? AND d.ready_at <= ?
            ORDER BY d.ready_at, d.message_id LIMIT ?""",
            (self._id, now, limit),
        ).fetchall()
        deliveries = [
            Delivery(body, str(id), attempt + 1, key, tuple(json.loads(history)) if history else (), id)
            for id, attempt, history, key, body in rows
        ]
        db.executemany(
            "UPDATE deliveries SET ready_at = ?, attempt = ?, owner = ? WHERE group_id = ? AND message_id = ?",
            [(until, d.attempt, self._owner, self._id, d.handle) for d in deliveries],
        )
        again = False
        if len(deliveries) < limit:
            again = self._claim_new(db, deliveries, limit, now)
        next_due = None
        if not deliveries and not again:
            query = "SELECT MIN(ready_at) FROM deliveries WHERE group_id = ?"
            (next_due,) = db.execute(query, (self._id,)).fetchone()
        return Claimed(deliveries, next_due, again)

    def _claim_new(self, db: sqlite3.Connection, deliveries: list[Delivery], limit: int, now: float) -> bool:
        """Take new messages up to ``limit``; delayed ones are noted. True if there may be more behind them."""
        found = db.execute("SELECT cursor FROM groups WHERE id = ?", (self._id,)).fetchone()
        if found is None:
            return False
        (cursor,) = found
        start, scanned = cursor, 0
        until = now + self._lease
        while len(deliveries) < limit and scanned < _SCAN:
            wanted = limit - len(deliveries)
            rows = db.execute(
                "SELECT id, key, due, body FROM messages WHERE topic = ? AND id > ? ORDER BY id LIMIT ?",
                (self.topic, cursor, wanted),
            ).fetchall()
            if not rows:
                break
            cursor, scanned = rows[-1][0], scanned + len(rows)
            db.executemany(
                "INSERT INTO deliveries (group_id, message_id, ready_at, attempt, owner) VALUES (?, ?, ?, ?, ?)",
                [
                    (self._id, id, due, 0, None)
                    if due is not None and due > now
                    else (self._id, id, until, 1, self._owner)
                    for id, _, due, _ in rows
                ],
            )
            deliveries += [
                Delivery(body, str(id), 1, key, (), id) for id, key, due, body in rows if due is None or due <= now
            ]
        if cursor != start:
            db.execute("UPDATE groups SET cursor = ? WHERE id = ?", (cursor, self._id))
        return not deliveries and scanned >= _SCAN

    def _rows(self, deliveries: Sequence[Delivery]) -> list[tuple[int, int, str, int]]:
        return [(self._id, d.handle, self._owner, d.attempt) for d in deliveries]

    def lost(self, db: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of ``deliveries`` that somebody else has taken."""
        query = f"SELECT 1 FROM deliveries {_MINE}"  # noqa: S608  (constants of this module)
        rows = self._rows(deliveries)
        return [d for d, row in zip(deliveries, rows, strict=True) if db.execute(query, row).fetchone() is None]

    def ack(self, db: sqlite3.Connection, deliveries: Sequence[Delivery]) -> int:
        """Forget these as far as they are ours; how many were."""
        count = db.executemany(f"DELETE FROM deliveries {_MINE}", self._rows(deliveries)).rowcount  # noqa: S608
        db.executemany(_DELETE_MESSAGE, [{"id": d.handle, "topic": self.topic} for d in deliveries])
        return count

    def give_back(
        self, db: sqlite3.Connection, deliveries: Sequence[Delivery], at: float, reason: str | None, *, count: bool
    ) -> None:
        """Make these ready again, not before ``at``, as far as they are ours; ``count``: whether the attempt counts."""
        step = 0 if count else 1
        for delivery, row in zip(deliveries, self._rows(deliveries), strict=True):
            history = json.dumps([*delivery.history, reason]) if reason is not None else None
            db.execute(
                "UPDATE deliveries SET ready_at = ?, attempt = attempt - ?, owner = NULL, "  # noqa: S608
                f"history = COALESCE(?, history) {_MINE}",
                (at, step, history, *row),
            )

    def extend(self, db: sqlite3.Connection, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Renew the leases of these; the lost ones are returned."""
        rows = [(now + self._lease, *row) for row in self._rows(deliveries)]
        count = db.executemany(f"UPDATE deliveries SET ready_at = ? {_MINE}", rows).rowcount  # noqa: S608
        return [] if count == len(deliveries) else self.lost(db, deliveries)

    @staticmethod
    def depth(db: sqlite3.Connection, topic: str, name: str, now: float) -> Depth:
        """What is pending for a group, known or not."""
        group, cursor = _find(db, topic, name)
        counts = db.execute(
            """SELECT COALESCE(SUM(ready_at <= :now), 0), COALESCE(SUM(ready_at > :now AND owner IS NULL), 0),
            COALESCE(SUM(ready_at > :now AND owner IS NOT NULL), 0) FROM deliveries WHERE group_id = :group""",
            {"now": now, "group": group},
        ).fetchone()
        fresh = db.execute(
            "SELECT COUNT(*), COALESCE(SUM(due > ?), 0) FROM messages WHERE topic = ? AND id > ?", (now, topic, cursor)
        ).fetchone()
        return Depth(counts[0] + fresh[0] - fresh[1], counts[1] + fresh[1], counts[2])

    @staticmethod
    def peek(db: sqlite3.Connection, topic: str, name: str | None, limit: int, now: float) -> list[Peeked]:
        """The oldest pending messages of a group, or the oldest stored of the topic."""
        if name is None:
            rows = db.execute("SELECT id, body, due FROM messages WHERE topic = ? ORDER BY id LIMIT ?", (topic, limit))
            return [Peeked(str(id), body, "delayed" if due and due > now else "ready") for id, body, due in rows]
        group, cursor = _find(db, topic, name)
        rows = db.execute(
            """SELECT m.id, m.body, d.ready_at, d.attempt, d.owner FROM deliveries d JOIN messages m
            ON m.id = d.message_id WHERE d.group_id = ? ORDER BY m.id LIMIT ?""",
            (group, limit),
        )
        found = [
            Peeked(str(id), body, "ready" if at <= now else "in-flight" if owner else "delayed", attempt)
            for id, body, at, attempt, owner in rows
        ]
        rows = db.execute(
            "SELECT id, body, due FROM messages WHERE topic = ? AND id > ? ORDER BY id LIMIT ?",
            (topic, cursor, limit - len(found)),
        )
        return found + [Peeked(str(id), body, "delayed" if due and due > now else "ready") for id, body, due in rows]

    @staticmethod
    def groups(db: sqlite3.Connection, topic: str) -> list[str]:
        """Names of the lasting groups of a topic."""
        query = "SELECT name FROM groups WHERE topic = ? AND expires IS NULL ORDER BY name"
        return [name for (name,) in db.execute(query, (topic,))]


def _find(db: sqlite3.Connection, topic: str, name: str) -> tuple[int, int]:
    found = db.execute("SELECT id, cursor FROM groups WHERE topic = ? AND name = ?", (topic, name)).fetchone()
    return found or (0, 0)
