"""Running one program: in a process group of its own, its output kept only in part, stopped when the task must stop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from task.context import Context

__all__ = ["KEPT", "Ended", "run_program"]

#: Bytes of output, counted from its end, that are kept.
KEPT = 2048
_BLOCK = 65536
#: The most one look at the program takes, in seconds: how late a cancelled task is noticed.
_TICK = 0.05
#: The most read of what is left in the pipe when the program has ended; larger than any pipe.
_LEFT_OVER = 4 * 1024 * 1024


class Ended(NamedTuple):
    """How a program ended. ``code`` is its exit code, negative for a signal. ``stopped``: it was told to stop."""

    code: int
    output: str
    stopped: bool


def run_program(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes | None, ctx: Context, grace: float
) -> Ended:
    """Run ``argv`` to its end.

    It is over when the program itself has ended, even if children it leaves behind hold its output open. When ``ctx``
    is cancelled the whole process group gets SIGTERM and, after ``grace`` seconds, SIGKILL.

    Raises:
        OSError: if it cannot be started.
    """
    with contextlib.ExitStack() as stack:
        source: int | IO[bytes] = subprocess.DEVNULL
        if stdin is not None:
            # A file, not a pipe: a program that reads nothing, or late, can neither block us nor break anything.
            source = stack.enter_context(tempfile.TemporaryFile())
            source.write(stdin)
            source.seek(0)
        process = stack.enter_context(
            subprocess.Popen(
                argv,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
                bufsize=0,
            )
        )
        run = _Run(process, ctx, grace)
        try:
            stopped = run.follow()
        except BaseException:
            run.kill(signal.SIGKILL)
            raise
        return Ended(process.wait(), run.tail.text(), stopped)


class _Run:
    def __init__(self, process: subprocess.Popen[bytes], ctx: Context, grace: float) -> None:
        self._pid = process.pid
        self._ctx = ctx
        self._grace = grace
        if process.stdout is None:
            raise RuntimeError("the program was started without a pipe for its output")
        self._pipe = process.stdout.fileno()
        self._open = True
        os.set_blocking(self._pipe, False)
        self.tail = _Tail()

    def follow(self) -> bool:
        """Return when the program has ended, before it is reaped; whether it was told to stop."""
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN | select.POLLHUP)
        pause = 0.001
        kill_at: float | None = None
        while True:
            if not self._open:
                time.sleep(pause)
                pause = min(_TICK, pause * 2)
            elif poller.poll(_TICK * 1000):
                self._read()
            ended = self._ended()
            if kill_at is None:
                if ended:
                    break
                if self._ctx.cancelled:
                    self.kill(signal.SIGTERM)
                    kill_at = time.monotonic() + self._grace
            elif (ended and not self._open) or time.monotonic() >= kill_at:
                # While the program is not reaped its group cannot be anybody else's, so what is left of it can be hit.
                self.kill(signal.SIGKILL)
                if ended:
                    break
        left = _LEFT_OVER
        while self._open and left > 0 and (size := self._read()):
            left -= size
        return kill_at is not None

    def kill(self, number: signal.Signals) -> None:
        """Signal the whole group. A member that changed its user may refuse; then there is only waiting."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read(self) -> int:
        try:
            block = os.read(self._pipe, _BLOCK)
        except BlockingIOError:
            return 0
        self._open = bool(block)
        self.tail.add(block)
        return len(block)


class _Tail:
    """The last :data:`KEPT` bytes of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._cut = False

    def add(self, block: bytes) -> None:
        self._data += block
        if len(self._data) > KEPT:
            del self._data[:-KEPT]
            self._cut = True

    def text(self) -> str:
        """As text, what is not UTF-8 replaced; with ``…`` in front if it is not the whole."""
        start = 0
        if self._cut:
            # The cut may have gone through a character; its remaining bytes (10xxxxxx) are no mistake of the program.
            while start < 3 and self._data[start] & 0xC0 == 0x80:
                start += 1
        text = self._data[start:].decode("utf-8", "replace").strip()
        return "…" + text if self._cut else text
