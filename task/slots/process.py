"""User code in processes of its own: a crash is contained, a hang can be killed, the interpreter is not shared."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from task.assignment import Assignment
from task.codec import encode
from task.execute import begin, conclude
from task.logs import process_number
from task.outcome import Outcome, Result
from task.slots.frames import BrokenFrameError, Frames
from task.slots.thread import Executor
from task.task import Dialect
from task.times import now_text

__all__ = ["ProcessExecutor"]

#: Starts the child. It takes this package from where we have it, and only then looks for modules where this process
#: does: a file of the user's may be called bus.py.
_BOOT = (
    "import json,sys; a=json.loads(sys.argv[1]); sys.path.insert(0,a['home']); "
    "from task.slots.child import main; sys.path[:]=a['path']; "
    "main(a['fd'],a['target'],a['level'],a['style'],a['process'])"
)
_HOME = str(Path(__file__).parents[2])
#: Seconds a process that has closed its connection gets to end by itself.
_LAST = 1.0


class ProcessExecutor(Executor):
    """One worker process for one slot, started when first needed and again after a crash."""

    def __init__(self, target: str, level: str, style: str) -> None:
        self._target = target
        self._level = level
        self._style = style
        self._process: subprocess.Popen[bytes] | None = None
        self._frames: Frames | None = None
        self._killed = False

    def run(self, assignment: Assignment) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._forget()  # it died between two tasks, which is not the next one's doing
        try:
            frames = self._frames or self._spawn()
        except _StartError as problem:
            begin(assignment)
            self._crash(assignment, str(problem))
            return
        begin(assignment)
        task, context = assignment.task, assignment.context
        body = encode(task if task.dialect is Dialect.TASKBUS else task.in_dialect(Dialect.TASKBUS)).decode()
        number = id(assignment)
        frames.send({"number": number, "body": body, "attempt": context.attempt, "remaining": context.remaining})
        if context.cancelled:
            self.cancel(assignment)
        try:
            frame = frames.receive()
        except BrokenFrameError as problem:
            self._crash(assignment, _broken(problem))
            return
        if frame is None:
            self._crash(assignment, "")
        elif "unfinished" in frame:
            assignment.reason = frame["unfinished"]
            self._stamp(assignment)
        else:
            conclude(assignment, _outcome(frame))

    def _spawn(self) -> Frames:
        """Start a process and wait until it has loaded the worker, which is not part of any task's time.

        Raises:
            _StartError: saying why there is none.
        """
        ours, theirs = socket.socketpair()
        boot = {
            "home": _HOME,
            "path": sys.path,
            "fd": theirs.fileno(),
            "target": self._target,
            "level": self._level,
            "style": self._style,
            "process": process_number(),
        }
        self._frames = frames = Frames(ours)
        try:
            # A session of its own: Ctrl-C at the terminal does not reach it, and a kill takes its children along.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(boot)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise _StartError(f"the worker's process cannot be started: {error}") from error
        finally:
            theirs.close()
        if self._killed:
            self.kill()
        try:
            first = frames.receive()
        except BrokenFrameError as problem:
            raise _StartError(_broken(problem)) from problem
        if first is None or "failed" in first:
            raise _StartError(first["failed"] if first else "")
        return frames

    def _crash(self, assignment: Assignment, reason: str) -> None:
        assignment.reason = reason or f"the worker's process {self._end()}"
        assignment.crashed = True
        self._stamp(assignment)
        self._forget()

    def _end(self) -> str:
        """How the process ended, whose connection has."""
        if self._process is None:
            return "was not started"
        try:
            code = self._process.wait(_LAST)
        except subprocess.TimeoutExpired:
            return "closed its connection to the application and was killed"
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"

    def _stamp(self, assignment: Assignment) -> None:
        assignment.outcome = None
        assignment.ended = monotonic()
        assignment.completed = now_text()

    def cancel(self, assignment: Assignment) -> None:
        frames, reason = self._frames, assignment.context.cancel_reason
        if frames is not None and reason is not None:
            frames.send({"number": id(assignment), "cancel": reason.value})

    def kill(self) -> bool:
        self._killed = True
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return True

    def close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._frames is not None:
            self._frames.close()
            self._frames = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class _StartError(Exception):
    """No worker process could be had."""


def _broken(problem: BrokenFrameError) -> str:
    return (
        f"the worker's process was killed, as its connection to the application cannot be read: {problem}; "
        "does the worker write to file descriptors that it did not open?"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _outcome(frame: dict[str, Any]) -> Outcome:
    meta = frame["meta"] or None
    return Outcome(Result(frame["result"]), frame["msg"], meta, frame["retry_in"], frame["rejected"])
