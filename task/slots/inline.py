"""An event loop of its own, in a thread of its own, on which asynchronous user code runs."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from task.assignment import Assignment
from task.context import CancelReason
from task.errors import Interrupted
from task.execute import begin, conclude, fail
from task.outcome import Outcome
from task.slots.base import Ended, Slots
from task.worker import Launch

__all__ = ["InlineSlots"]

#: Seconds after which a slot whose tasks never wait lets the others have a turn.
_TURN = 0.005


class InlineSlots(Slots):
    """``count`` coroutines on one loop, which is not the bus's: user code that blocks delays no lease.

    A task that must be given up may have blocked its loop for good, so its loop is left behind with what still runs
    there and a new one takes over.
    """

    def __init__(self, count: int, launch: Launch, ended: Ended) -> None:
        inbox: deque[Assignment] = deque()
        self._inbox = inbox
        self._make: Callable[[], _Loop] = lambda: _Loop(count, launch, ended, inbox)
        self._loops: list[_Loop] = []

    def start(self) -> None:
        self._loops.append(self._make())

    def submit(self, assignments: Sequence[Assignment]) -> None:
        self._inbox.extend(assignments)
        self._loops[-1].wake()

    def take_back(self) -> list[Assignment]:
        taken: list[Assignment] = []
        while True:
            try:
                taken.append(self._inbox.popleft())
            except IndexError:
                return taken

    def running(self) -> list[Assignment]:
        return [assignment for loop in self._loops for assignment in list(loop.running.values())]

    def waiting(self) -> int:
        return len(self._inbox)

    def cancel(self, assignment: Assignment, reason: CancelReason) -> None:
        assignment.context._cancel(reason)
        for loop in self._loops:
            loop.interrupt(assignment)

    def kill(self, assignment: Assignment) -> bool:
        for loop in self._loops:
            for slot, current in list(loop.running.items()):
                if current is assignment and loop.running.pop(slot, None) is not None:
                    if loop is self._loops[-1]:
                        loop.stop()
                        self._loops.append(self._make())
                    return True
        return False

    def abandoned(self) -> int:
        self._loops = [loop for loop in self._loops[:-1] if loop.alive()] + self._loops[-1:]
        return len(self._loops) - 1

    def stop(self) -> None:
        for loop in self._loops:
            loop.stop()


class _Loop:
    """One thread with an event loop and ``count`` coroutines that share an inbox."""

    def __init__(self, count: int, launch: Launch, ended: Ended, inbox: deque[Assignment]) -> None:
        self._launch = launch
        self._ended = ended
        self._inbox = inbox
        self._stopping = False
        self._loop = asyncio.new_event_loop()
        self._more = asyncio.Event()
        #: What each slot is doing. Whoever pops an entry decides what becomes of it; popping is atomic.
        self.running: dict[asyncio.Task[None], Assignment] = {}
        self._thread = threading.Thread(target=self._serve, args=(count,), name="inline-slots", daemon=True)
        self._thread.start()

    def _serve(self, count: int) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._run(count))
        finally:
            self._loop.close()

    async def _run(self, count: int) -> None:
        await asyncio.gather(*(asyncio.create_task(self._slot()) for _ in range(count)))

    async def _slot(self) -> None:
        me = asyncio.current_task()
        if me is None:
            raise RuntimeError("a slot runs as a task of its loop")
        inbox, running, launch = self._inbox, self.running, self._launch
        turn = monotonic() + _TURN
        while not self._stopping:
            try:
                assignment = inbox.popleft()
            except IndexError:
                self._more.clear()
                if not inbox:
                    await self._more.wait()
                continue
            if assignment.dropped:
                continue  # its lease was lost while it waited: another instance does it
            running[me] = assignment
            begin(assignment)
            try:
                outcome = launch(assignment.task).do_task(assignment.context)
                if not isinstance(outcome, Outcome) and hasattr(outcome, "__await__"):
                    outcome = await outcome
            except BaseException as problem:  # user code may raise anything; none may end this slot
                if isinstance(problem, asyncio.CancelledError):
                    problem = Interrupted("interrupted")
                fail(assignment, problem)
            else:
                conclude(assignment, outcome)
            while me.cancelling():
                me.uncancel()
            if running.pop(me, None) is None:
                continue
            self._ended(assignment)
            if assignment.ended > turn:
                await asyncio.sleep(0)
                turn = monotonic() + _TURN

    def interrupt(self, assignment: Assignment) -> None:
        """Cancel the slot that does ``assignment``, if one does."""

        def cancel() -> None:
            for slot, current in self.running.items():
                if current is assignment:
                    slot.cancel()

        self._call(cancel)

    def wake(self) -> None:
        """There is something in the inbox."""
        self._call(self._more.set)

    def stop(self) -> None:
        """Begin nothing more; the loop ends when what it runs has ended."""
        self._stopping = True
        self.wake()

    def alive(self) -> bool:
        """Whether anything still runs here."""
        return self._thread.is_alive()

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
