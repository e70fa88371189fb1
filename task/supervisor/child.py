"""One child of ``--processes`` as its parent sees it: started, listened to, told to stop, waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from task.errors import SettingsError
from task.stats import Stats
from task.supervisor.place import STOP, told_by

__all__ = ["Child", "how_it_ended", "this_program"]

#: Bytes of the longest report that is read.
_LONGEST = 1024 * 1024
#: Seconds to wait for the last report of a process that has ended.
_LAST = 1.0
#: Seconds without a report, of which there is one every second, after which a process does not count as ready.
_SILENT = 10.0


def this_program() -> list[str]:
    """The command line that started this program, for the same interpreter.

    Raises:
        SettingsError: if the program is not one that can be started again.
    """
    if sys.orig_argv[1:] == [] or sys.modules["__main__"].__dict__.get("__file__") == "<stdin>":
        raise SettingsError(
            "--processes starts this program again, so it must be a file or module, not read from standard input"
        )
    return [sys.executable, *sys.orig_argv[1:]]


class Child:
    """One process, from its start to its end. ``changed`` is called when it becomes ready or is not any more."""

    def __init__(self, number: int, changed: Callable[[], None]) -> None:
        self.number = number
        self.began = monotonic()
        self.pid: int | None = None
        #: The last report; None until the process has come to its worker.
        self.report: dict[str, Any] | None = None
        self.was_ready = False
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._orders = 0
        self._heard = self.began

    @property
    def ready(self) -> bool:
        """Whether it does tasks right now."""
        return self.report is not None and bool(self.report["ready"][0]) and not self.silent

    @property
    def silent(self) -> bool:
        """Whether it no longer reports, because its interpreter hangs or it was stopped."""
        return self.report is not None and monotonic() - self._heard > _SILENT

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._orders > 0

    @property
    def ended(self) -> str | None:
        """Why its worker ended, by its own account: ``input``, ``lifetime`` or ``stopped``."""
        return None if self.report is None else self.report.get("ended")

    def stats(self, past: Stats) -> Stats:
        """``past`` and what this process has reported, together."""
        return past if self.report is None else past.plus(self.report["stats"])

    async def run(self, command: Sequence[str]) -> int:
        """Start it and wait for its end; the exit code, or the negative number of the signal that ended it.

        Raises:
            OSError: if it cannot be started.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                # A session of its own: Ctrl-C at the terminal does not reach it, and all is left to the parent.
                self._process = process = await asyncio.create_subprocess_exec(
                    *command,
                    start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=told_by(theirs, self.number),
                )
            self.pid = process.pid
            ours.setblocking(False)
            self._socket = ours
            for _ in range(self._orders):
                self._order()
            reader, writer = await asyncio.open_connection(sock=ours.dup(), limit=_LONGEST)
            listen = asyncio.create_task(self._listen(reader))
            try:
                code = await process.wait()
                # Its last report may still be on the way. What it has left running may hold the other end for ever.
                await asyncio.wait([listen], timeout=_LAST)
                return code
            finally:
                self._socket = None
                self.kill()
                listen.cancel()
                await asyncio.gather(listen, process.wait(), return_exceptions=True)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take reports until the other end is closed."""
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                continue  # longer than the limit, and skipped
            except OSError:
                return
            if not line.endswith(b"\n"):
                return
            before = self.ready
            self.report, self._heard = json.loads(line), monotonic()
            self.was_ready = self.was_ready or self.ready
            if self.ready is not before:
                self._changed()

    def stop(self) -> None:
        """Tell it to stop gracefully; again, to hurry."""
        self._orders += 1
        self._order()

    def _order(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.send(STOP)
        if self.report is None:
            # It is still starting and does nothing that would have to be ended in order.
            self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self._process is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def how_it_ended(code: int) -> str:
    """An exit code or signal in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"
