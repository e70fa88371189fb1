"""Done tasks that a rule waits for together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from task.task import Task
from taskmasters.on_done.rules import OnDoneRule

__all__ = ["Arrival", "Join", "Known", "Part", "Parts"]


class Part(NamedTuple):
    """One of the done tasks that ``rule`` waits for: its ``number`` th match, of those with this ``key``."""

    rule: OnDoneRule
    key: str
    number: int


class Parts(NamedTuple):
    """What a done task is a part of, and what was wrong, by rule."""

    found: list[Part]
    problems: list[str]


class Arrival(NamedTuple):
    """A done task that came, and what it is a part of."""

    task: Task
    id: str
    parts: Sequence[Part]


class Join(NamedTuple):
    """All done tasks that a rule waited for, in the order the rule names them, with their ids."""

    rule: OnDoneRule
    key: str
    parents: Sequence[tuple[Task, str]]


class Known(NamedTuple):
    """What is known of an arrival: whether it was dealt with before, and what it makes complete."""

    seen: bool
    joins: Sequence[Join]
