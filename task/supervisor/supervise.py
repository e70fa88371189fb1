"""``--processes N`` as an application: what it needs, its signals and its status page."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from contextlib import ExitStack

from bus import BusURL, connect
from task.errors import SettingsError
from task.exits import Exit
from task.signals import stop_on_signals
from task.supervisor.child import this_program
from task.supervisor.overview import Overview
from task.supervisor.supervisor import Supervisor
from task.worker_app import WorkerApp

__all__ = ["supervise"]

_log = logging.getLogger("taskbus.supervisor")


def supervise(app: WorkerApp) -> Exit:
    """Do with ``--processes`` processes what ``app`` would do with one, until the input ends or a signal comes.

    Raises:
        SettingsError: if that is not possible with these options.
        BusError: if a bus cannot be used as its URL says.
    """
    options = app.options
    _check(app)
    command = this_program()

    async def main() -> Exit:
        supervisor = Supervisor(command, options.processes, options.kill_time)
        terminal = next((fd for fd in range(3) if os.isatty(fd)), None)

        def hang_up() -> None:
            """Restart; but when the terminal was closed, stop: nobody would know of these processes any more."""
            if terminal is not None and not os.isatty(terminal):
                supervisor.stop()
            else:
                supervisor.roll()

        with ExitStack() as stack:
            overview = Overview(app, supervisor)
            if options.status_port is not None:
                from task.status import serve_status

                stack.enter_context(serve_status(overview, options.status_host, options.status_port))
            stack.enter_context(stop_on_signals(supervisor.stop, hang_up))
            _log.info(
                "working with %d processes",
                options.processes,
                extra={"event": "supervising", "task_type": app.kind, "pid": os.getpid()},
            )
            code = await supervisor.run()
            counts = overview.statistics()
            results = counts["results"] if isinstance(counts["results"], dict) else {}
            _log.info(
                "every process has ended",
                extra={"event": "supervised", "received": counts["received"], **results, "exit_code": int(code)},
            )
            return code

    return asyncio.run(main())


def _check(app: WorkerApp) -> None:
    count = app.options.processes
    able = connect(app.source).capabilities
    if not (able.shared and able.processes):
        raise SettingsError(
            f"--processes {count}: processes cannot share the tasks of {app.source}; use a bus that several processes "
            f"share (see `taskbus buses`), or do {count} tasks side by side in one: --max-in-progress {count}"
        )
    if _is_stream(app.target):
        raise SettingsError(
            f"--processes {count}: the lines of several processes would mix in what --out {app.target.path or '-'} "
            "names; name a file or a bus"
        )


def _is_stream(url: BusURL) -> bool:
    """Whether results go to a pipe, terminal or descriptor that the processes would have in common."""
    if url.adapter == "stdio":
        return True
    if url.adapter != "lines":
        return False
    if url.path == "-" or url.path.startswith(("/dev/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(url.path).st_mode)
    except OSError:
        return False
