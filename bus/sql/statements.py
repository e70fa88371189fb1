"""Every statement of the bus, in SQL that SQLite, PostgreSQL and MySQL share.

Values are named parameters. A list may stand behind ``IN``; how it is bound is the business of the
:class:`~bus.sql.database.Database`. Times are microseconds since the epoch.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CHOOSE_GROUP",
    "CLAIM_AGAIN",
    "CLAIM_NEW",
    "COUNT_STORED",
    "DELAY",
    "DELAY_FOR_GROUP",
    "DELETE_DONE",
    "DEPTH",
    "EXTEND",
    "FIND_GROUP",
    "FIND_START",
    "FIND_TOPIC",
    "FIRST_PUBLISHED",
    "FLOOR",
    "FORGET_DELIVERIES",
    "FORGET_GROUP",
    "FORGET_PUBLISHED",
    "GROUPS",
    "HELD",
    "LISTENERS",
    "LISTENING",
    "MAKE_GROUP",
    "MAKE_START",
    "MAKE_TOPIC",
    "MORE_PENDING",
    "MOVE_POSITION",
    "NEW",
    "PEEK_DELIVERIES",
    "PEEK_STORED",
    "PUBLISHED",
    "READY",
    "REMEMBER_PUBLISHED",
    "RETURN",
    "RETURN_TO_PLACE",
    "SETTLE",
    "SOME_PUBLISHED",
    "STORE",
    "STORED",
    "SWEEP",
    "TOPICS",
    "UNSTORED",
    "WEIGHT_OF_NEW",
    "WEIGHT_OF_READY",
    "Bulk",
]


class Bulk(NamedTuple):
    """A query of many rows, the last column being a blob."""

    text: str
    columns: tuple[str, ...]


# The time

FIND_START = "SELECT ahead FROM starts WHERE start = :start"
MAKE_START = "INSERT INTO starts (start, ahead) VALUES (:start, :ahead)"

# Topics and publishing

FIND_TOPIC = "SELECT id, last, kept FROM topics WHERE name = :topic"
MAKE_TOPIC = "INSERT INTO topics (name, last, kept) VALUES (:topic, 0, 0)"
TOPICS = "SELECT name FROM topics ORDER BY name"
STORE = "INSERT INTO messages (id, order_key, published, due, body) VALUES (:id, :key, :published, :due, :body)"
STORED = "UPDATE topics SET last = :last, kept = kept + :count WHERE id = :topic_id"
UNSTORED = "UPDATE topics SET kept = kept - :count WHERE id = :topic_id"
COUNT_STORED = "SELECT COUNT(*) FROM messages WHERE id BETWEEN :first AND :last AND (due IS NULL OR due > :now)"
MORE_PENDING = "UPDATE topic_groups SET pending = pending + :count WHERE topic_id = :topic_id"
DELAY = """INSERT INTO deliveries (message_id, group_id, ready_at, attempt)
SELECT m.id, g.id, m.due, 0 FROM messages m, topic_groups g
WHERE m.id BETWEEN :first AND :last AND g.topic_id = :topic_id"""

# Ids published lately

PUBLISHED = """SELECT uid FROM published
WHERE slot IN :slots AND topic_id = :topic_id AND uid IN :uids AND at > :since"""
REMEMBER_PUBLISHED = "INSERT INTO published (slot, topic_id, uid, at) VALUES (:slot, :topic_id, :uid, :at)"
FIRST_PUBLISHED = "SELECT slot, topic_id FROM published WHERE slot < :oldest ORDER BY slot, topic_id LIMIT 1"
SOME_PUBLISHED = """SELECT MAX(uid) FROM (
SELECT uid FROM published WHERE slot = :slot AND topic_id = :topic_id ORDER BY uid LIMIT :limit) chosen"""
FORGET_PUBLISHED = "DELETE FROM published WHERE slot = :slot AND topic_id = :topic_id AND uid <= :uid"

# Groups

FIND_GROUP = "SELECT id, position, pending FROM topic_groups WHERE topic_id = :topic_id AND name = :name"
CHOOSE_GROUP = """SELECT g.position, g.pending, (SELECT MIN(d.ready_at) FROM deliveries d WHERE d.group_id = g.id)
FROM topic_groups g WHERE g.id = :group_id"""
MAKE_GROUP = """INSERT INTO topic_groups (topic_id, name, position, pending, heard)
VALUES (:topic_id, :name, :position, :pending, :heard)"""
DELAY_FOR_GROUP = """INSERT INTO deliveries (message_id, group_id, ready_at, attempt)
SELECT id, :group_id, due, 0 FROM messages WHERE id BETWEEN :first AND :last"""
GROUPS = """SELECT g.name FROM topic_groups g JOIN topics t ON t.id = g.topic_id
WHERE t.name = :topic AND g.heard IS NULL ORDER BY g.name"""
LISTENERS = "SELECT id, topic_id, heard FROM topic_groups WHERE heard IS NOT NULL"
LISTENING = "UPDATE topic_groups SET heard = :heard WHERE id IN :group_ids"
FORGET_DELIVERIES = "DELETE FROM deliveries WHERE group_id = :group_id"
FORGET_GROUP = "DELETE FROM topic_groups WHERE id = :group_id"

# Claiming

READY = Bulk(
    """SELECT d.message_id, d.ready_at, d.attempt, d.owner, d.history, m.order_key, m.body
