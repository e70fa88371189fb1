"""User code in processes of its own: a crash is contained, a hang can be killed, the interpreter is not shared."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from time import monotonic
from typing import Any

from task.assignment import Assignment
from task.codec import encode
from task.execute import begin, conclude
from task.outcome import Outcome, Result
from task.slots.frames import Frames
from task.slots.thread import Executor
from task.task import Dialect
from task.times import now_text

__all__ = ["ProcessExecutor"]

#: Starts the child with this process's module path, so that it finds the same modules, wherever they came from.
_BOOT = (
    "import json,sys; a=json.loads(sys.argv[1]); sys.path[:]=a['path']; "
    "from task.slots.child import main; main(a['fd'],a['target'],a['level'],a['style'])"
)


class ProcessExecutor(Executor):
    """One worker process for one slot, started when first needed and again after a crash."""

    def __init__(self, target: str, level: str, style: str) -> None:
        self._target = target
        self._level = level
        self._style = style
        self._process: subprocess.Popen[bytes] | None = None
        self._frames: Frames | None = None

    def run(self, assignment: Assignment) -> None:
        begin(assignment)
        frames = self._frames or self._spawn()
        task = assignment.task
        body = encode(task if task.dialect is Dialect.TASKBUS else task.in_dialect(Dialect.TASKBUS)).decode()
        frames.send({"body": body, "attempt": assignment.context.attempt, "remaining": assignment.context.remaining})
        if assignment.context.cancelled:
            self.cancel(assignment)
        while (frame := frames.receive()) is not None:
            if "failed" in frame:
                self._crash(assignment, frame["failed"])
                return
            if "unfinished" in frame:
                assignment.reason = frame["unfinished"]
                self._stamp(assignment)
                return
            if "result" in frame:
                conclude(assignment, _outcome(frame))
                return
        self._crash(assignment, "")

    def _spawn(self) -> Frames:
        ours, theirs = socket.socketpair()
        boot = {
            "path": sys.path,
            "fd": theirs.fileno(),
            "target": self._target,
            "level": self._level,
            "style": self._style,
        }
        # A session of its own: Ctrl-C at the terminal does not reach it, and a kill takes its children along.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, json.dumps(boot)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._frames = Frames(ours)
        return self._frames

    def _crash(self, assignment: Assignment, reason: str) -> None:
        process = self._process
        code = process.wait() if process is not None else 0
        if not reason:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            reason = f"the worker's process {how}"
        assignment.reason = reason
        assignment.crashed = True
        self._stamp(assignment)
        self._forget()

    def _stamp(self, assignment: Assignment) -> None:
        assignment.outcome = None
        assignment.ended = monotonic()
        assignment.completed = now_text()

    def cancel(self, assignment: Assignment) -> None:
        reason = assignment.context.cancel_reason
        if self._frames is not None and reason is not None:
            self._frames.send({"cancel": reason.value})

    def kill(self) -> bool:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return True

    def close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._frames is not None:
            self._frames.close()
            self._frames = None
        if self._process is not None:
            self.kill()
            self._process.wait()
            self._process = None


def _outcome(frame: dict[str, Any]) -> Outcome:
    meta = frame["meta"] or None
    return Outcome(Result(frame["result"]), frame["msg"], meta, frame["retry_in"], frame["rejected"])
