"""Threads that run user code, one assignment at a time each."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from task.assignment import Assignment
from task.context import CancelReason
from task.execute import execute
from task.slots.base import Ended, Slots
from task.worker import Launch

__all__ = ["Executor", "ThreadExecutor", "ThreadSlots"]


class Executor(ABC):
    """How the thread of one slot does an assignment."""

    @abstractmethod
    def run(self, assignment: Assignment) -> None:
        """Do it and note the outcome on it. Raises nothing. Called on the slot's thread."""

    @abstractmethod
    def kill(self) -> bool:
        """End what ``run`` is doing. False if that cannot be done. Called from another thread than ``run``."""

    @abstractmethod
    def cancel(self, assignment: Assignment) -> None:
        """``assignment`` was told to stop. Called from another thread than ``run``."""

    @abstractmethod
    def close(self) -> None:
        """Let go. Called on the slot's thread."""


class ThreadExecutor(Executor):
    """Runs the worker on the slot's thread itself."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def run(self, assignment: Assignment) -> None:
        execute(self._launch, assignment)

    def kill(self) -> bool:
        return False

    def cancel(self, assignment: Assignment) -> None:
        pass  # the worker looks at its context

    def close(self) -> None:
        pass


class ThreadSlots(Slots):
    """``count`` threads, each with an executor of its own."""

    def __init__(self, count: int, make_executor: Callable[[], Executor], ended: Ended) -> None:
        self._count = count
        self._make_executor = make_executor
        self._ended = ended
        self._inbox: SimpleQueue[Assignment | None] = SimpleQueue()
        self._numbers = itertools.count()
        self._executors: dict[int, Executor] = {}
        #: What each slot is doing. Whoever pops an entry decides what becomes of it: the slot when it has ended, or
        #: ``kill``. Popping from a dict is atomic, so exactly one of them does.
        self._running: dict[int, Assignment] = {}
        self._left_behind: set[threading.Thread] = set()
        self._threads: dict[int, threading.Thread] = {}

    def start(self) -> None:
        for _ in range(self._count):
            self._start_one()

    def _start_one(self) -> None:
        number = next(self._numbers)
        executor = self._make_executor()
        self._executors[number] = executor
        # Daemon threads: user code that never returns must not keep a stopped application alive.
        thread = threading.Thread(target=self._loop, args=(number, executor), name=f"slot-{number}", daemon=True)
        self._threads[number] = thread
        thread.start()

    def _loop(self, number: int, executor: Executor) -> None:
        get, running, ended, run = self._inbox.get, self._running, self._ended, executor.run
        while (assignment := get()) is not None:
            if assignment.dropped:
                continue  # its lease was lost while it waited: another instance does it
            running[number] = assignment
            run(assignment)
            if running.pop(number, None) is None:
                break
            ended(assignment)
        executor.close()

    def submit(self, assignments: Sequence[Assignment]) -> None:
        put = self._inbox.put
        for assignment in assignments:
            put(assignment)

    def take_back(self) -> list[Assignment]:
        taken: list[Assignment] = []
        stops = 0
        while True:
            try:
                assignment = self._inbox.get_nowait()
            except Empty:
                break
            if assignment is None:
                stops += 1
            else:
                taken.append(assignment)
        for _ in range(stops):
            self._inbox.put(None)
        return taken

    def running(self) -> list[Assignment]:
        return list(self._running.values())

    def waiting(self) -> int:
        return self._inbox.qsize()

    def cancel(self, assignment: Assignment, reason: CancelReason) -> None:
        assignment.context._cancel(reason)
        for number, current in list(self._running.items()):
            if current is assignment:
                self._executors[number].cancel(assignment)

    def kill(self, assignment: Assignment) -> bool:
        for number, current in list(self._running.items()):
            if current is assignment:
                if self._running.pop(number, None) is None:
                    return False
                thread = self._threads.pop(number)
                if not self._executors.pop(number).kill():
                    self._left_behind.add(thread)
                self._start_one()
                return True
        return False

    def abandoned(self) -> int:
        self._left_behind = {thread for thread in self._left_behind if thread.is_alive()}
        return len(self._left_behind)

    def stop(self) -> None:
        for _ in self._threads:
            self._inbox.put(None)
