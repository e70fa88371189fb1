"""Huey on SQLite with one worker thread, ``journal_mode=wal`` and ``synchronous=full``, as our sqlite bus has them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.peers.command import main, send_calls, url
from benchmarks.peers.tally import begun

_huey: Any = import_module("huey")
queue = _huey.SqliteHuey("peers", filename=url(), journal_mode="wal", fsync=True, results=False)

noop = queue.task(name="noop")(begun)


def send_all() -> None:
    """Send what the command line says."""
    send_calls(noop)


if __name__ == "__main__":
    main("huey_sqlite", ["huey_consumer", "benchmarks.peers.huey_sqlite.queue", "-w", "1", "-q"])
