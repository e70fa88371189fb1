"""A no-op worker emptying a source, beside a bare loop that takes the same steps."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import orjson

import bus
from benchmarks.measure import Line, Run, Watch, run_worker, task_line, write_tasks

__all__ = [
    "bare_file_loop",
    "bare_sqlite_loop",
    "bus_worker",
    "file_to_file",
    "file_worker",
    "now_text",
    "sqlite_drain",
]

#: Tasks the bare SQLite loop takes in one transaction.
_BATCH = 500


def file_to_file(folder: Path, count: int) -> tuple[Run, Run]:
    """The bare loop's run, and the worker's, over one file of ``count`` tasks."""
    source = folder / "in.jsonl"
    write_tasks(source, count)
    return bare_file_loop(source, folder / "bare.jsonl"), file_worker(source, folder, count)


def file_worker(source: Path, folder: Path, count: int) -> Run:
    """The worker's run over a file of ``count`` tasks."""
    target = folder / "out.jsonl"
    target.unlink(missing_ok=True)
    run = run_worker(["--in", str(source), "--out", str(target)], folder)
    _expect(sum(1 for _ in target.open("rb")), count)
    return run


def bare_file_loop(source: Path, target: Path) -> Run:
    """Read, decode, stamp, encode, write."""
    watch = Watch()
    with source.open("rb") as lines, target.open("wb") as out:
        for line in lines:
            task = orjson.loads(line)
            task["started"] = now_text()
            task["result"] = "complete"
            task["msg"] = ""
            task["completed"] = now_text()
            out.write(orjson.dumps(task) + b"\n")
    return watch.run()


def sqlite_drain(folder: Path, count: int) -> tuple[Run, Run]:
    """The bare loop's run, and the worker's, over ``count`` tasks queued in SQLite."""
    return bare_sqlite_loop(folder / "bare.db", count), bus_worker(f"sqlite:{folder}/work.db", folder, count)


def bus_worker(url: str, folder: Path, count: int, line: Line = task_line) -> Run:
    """The worker's run over ``count`` tasks queued on a bus that has none yet."""
    asyncio.run(_fill(url, count, line))
    run = run_worker(["--bus", url, "--drain"], folder)
    _expect(asyncio.run(_depth(url)), count)
    return run


def bare_sqlite_loop(path: Path, count: int, line: Line = task_line) -> Run:
    """Take a batch, stamp it, store the done tasks and delete the batch in one transaction with full sync."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE todo (id INTEGER PRIMARY KEY, body BLOB)")
    database.execute("CREATE TABLE done (id INTEGER PRIMARY KEY, body BLOB)")
    database.execute("BEGIN")
    database.executemany("INSERT INTO todo (body) VALUES (?)", ((line(n),) for n in range(count)))
    database.execute("COMMIT")
    watch = Watch()
    while rows := database.execute("SELECT id, body FROM todo ORDER BY id LIMIT ?", (_BATCH,)).fetchall():
        results = []
        for _, body in rows:
            task = orjson.loads(body)
            task["started"] = now_text()
            task["result"] = "complete"
            task["msg"] = ""
            task["completed"] = now_text()
            results.append((orjson.dumps(task),))
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO done (body) VALUES (?)", results)
        database.executemany("DELETE FROM todo WHERE id = ?", ((row[0],) for row in rows))
        database.execute("COMMIT")
    run = watch.run()
    database.close()
    return run


async def _fill(url: str, count: int, line: Line) -> None:
    async with bus.connect(url) as b, await b.producer() as producer:
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            await producer.publish_many([bus.Message("noop", line(number)) for number in numbers])


async def _depth(url: str) -> int:
    async with bus.connect(url) as b:
        return (await b.depth("done", "count")).ready


def _expect(found: int, count: int) -> None:
    if found != count:
        raise RuntimeError(f"{count} tasks went in and {found} done tasks came out")


def now_text() -> str:
    """This moment, as a task tells it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