FROM deliveries d JOIN messages m ON m.id = d.message_id
WHERE d.group_id = :group_id AND d.ready_at <= :now ORDER BY d.ready_at, d.message_id LIMIT :limit""",
    ("message_id", "ready_at", "attempt", "owner", "history", "order_key", "body"),
)
NEW = Bulk(
    """SELECT id, published, order_key, body FROM messages
WHERE id > :position AND id <= :end ORDER BY id LIMIT :limit""",
    ("id", "published", "order_key", "body"),
)
WEIGHT_OF_READY = """SELECT SUM(LENGTH(body)), MAX(LENGTH(body)) FROM (
SELECT m.body FROM deliveries d JOIN messages m ON m.id = d.message_id
WHERE d.group_id = :group_id AND d.ready_at <= :now ORDER BY d.ready_at, d.message_id LIMIT :limit) chosen"""
WEIGHT_OF_NEW = """SELECT SUM(LENGTH(body)), MAX(LENGTH(body)) FROM (
SELECT body FROM messages WHERE id > :position AND id <= :end ORDER BY id LIMIT :limit) chosen"""
CLAIM_AGAIN = """UPDATE deliveries SET ready_at = :until, attempt = attempt + 1, owner = :owner
WHERE message_id IN :ids AND group_id = :group_id"""
CLAIM_NEW = """INSERT INTO deliveries (message_id, group_id, ready_at, attempt, owner)
SELECT id, :group_id, :until, 1, :owner FROM messages WHERE id > :position AND id <= :last"""
MOVE_POSITION = "UPDATE topic_groups SET position = :last, pending = pending - :count WHERE id = :group_id"

# Settling: whoever lost a lease finds another owner or attempt, or nothing

_MINE = "message_id IN :ids AND group_id = :group_id AND owner = :owner AND attempt = :attempt"
HELD = f"SELECT message_id FROM deliveries WHERE {_MINE}"  # noqa: S608
SETTLE = f"DELETE FROM deliveries WHERE {_MINE}"  # noqa: S608
EXTEND = f"UPDATE deliveries SET ready_at = :until WHERE {_MINE}"  # noqa: S608
RETURN = f"""UPDATE deliveries SET ready_at = :ready_at, attempt = :counted, owner = NULL, history = :history
WHERE {_MINE}"""  # noqa: S608
RETURN_TO_PLACE = f"""UPDATE deliveries SET attempt = :counted, owner = NULL, ready_at =
(SELECT COALESCE(m.due, m.published) FROM messages m WHERE m.id = message_id) WHERE {_MINE}"""  # noqa: S608
FLOOR = """SELECT MIN(position), SUM(CASE WHEN heard IS NULL THEN 1 ELSE 0 END) FROM topic_groups
WHERE topic_id = :topic_id"""
_DONE = """(id <= :floor OR id > :delayed)
AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.message_id = messages.id)"""
DELETE_DONE = f"DELETE FROM messages WHERE id IN :ids AND {_DONE}"  # noqa: S608
SWEEP = f"DELETE FROM messages WHERE id BETWEEN :first AND :last AND {_DONE}"  # noqa: S608

# Looking

DEPTH = """SELECT COALESCE(SUM(CASE WHEN ready_at <= :now THEN 1 ELSE 0 END), 0),
COALESCE(SUM(CASE WHEN ready_at > :now AND owner IS NULL THEN 1 ELSE 0 END), 0),
COALESCE(SUM(CASE WHEN ready_at > :now AND owner IS NOT NULL THEN 1 ELSE 0 END), 0)
FROM deliveries WHERE group_id = :group_id"""
PEEK_STORED = "SELECT id, due, body FROM messages WHERE id > :first AND id <= :last ORDER BY id LIMIT :limit"
PEEK_DELIVERIES = """SELECT d.message_id, d.ready_at, d.attempt, d.owner, m.body
FROM deliveries d JOIN messages m ON m.id = d.message_id
WHERE d.message_id BETWEEN :first AND :last AND d.group_id = :group_id ORDER BY d.message_id LIMIT :limit"""
