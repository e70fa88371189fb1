"""What a simulation is about: the messages taskmasters make, and the tasks that came to an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from task.outcome import Result
from task.task import Task

__all__ = ["DELAY", "DONE", "FAILED", "REQUESTS", "Ended", "Kind", "Made", "Maker", "find_circle"]

#: The topics that the taskmasters use unless they are told otherwise.
DONE, REQUESTS, DELAY, FAILED = "done", "requests", "delay", "retry-failed"
#: A rule that stands so often in the causes of what it makes goes round in a circle.
_ROUND = 20


class Maker(NamedTuple):
    """Who made something: the taskmaster, its file, and the rule, or the workflow and its job."""

    by: str
    file: str = ""
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.by} {self.rule}" if self.rule else self.by


class Kind(Enum):
    """What is to become of what was made."""

    TASK = "task"  #: somebody does it
    END = "end"  #: a done task that tells the end of a workflow's run
    NOTICE = "notice"  #: a dead letter or an event, for people


@dataclass(slots=True, eq=False)
class Made:
    """One message. ``task`` is what it is, or is about; ``delay`` is seconds until it reaches its topic.

    ``parent`` is the id of the done task it was made of, ``cause`` what brought it about. ``at`` is the moment at which
    it reaches its topic; ``result`` and ``ended`` (a moment) are what it comes to, empty and None for what nobody does.
    """

    topic: str
    body: bytes
    task: Task
    maker: Maker
    kind: Kind = Kind.TASK
    note: str = ""
    parent: str | None = None
    cause: Made | None = None
    delay: float = 0.0
    at: float = 0.0
    result: str = ""
    ended: float | None = None


class Ended(NamedTuple):
    """A done task, as it comes to the topic of done tasks, and what it was."""

    task: Task
    result: Result
    made: Made


def find_circle(made: Made) -> Sequence[Maker]:
    """The rules that made it, if it came about in a circle, in the order they follow each other; else nothing."""
    makers = [made.maker]
    seen = 0
    cause = made.cause
    while cause is not None and seen < _ROUND:
        seen += cause.maker == made.maker
        if not seen:
            makers.append(cause.maker)
        cause = cause.cause
    return makers[::-1] if seen >= _ROUND else ()
