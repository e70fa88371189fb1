"""The tables of the workflow taskmaster."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Text

from taskmasters.store.schema import ID_LENGTH, Blob, Schema, table

__all__ = ["TABLES", "attempts", "cron", "definitions", "jobs", "nodes", "runs"]

#: Characters of an id derived from what it names.
_DERIVED = 32

#: One run of a workflow. Moments are seconds since the epoch.
runs = table(
    "taskbus_workflow_runs",
    Column("id", String(_DERIVED), primary_key=True),
    Column("workflow", String(ID_LENGTH), nullable=False),
    Column("definition", String(_DERIVED), nullable=False),
    Column("state", String(16), nullable=False),
    #: What started it: its key, its meta, and the task, as JSON.
    Column("origin", Blob(), nullable=False),
    Column("created", Double, nullable=False),
    #: What the times in its templates are taken from; runs that were created together begin in the order of these.
    Column("moment", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    #: Nodes that have not ended.
    Column("open", Integer, nullable=False),
    #: Empty, or what the first failure that was not to be passed over asks for: stop, compensate, and compensating.
    Column("failing", String(16), nullable=False),
    Column("error", Text, nullable=False),
    Index("taskbus_workflow_runs_state", "workflow", "state", "created"),
    Index("taskbus_workflow_runs_ended", "ended"),
)
#: One job of the file in one run: the parents it waits for, and how its tasks stand.
nodes = table(
    "taskbus_workflow_nodes",
    Column("run", String(_DERIVED), primary_key=True),
    Column("name", String(ID_LENGTH), primary_key=True),
    Column("state", String(16), nullable=False),
    #: Parents that have not ended, and those that ended as it wants them.
    Column("waits", Integer, nullable=False),
    Column("met", Integer, nullable=False),
    #: Tasks it has: all, not ended, failed, never made.
    Column("total", Integer, nullable=False),
    Column("rest", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("error", Text, nullable=False),
)
#: One task. Its id is that of the task.
jobs = table(
    "taskbus_workflow_jobs",
    Column("id", String(_DERIVED), primary_key=True),
    Column("run", String(_DERIVED), nullable=False),
    Column("node", String(ID_LENGTH), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    #: The task as it is sent, and the item of for_each it was made for, as JSON.
    Column("body", Blob(), nullable=False),
    Column("item", Blob(), nullable=False),
    #: What its last done task said, as JSON; empty before.
    Column("outcome", Blob(), nullable=False),
    #: When the present attempt is to be sent, and when its done task must have come.
    Column("due", Double, nullable=False),
    Column("deadline", Double),
    Column("ended", Double),
    Index("taskbus_workflow_jobs_node", "run", "node", "number"),
    Index("taskbus_workflow_jobs_deadline", "deadline"),
)
#: Every attempt that has ended.
attempts = table(
    "taskbus_workflow_attempts",
    Column("job", String(_DERIVED), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("run", String(_DERIVED), nullable=False),
    Column("due", Double, nullable=False),
    Column("ended", Double, nullable=False),
    #: The result its done task had; or late, refused, cancelled.
    Column("result", String(16), nullable=False),
    Column("msg", Text, nullable=False),
    Index("taskbus_workflow_attempts_run", "run"),
)
#: What a workflow was when a run of it began: the run keeps to that.
definitions = table(
    "taskbus_workflow_definitions",
    Column("id", String(_DERIVED), primary_key=True),
    Column("body", Blob(), nullable=False),
)
#: The latest instant of each cron start that was dealt with, by the schedule it then had.
cron = table(
    "taskbus_workflow_cron",
    Column("start", String(ID_LENGTH), primary_key=True),
    Column("schedule", Text, nullable=False),
    Column("instant", BigInteger, nullable=False),
)
TABLES = Schema("workflow", 1, [runs, nodes, jobs, attempts, definitions, cron])
