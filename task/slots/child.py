"""The worker process of ``--isolation process``: does the tasks its application hands it, until that goes away."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from bus import Delivery
from task.assignment import Assignment
from task.codec import decode
from task.context import CancelReason, Context
from task.errors import Interrupted, WorkerError
from task.execute import begin, conclude, execute, fail
from task.load import load_launch
from task.logs import setup_logs
from task.slots.frames import BrokenFrameError, Frames
from task.worker import Launch, is_async

__all__ = ["main"]


def main(fd: int, target: str, level: str, style: str, process: int | None) -> None:
    """Serve the application at the other end of ``fd`` with the worker that ``target`` names."""
    # The application decides when its workers stop, also where a service manager signals every process. A handler
    # and not SIG_IGN, which programs that the worker starts would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    setup_logs(level, style, process)
    frames = Frames(socket.socket(fileno=fd))
    # It listens already while the worker is loaded, which may hang: the application may go meanwhile.
    child = _Child(frames)
    try:
        launch = load_launch(target)
    except WorkerError as error:
        frames.send({"failed": str(error)})
        sys.exit(1)
    child.serve(launch)


class _Child:
    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._todo: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
        #: The number of the last order and what it asks for.
        self._current: tuple[int, Assignment] | None = None
        self._interrupt: asyncio.Task[None] | None = None
        self._runner: asyncio.Runner | None = None
        # The main thread is left to user code, which may want it (signals, some libraries).
        threading.Thread(target=self._listen, daemon=True).start()

    def serve(self, launch: Launch) -> None:
        self._runner = asyncio.Runner() if is_async(launch) else None
        self._frames.send({"ready": True})
        while True:
            assignment = self._todo.get()
            if self._runner is None:
                execute(launch, assignment)
            else:
                self._runner.run(self._execute_async(launch, assignment))
            if not self._frames.send(_report(assignment)):
                _end_all()

    async def _execute_async(self, launch: Launch, assignment: Assignment) -> None:
        self._interrupt = me = asyncio.current_task()
        begin(assignment)
        try:
            if assignment.context.cancelled:
                raise Interrupted("interrupted before it began")
            outcome: Any = launch(assignment.task).do_task(assignment.context)
            if hasattr(outcome, "__await__"):
                outcome = await outcome
        except BaseException as problem:  # user code may raise anything; none may end this process unreported
            while me is not None and me.cancelling():
                me.uncancel()
            fail(assignment, Interrupted("interrupted") if isinstance(problem, asyncio.CancelledError) else problem)
        else:
            conclude(assignment, outcome)
        self._interrupt = None

    def _listen(self) -> None:
        with suppress(BrokenFrameError):  # user code has read a part of it
            self._obey()
        _end_all()

    def _obey(self) -> None:
        while (frame := self._frames.receive()) is not None:
            if "body" in frame:
                assignment = _assignment(frame)
                self._current = frame["number"], assignment
                self._todo.put(assignment)
            elif self._current is not None and self._current[0] == frame["number"]:
                self._current[1].context._cancel(CancelReason(frame["cancel"]))
                if (task := self._interrupt) is not None and self._runner is not None:
                    self._runner.get_loop().call_soon_threadsafe(task.cancel)


def _end_all() -> None:
    """The application cannot be reached: nobody wants what this process and those it started are doing."""
    os.killpg(0, signal.SIGKILL)


def _assignment(order: dict[str, Any]) -> Assignment:
    task = decode(order["body"].encode(), sys.maxsize)
    return Assignment(Delivery(b"", "", order["attempt"]), task, Context(task, order["attempt"], order["remaining"]))


def _report(assignment: Assignment) -> dict[str, Any]:
    outcome = assignment.outcome
    if outcome is None:
        return {"unfinished": assignment.reason}
    report: dict[str, Any] = {
        "result": outcome.result.value,
        "msg": _utf8(outcome.msg),
        "meta": {_utf8(str(k)): _utf8(str(v)) for k, v in (outcome.meta or {}).items()},
        "retry_in": outcome.retry_in,
        "rejected": outcome.rejected,
    }
    return report


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
