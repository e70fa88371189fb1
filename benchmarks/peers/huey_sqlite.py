"""Huey on SQLite with one worker thread, ``journal_mode=wal`` and ``synchronous=full``, as our sqlite bus has them."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.peers.command import main, send, url
from benchmarks.peers.tally import begun

_huey: Any = import_module("huey")
queue = _huey.SqliteHuey("peers", filename=url(), journal_mode="wal", fsync=True, results=False)


def _noop(sent: float) -> None:
    begun(sent)


noop = queue.task(name="noop")(_noop)


def send_all() -> None:
    """Send what the command line says."""

    async def one(sent: float) -> None:
        noop(sent)

    asyncio.run(send(one))


if __name__ == "__main__":
    main("huey_sqlite", ["huey_consumer", "benchmarks.peers.huey_sqlite.queue", "-w", "1", "-q"])
