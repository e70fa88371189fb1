"""The tables of the alerts taskmaster: what happened, what is to be told, and what is still to be done."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Text

from taskmasters.store.schema import ID_LENGTH, Blob, Schema, table

__all__ = ["ALERTS", "events", "groups", "notices", "rhythms", "tasks"]

_DERIVED = 64
#: Events that were counted, so that a done task that is delivered twice is counted once.
events = table(
    "taskbus_alerts_events",
    Column("id", String(_DERIVED), primary_key=True),
    Column("at", Double, nullable=False),
    Index("taskbus_alerts_events_at", "at"),
)
#: What happened since a rule was told of last: a row for each type, job and kind.
groups = table(
    "taskbus_alerts_groups",
    Column("rule", String(ID_LENGTH), primary_key=True),
    Column("id", String(_DERIVED), primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("first", Double, nullable=False),
    Column("last", Double, nullable=False),
    #: Type, job, kind, moments, examples, as JSON.
    Column("body", Blob(), nullable=False),
)
#: When a rule is told of next, and how long it then keeps silent.
rhythms = table(
    "taskbus_alerts_rhythms",
    Column("rule", String(ID_LENGTH), primary_key=True),
    #: When it is to be told; NULL if nothing happened since.
    Column("due", Double),
    #: When it was told last; NULL if never.
    Column("told", Double),
    #: Seconds of silence after the last time, and after the next.
    Column("silence", Double, nullable=False),
    Column("following", Double, nullable=False),
    Index("taskbus_alerts_rhythms_due", "due"),
)
#: What is to be told, to which channel.
notices = table(
    "taskbus_alerts_notices",
    Column("id", String(_DERIVED), primary_key=True),
    Column("channel", String(ID_LENGTH), nullable=False),
    Column("body", Blob(), nullable=False),
    #: When it is tried next; NULL once it was told.
    Column("due", Double),
    Column("made", Double, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Index("taskbus_alerts_notices_due", "due"),
)
#: Tasks that have a deadline. The id is derived from that of the task and the number of its retry.
tasks = table(
    "taskbus_alerts_tasks",
    Column("id", String(_DERIVED), primary_key=True),
    #: When it is late; NULL once it is done, or was told of, or if it was done before it was seen.
    Column("deadline", Double),
    Column("at", Double, nullable=False),
    #: Id of the deadline, and the task as it was sent; empty if it was not seen.
    Column("rule", String(ID_LENGTH), nullable=False),
    Column("body", Blob(), nullable=False),
    Index("taskbus_alerts_tasks_deadline", "deadline"),
    Index("taskbus_alerts_tasks_at", "at"),
)
ALERTS = Schema("alerts", 1, [events, groups, rhythms, notices, tasks])
