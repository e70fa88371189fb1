"""What the crash matrix must know of one taskmaster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bus import Message
from task.task import Task

__all__ = ["Case", "Deed", "Key"]

#: What tells one task from another: topic, id, and what must be the same each time it is made.
Key = tuple[Hashable, ...]
#: What goes in: a message, or something done to the folder.
Deed = Message | Callable[[], None]


class Case(ABC):
    """One taskmaster at work in ``folder``: one instance a run. ``portions`` of input make about ``tasks`` tasks.

    The same input goes in whatever becomes of the process, so that runs can be compared.
    """

    name: ClassVar[str]
    #: Topic and group of what the taskmaster receives. They are there before anything goes in, since most buses give a
    #: group that is new only what comes from then on.
    inputs: ClassVar[Sequence[tuple[str, str]]] = ()
    #: Topics in which what it makes is looked for.
    outputs: ClassVar[Sequence[str]] = ()
    #: Whether it is a command that ends when it has done everything.
    ends: ClassVar[bool] = False
    #: Whether its input comes before the process is started; otherwise while it runs.
    feeds_before: ClassVar[bool] = False
    #: The last step at which it may be killed (see :mod:`tests.crash_matrix.victim`).
    steps: ClassVar[int] = 12

    def __init__(self, folder: Path, tasks: int, portions: int) -> None:
        self.folder = folder
        self.portions = portions
        #: About so many tasks a portion.
        self.size = -(-tasks // portions)
        #: How often each task came.
        self.found: Counter[Key] = Counter()

    @property
    @abstractmethod
    def expected(self) -> int:
        """How many tasks are made without kills, counted by hand."""

    @abstractmethod
    def args(self, url: str) -> Sequence[str]:
        """The arguments of ``taskbus``, in the folder."""

    def prepare(self) -> None:  # noqa: B027 - there may be nothing to write
        """Write the rules."""

    def close(self) -> None:  # noqa: B027 - few have something open
        """Let go of what ``prepare`` opened."""

    def feed(self, portion: int) -> Iterable[Deed]:
        """The input of a portion, counted from 0."""
        return ()

    def answer(self, topic: str, task: Task) -> Message | None:
        """What a worker says of a task that was made."""
        return None

    def key(self, topic: str, task: dict[str, Any]) -> Key | None:
        """What tells a task from another; None if it is none of the taskmaster's."""
        return (topic, task["id"], task["task"])

    def finishing(self) -> None:  # noqa: B027 - few want to know
        """The last process was started, which is not killed."""

    def enough(self) -> bool:
        """Whether everything that is expected has come."""
        return len(self.found) >= self.expected

    def wanted(self) -> set[Key] | None:
        """The set of tasks, where it depends on when the run was; None: that of a run without kills."""
        return None

    @property
    def again(self) -> int:
        """How many came more often than once, each time counted."""
        return self.found.total() - len(self.found)

    def check(self) -> None:  # noqa: B027 - most promise nothing else
        """What else is promised. Raises AssertionError."""
