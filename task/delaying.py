"""Tasks to be done later than the bus can delay them: the delay taskmaster keeps them until then."""

from __future__ import annotations

from datetime import datetime

from task.task import Task
from task.times import format_time

__all__ = ["ATTEMPTS", "DELAY_TOPIC", "RUN_AT", "RUN_TOPIC", "attempts_before", "delayed"]

#: Topic from which the delay taskmaster takes tasks, unless told otherwise.
DELAY_TOPIC = "delay"
#: Meta keys: when a task is to be sent (an RFC 3339 time, or a duration), and to which topic if not that of its type.
RUN_AT, RUN_TOPIC = "run_at", "run_topic"
#: Meta key: how many attempts a task had before it was delayed. It comes back as a new message, which the bus counts
#: from 1.
ATTEMPTS = "attempts"


def delayed(task: Task, moment: datetime, topic: str, attempts: int = 0) -> Task:
    """The task as the delay taskmaster takes it, to be sent to ``topic`` at that moment, after so many attempts.

    Raises:
        ValueError: for a moment outside the years 1 to 9999.
    """
    meta = {key: value for key, value in task.meta.items() if key != RUN_TOPIC} | {RUN_AT: format_time(moment)}
    if topic != task.type:
        meta[RUN_TOPIC] = topic
    if attempts:
        meta[ATTEMPTS] = str(attempts)
    return task.replace(meta=meta)


def attempts_before(task: Task) -> int:
    """How many attempts it had under messages that went before, each given to the delay taskmaster."""
    text = task.meta.get(ATTEMPTS, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
