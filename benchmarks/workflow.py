"""What a task of a workflow costs, from ten of them to ten thousand: ``python -m benchmarks.workflow``.

A run fans out into so many tasks, each of which has a task that follows it, and ends with one that waits for all and
takes their results. The engine works on a SQLite file as the taskmaster does, in batches of 500; there is no bus in it.
Beside it stands a bare loop that writes one row for each of those tasks in transactions of the same size.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path

from task.codec import decode, encode_done
from task.task import Task
from taskmasters.store import Store, open_store, outbox
from taskmasters.store.inbox import Arrival
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow.book import Book
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import load_workflows, read_stored
from taskmasters.workflow.tables import TABLES

__all__ = ["cost", "main"]

_SIZES = (100, 1_000, 10_000)
_BATCH = 500
_FILE = """
[[job]]
name = "part"
type = "part"
for_each = "1..{size}"
task = "s3://b/{{item}}"

[[job]]
name = "check"
type = "check"
each = "part"
task = "{{job.part.value}}"

[[job]]
name = "all"
type = "all"
depends_on = "check"
task = "{{job.check.completed}} of {{job.check.count}}: {{job.check.msg}}"
"""
_AT = "2026-01-01T00:00:00.000Z"


def cost(folder: Path, size: int) -> tuple[float, float]:
    """Seconds per task of a run with ``size`` parts, and of the bare loop."""
    path = folder / f"flow{size}.toml"
    path.write_text(_FILE.format(size=size))
    store = open_store(str(folder / f"{size}.db"), OUTBOX, TABLES)
    engine = WorkflowEngine(Book(load_workflows(str(path)), read_stored), "done")
    began = time.perf_counter()
    request = Arrival(Task(f"flow{size}", id="request"), "request")
    store.call(lambda tx: engine.requests(tx, [request], 1.0))
    done = 0
    while batch := _sent(store):
        done += len(batch)
        store.call(lambda tx, tasks=batch: engine.done(tx, tasks, 2.0))  # type: ignore[misc]
    seconds = time.perf_counter() - began
    store.close()
    if done != 2 * size + 2:
        raise AssertionError(f"{done} tasks came, not {2 * size + 2}")
    return seconds / done, _bare(folder / f"bare{size}.db", done) / done


def _sent(store: Store) -> list[Arrival]:
    """What is to be sent, sent and done."""
    due = store.call(lambda tx: outbox.due(tx, 3.0, _BATCH))
    store.call(lambda tx: outbox.sent(tx, due, 3.0))
    tasks = [decode(stored.message.body) for stored in due]
    done = [task if task.result else decode(encode_done(task, "complete", "ok", _AT, _AT)) for task in tasks]
    return [Arrival(task, task.id or "") for task in done]


def _bare(path: Path, count: int) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id TEXT PRIMARY KEY, body BLOB)")
    began = time.perf_counter()
    for start in range(0, count, _BATCH):
        rows = [(f"{number:032}", b"x" * 250) for number in range(start, min(start + _BATCH, count))]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def main() -> None:
    """Print the cost of a task for each size."""
    print("parts    tasks   per task   bare row   ratio")
    with tempfile.TemporaryDirectory() as folder:
        for size in _SIZES:
            ours, bare = cost(Path(folder), size)
            print(
                f"{size:6,} {2 * size + 2:7,} {ours * 1e6:7.0f} µs {bare * 1e6:7.0f} µs {ours / bare:7.1f}", flush=True
            )


if __name__ == "__main__":
    main()
