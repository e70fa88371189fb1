"""``taskbus workflow``: looking at runs, and cancelling them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson

from task.errors import StateError
from task.exits import Exit
from taskmasters.store import Store, open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.store.place import find_place
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.looking import find_run, list_runs, show_jobs, show_run
from taskmasters.workflow.options import DEFAULT_STATE
from taskmasters.workflow.tables import TABLES
from taskmasters.workflow.work import RunState

__all__ = ["cancel", "list_", "show"]

_SETTINGS = {"help_option_names": ["-h", "--help"]}
_state = click.option(
    "--state",
    "place",
    envvar="TASKBUS_STATE",
    default=DEFAULT_STATE,
    show_default=True,
    metavar="PATH|URL",
    help="Where the taskmaster keeps its runs.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")


@click.command("list", context_settings=_SETTINGS)
@_state
@_json
@click.option("--workflow", metavar="ID", help="Only runs of this workflow.")
@click.option(
    "--in-state",
    "states",
    multiple=True,
    type=click.Choice(list(RunState), case_sensitive=False),
    help="Only runs in this state; may be given several times.",
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The latest so many.")
def list_(place: str, as_json: bool, workflow: str | None, states: Sequence[str], limit: int) -> Exit:
    """List the latest runs, newest first."""
    with _opened(place) as store:
        runs = store.call(lambda tx: list_runs(tx, workflow, [str(state) for state in states], limit))
    if as_json:
        _lines(runs)
    else:
        _table(("run", "workflow", "state", "key", "created", "ended", "error"), runs)
    return Exit.OK


@click.command("show", context_settings=_SETTINGS)
@click.argument("run")
@_state
@_json
@click.option("--all", "everything", is_flag=True, help="Also tasks that completed at the first attempt.")
def show(run: str, place: str, as_json: bool, everything: bool) -> Exit:
    """Show one run: its jobs, and the tasks that failed, were tried again or are open, with every attempt.

    RUN is its id, or the beginning of it.
    """
    with _opened(place) as store:
        id = _find(store, run)
        about = store.call(lambda tx: show_run(tx, id))
        tasks = store.call(lambda tx: show_jobs(tx, id, everything=everything))
    if as_json:
        _lines([about | {"tasks": tasks}])
        return Exit.OK
    jobs = about.pop("jobs")
    for key, value in about.items():
        if value not in (None, ""):
            click.echo(f"{key + ':':<11} {value}")
    click.echo()
    _table(("job", "state", "tasks", "completed", "failed", "open", "started", "ended", "error"), jobs)
    if tasks:
        click.echo()
        rows = [
            {**task, **attempt, "task": f"{task['job']}[{task['number']}]"}
            for task in tasks
            for attempt in (*task["attempts"], *_open(task))
        ]
        _table(("task", "id", "attempt", "due", "ended", "result", "msg"), rows)
    return Exit.OK


@click.command("cancel", context_settings=_SETTINGS)
@click.argument("run")
@_state
def cancel(run: str, place: str) -> Exit:
    """Cancel a run: the taskmaster starts nothing more of it, and takes back what it has not sent yet.

    Tasks on the bus cannot be called back; what they report is passed over. RUN is its id, or the beginning of it.
    """
    with _opened(place) as store:
        id = _find(store, run)
        if not store.call(lambda tx: WorkflowEngine.cancel(tx, id)):
            raise StateError(f"run {id} has ended already")
    click.echo(f"run {id} will be cancelled by the taskmaster")
    return Exit.OK


@contextmanager
def _opened(place: str) -> Iterator[Store]:
    found = find_place(place)
    if found.sqlite and not os.path.isfile(found.shown):
        raise StateError(f"there is no state in {found.shown}: name that of the taskmaster with --state")
    store = open_store(place, OUTBOX, TABLES)
    try:
        yield store
    finally:
        store.close()


def _find(store: Store, run: str) -> str:
    found = store.call(lambda tx: find_run(tx, run))
    if len(found) != 1:
        raise StateError(f"there {'are several runs' if found else 'is no run'} whose id begins with {run!r}")
    return found[0]


def _open(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempt that has not ended, if there is one."""
    if task["state"] != "sent":
        return []
    return [{"attempt": task["attempt"], "due": task["due"], "ended": None, "result": "open", "msg": ""}]


def _lines(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(orjson.dumps(row))


def _table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "-" if value in (None, "") else " ".join(str(value).split())
