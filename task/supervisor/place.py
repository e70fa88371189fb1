"""The child's side of ``--processes``: which process it is, whom it obeys and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from task.report import Report, in_progress
from task.worker_app import WorkerApp

__all__ = ["STOP", "VARIABLE", "Place", "own_place", "told_by"]

_log = logging.getLogger("taskbus.worker")
#: Holds ``DESCRIPTOR:NUMBER:PID``: the socket to the parent, which process this is, and the parent's process id.
VARIABLE = "_TASKBUS_PROCESS"
#: The one order a parent gives; the second time it hastens.
STOP = b"stop\n"
#: Seconds between reports; the shorter one until the process was ready for the first time.
_TICK, _FIRST_TICK = 1.0, 0.1
#: What a report tells of running tasks: so many, and so many characters of each text.
_MOST_TASKS, _MOST_TEXT = 100, 200
#: Seconds the last report may take.
_LAST = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")

_own: Place | None = None


class Place:
    """One of the processes of a parent. ``number`` counts from 1."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        #: The socket, open for as long as the process lives.
        self._fd = fd
        self._app: WorkerApp | None = None
        self._orders = 0
        self._orphaned = False

    def signalled(self) -> None:
        """SIGTERM or SIGINT came. Only the parent hastens: a service manager may signal it and its children at once."""
        if self._app is not None and (self._orphaned or not self._app.stopping):
            self._app.stop()

    @asynccontextmanager
    async def reporting(self, app: WorkerApp) -> AsyncIterator[None]:
        """Obey and report while the block runs ``app``; at its end say why it ended, unless by an exception."""
        self._app, self._orders = app, 0
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=os.dup(self._fd)))
        tasks = [asyncio.create_task(self._obey(reader, app)), asyncio.create_task(_report(writer, app))]
        ended = None
        try:
            yield
            ended = _why_ended(app)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not writer.is_closing():
                _write(writer, {**_report_of(app), "ended": ended})
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LAST):
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()

    async def _obey(self, reader: asyncio.StreamReader, app: WorkerApp) -> None:
        with contextlib.suppress(OSError):
            while await reader.readline() == STOP:
                self._orders += 1
                if self._orders > 1 or not app.stopping:
                    app.stop()
        self._orphaned = True
        _log.warning("the parent process has gone; stopping", extra={"event": "orphaned"})
        if not app.stopping:
            app.stop()


def own_place() -> Place | None:
    """The place a parent gave this process; None if nobody did. What user code starts does not inherit it."""
    global _own
    given = os.environ.pop(VARIABLE, None)
    if given is not None and _own is None:
        fd, number, parent = map(int, given.split(":"))
        if _is_given(fd, parent):
            os.set_inheritable(fd, False)
            _own = Place(number, fd)
    return _own


def told_by(connection: socket.socket, number: int) -> dict[str, str]:
    """The environment of a process with this number, which is given ``connection``."""
    return {**os.environ, VARIABLE: f"{connection.fileno()}:{number}:{os.getpid()}"}


def _is_given(fd: int, parent: int) -> bool:
    """Whether a parent has given this socket to us, and not to a process that we have the variable from.

    A parent that has died is no longer ours. Then its end of the socket is closed, and we stop as soon as we listen.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        if parent == os.getppid():
            return True
        with socket.socket(fileno=os.dup(fd)) as connection:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # not open, or nothing to read from somebody who lives
        return False


def _why_ended(app: WorkerApp) -> str:
    if app.stopping:
        return "stopped"
    return "lifetime" if app.receiver is not None and app.receiver.spent else "input"


async def _report(writer: asyncio.StreamWriter, app: WorkerApp) -> None:
    tick = _FIRST_TICK
    while True:
        report = _report_of(app)
        # A parent that does not read (it is stopped, or the machine is very busy) gets the next one.
        if not writer.is_closing() and not writer.transport.get_write_buffer_size():
            _write(writer, report)
        if report["ready"][0]:
            tick = _TICK
        await asyncio.sleep(tick)


def _write(writer: asyncio.StreamWriter, report: dict[str, Any]) -> None:
    writer.write(json.dumps(report, default=str).encode() + b"\n")


def _report_of(app: WorkerApp) -> dict[str, Any]:
    return {
        "ready": Report(app).ready(),
        "stats": app.stats.snapshot(),
        "held": app.receiver.held if app.receiver else 0,
        "running": len(app.launcher.running()) if app.launcher else 0,
        "in_progress": [_cut(entry) for entry in in_progress(app)[:_MOST_TASKS]],
        "bus": {"ok": app.bus_health.ok, "detail": app.bus_health.detail},
        "cpu_seconds": time.process_time(),
        "resident_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
    }


def _cut(entry: dict[str, object]) -> dict[str, object]:
    return {key: value[:_MOST_TEXT] if isinstance(value, str) else value for key, value in entry.items()}
