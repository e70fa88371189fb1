"""What every way of running user code has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from task.assignment import Assignment
from task.context import CancelReason

__all__ = ["Ended", "Slots"]

#: Called, from any thread, with each assignment that came to an end.
Ended = Callable[[Assignment], None]


class Slots(ABC):
    """A fixed number of places in which user code runs. Its methods are called from the bus's event loop only."""

    @abstractmethod
    def start(self) -> None:
        """Make ready to run.

        Raises:
            WorkerError: if the worker cannot be loaded there.
        """

    @abstractmethod
    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Queue these; each is begun, in order, as soon as a slot is free."""

    @abstractmethod
    def take_back(self) -> list[Assignment]:
        """Every assignment not yet begun; they will not be."""

    @abstractmethod
    def running(self) -> list[Assignment]:
        """What is being done right now."""

    @abstractmethod
    def waiting(self) -> int:
        """How many are not yet begun."""

    @abstractmethod
    def cancel(self, assignment: Assignment, reason: CancelReason) -> None:
        """Tell a running assignment to stop."""

    @abstractmethod
    def kill(self, assignment: Assignment) -> bool:
        """Give up a running assignment: its slot is freed and it is not reported as ended.

        False if it ended meanwhile. User code in a thread cannot be killed; it is left behind and its slot replaced.
        """

    @abstractmethod
    def abandoned(self) -> int:
        """How many threads were left behind and still run."""

    @abstractmethod
    def stop(self) -> None:
        """Begin nothing more and let idle slots end. Does not wait for running user code."""
