"""The launcher manages the running of workers: slots, time limits, and bringing what ended back to the receiver."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic

from task.assignment import Assignment
from task.context import CancelReason
from task.errors import WorkerError
from task.execute import conclude, timed_out
from task.options import WorkerOptions
from task.outcome import Result
from task.recorder import Recorder
from task.slots import InlineSlots, Slots, ThreadSlots
from task.slots.thread import Executor, ThreadExecutor
from task.worker import Launch, is_async

__all__ = ["Launcher", "make_slots"]

_log = logging.getLogger("taskbus.worker")
#: Seconds for which the loop may stand still for brief tasks; to be woken for them takes a quarter of it.
_MOMENT = 0.0005


class Launcher:
    """Runs assignments in slots. Everything but the slots themselves happens on the bus's event loop."""

    def __init__(self, launch: Launch, options: WorkerOptions) -> None:
        self._ended: deque[Assignment] = deque()
        self._woken = False
        #: In the list while the loop stands still for what ends next, which takes and releases it. Else the loop's.
        self._baton = threading.Lock()
        self._baton.acquire()
        self._offered: list[threading.Lock] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._slots = make_slots(launch, options, self)
        self._recorder: Recorder | None = None
        #: What keeps tasks from being begun; empty if nothing does.
        self.trouble = ""
        self._final_errors = options.retries == 0
        #: Whether outcomes are recorded: while more than the tasks in progress may be done and not yet settled.
        self.recording = False
        self._timeout = options.timeout
        self._hard = options.hard_timeout
        if self._hard is None and options.timeout is not None:
            self._hard = options.timeout + options.kill_time

    def start(self, recorder: Recorder | None = None) -> None:
        """Start the slots. Call it on the event loop that will collect."""
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._slots.start()

    def ended(self, assignment: Assignment) -> None:
        """Called by the slots, on their threads. The loop is woken once for all that ends before it collects."""
        if self.recording and self._recorder is not None:
            outcome = assignment.outcome
            if outcome is not None and (self._final_errors or outcome.result is not Result.ERROR):
                self._recorder.record(assignment)
        self._ended.append(assignment)
        if self._offered:
            with contextlib.suppress(IndexError):  # the loop has just taken it back
                self._offered.pop().release()
                return
        if not self._woken:
            self._woken = True
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the application has ended without this thread
                    self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait until something has ended."""
        await self._event.wait()

    def collect(self) -> list[Assignment]:
        """What has ended since the last call, without what no longer counts."""
        self._event.clear()
        self._woken = False
        ended, collected = self._ended, []
        while ended:
            assignment = ended.popleft()
            if not assignment.dropped:
                collected.append(assignment)
        return collected

    def wake(self) -> None:
        """Make :meth:`wait` return."""
        self._event.set()

    def submit(self, assignments: Sequence[Assignment], *, brief: bool = False) -> None:
        """Queue these for the next free slots. If they are ``brief``, give the first of them a moment to end."""
        if not brief:
            self._slots.submit(assignments)
            return
        self._offered.append(self._baton)
        self._slots.submit(assignments)
        if not self._baton.acquire(timeout=_MOMENT):
            with contextlib.suppress(IndexError):
                self._offered.pop()
                return
            self._baton.acquire()  # it was taken in this instant
        self._event.set()

    def take_back(self) -> list[Assignment]:
        """Everything not yet begun; it will not be."""
        return self._slots.take_back()

    def running(self) -> list[Assignment]:
        """What is being done right now."""
        return self._slots.running()

    def waiting(self) -> int:
        """How many are not yet begun."""
        return self._slots.waiting()

    def cancel(self, assignment: Assignment, reason: CancelReason) -> None:
        """Tell one to stop."""
        self._slots.cancel(assignment, reason)

    def give_up(self, assignment: Assignment) -> bool:
        """Free its slot, whatever it does. False if it ended meanwhile."""
        return self._slots.kill(assignment)

    def abandoned(self) -> int:
        """How many threads were left behind with user code that would not end."""
        return self._slots.abandoned()

    def enforce_limits(self) -> None:
        """Cancel what runs longer than the time limit, give up what then does not end."""
        if self._timeout is None and self._hard is None:
            return
        now = monotonic()
        for assignment in self._slots.running():
            if not assignment.began:
                continue  # taken by a slot, but not begun: its process starts, or its thread was just interrupted
            ran = now - assignment.began
            context = assignment.context
            if self._hard is not None and ran > self._hard:
                if self._slots.kill(assignment):
                    context._cancel(CancelReason.TIMEOUT)
                    conclude(assignment, timed_out(assignment))
                    _log.error(
                        "gave up a task that did not end after its time limit",
                        extra={"task_type": assignment.task.type, "task_id": assignment.task.id},
                    )
                    self.ended(assignment)
            elif self._timeout is not None and ran > self._timeout and not context.cancelled:
                self._slots.cancel(assignment, CancelReason.TIMEOUT)

    def stop(self) -> None:
        """Begin nothing more."""
        self._slots.stop()


def make_slots(launch: Launch, options: WorkerOptions, launcher: Launcher) -> Slots:
    """The slots that ``options.isolation`` asks for.

    Raises:
        WorkerError: if this worker cannot run that way.
    """
    isolation = options.isolation
    asynchronous = is_async(launch)
    if isolation == "thread" and asynchronous:
        raise WorkerError("an async do_task runs inline or in a process, not in a thread; leave --isolation at auto")
    if isolation == "inline" or (isolation == "auto" and asynchronous):
        return InlineSlots(options.max_in_progress, launch, launcher.ended)
    if isolation == "process":
        from task.load import target_of
        from task.slots.process import ProcessExecutor

        target = target_of(launch)

        def in_process() -> Executor:
            return ProcessExecutor(target, options.log_level, options.log_format)

        return ThreadSlots(options.max_in_progress, in_process, launcher.ended)
    return ThreadSlots(options.max_in_progress, lambda: ThreadExecutor(launch), launcher.ended)
