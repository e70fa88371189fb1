"""What can be seen of runs in the state, as JSON values."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from taskmasters.workflow import tables
from taskmasters.workflow.work import NodeState, Origin

__all__ = ["find_run", "list_runs", "show_jobs", "show_run"]

#: Tasks shown of one run.
MOST_JOBS = 1000


def list_runs(tx: Connection, workflow: str | None, states: Collection[str], limit: int) -> list[dict[str, Any]]:
    """The latest runs, newest first."""
    runs = tables.runs.c
    found = select(tables.runs).order_by(runs.created.desc(), runs.moment.desc(), runs.id).limit(limit)
    if workflow is not None:
        found = found.where(runs.workflow == workflow)
    if states:
        found = found.where(runs.state.in_(sorted(states)))
    return [_run(row) for row in tx.execute(found)]


def find_run(tx: Connection, beginning: str) -> list[str]:
    """Ids of up to two runs that begin so."""
    runs = tables.runs.c
    return list(tx.execute(select(runs.id).where(runs.id.startswith(beginning, autoescape=True)).limit(2)).scalars())


def show_run(tx: Connection, run: str) -> dict[str, Any]:
    """One run with its jobs."""
    row = tx.execute(select(tables.runs).where(tables.runs.c.id == run)).one()
    nodes = tables.nodes.c
    jobs = tx.execute(
        select(tables.nodes).where(nodes.run == run).order_by(nodes.started.is_(None), nodes.started, nodes.name)
    )
    return _run(row) | {"jobs": [_node(node) for node in jobs]}


def show_jobs(tx: Connection, run: str, *, everything: bool) -> list[dict[str, Any]]:
    """The tasks of a run with their attempts: without ``everything`` not those that completed at the first."""
    jobs, attempts = tables.jobs.c, tables.attempts.c
    wanted = select(*(column for column in tables.jobs.c if column.name != "body")).where(jobs.run == run)
    if not everything:
        wanted = wanted.where((jobs.state != str(NodeState.COMPLETED)) | (jobs.attempt > 1))
    found = {
        row.id: {
            "id": row.id,
            "job": row.node,
            "number": row.number,
            "state": str(row.state),
            "attempt": row.attempt,
            "due": _text(row.due),
            "deadline": _text(row.deadline),
            "ended": _text(row.ended),
            "attempts": [],
        }
        for row in tx.execute(wanted.order_by(jobs.node, jobs.number).limit(MOST_JOBS))
    }
    history = select(tables.attempts).where(attempts.run == run).order_by(attempts.job, attempts.attempt)
    for row in tx.execute(history):
        if row.job in found:
            found[row.job]["attempts"].append(
                {
                    "attempt": row.attempt,
                    "due": _text(row.due),
                    "ended": _text(row.ended),
                    "result": row.result,
                    "msg": row.msg,
                }
            )
    return list(found.values())


def _run(row: Any) -> dict[str, Any]:
    origin = Origin.read(row.origin)
    return {
        "run": row.id,
        "workflow": row.workflow,
        "state": row.state,
        "key": origin.key,
        "created": _text(row.created),
        "started": _text(row.started),
        "ended": _text(row.ended),
        "open_jobs": row.open,
        "error": row.error,
    }


def _node(row: Any) -> dict[str, Any]:
    made = row.total - row.skipped
    return {
        "job": row.name,
        "state": row.state,
        "tasks": made,
        "completed": made - row.rest - row.failed if row.total else 0,
        "failed": row.failed,
        "open": row.rest,
        "started": _text(row.started),
        "ended": _text(row.ended),
        "error": row.error,
    }


def _text(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
