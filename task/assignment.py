"""One delivered task on its way through this instance."""

from __future__ import annotations

from bus import Delivery
from task.context import Context
from task.outcome import Outcome
from task.task import Task

__all__ = ["Assignment"]


class Assignment:
    """A delivery, its task, and how the attempt went.

    ``began`` and ``ended`` are seconds of the monotonic clock, ``started`` and ``completed`` the same moments as task
    times. ``outcome`` is None when the attempt came to no end that counts: it was interrupted or its process died;
    ``reason`` then says so. ``dropped`` means that whatever comes of it no longer counts.
    """

    __slots__ = (
        "began",
        "completed",
        "context",
        "crashed",
        "delivery",
        "dropped",
        "ended",
        "outcome",
        "reason",
        "started",
        "task",
    )

    def __init__(self, delivery: Delivery, task: Task, context: Context) -> None:
        self.delivery = delivery
        self.task = task
        self.context = context
        self.began = 0.0
        self.ended = 0.0
        self.started = ""
        self.completed = ""
        self.outcome: Outcome | None = None
        self.reason = ""
        self.crashed = False
        self.dropped = False
