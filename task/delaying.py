"""Tasks to be done later than the bus can delay them: the delay taskmaster keeps them until then."""

from __future__ import annotations

from datetime import datetime

from task.task import Task
from task.times import format_time

__all__ = ["DELAY_TOPIC", "RUN_AT", "RUN_TOPIC", "delayed"]

#: Topic from which the delay taskmaster takes tasks, unless told otherwise.
DELAY_TOPIC = "delay"
#: Meta keys: when a task is to be sent (an RFC 3339 time, or a duration), and to which topic if not that of its type.
RUN_AT, RUN_TOPIC = "run_at", "run_topic"


def delayed(task: Task, moment: datetime, topic: str) -> Task:
    """The task as the delay taskmaster takes it, to be sent to ``topic`` at that moment.

    Raises:
        ValueError: for a moment outside the years 1 to 9999.
    """
    meta = {key: value for key, value in task.meta.items() if key != RUN_TOPIC} | {RUN_AT: format_time(moment)}
    if topic != task.type:
        meta[RUN_TOPIC] = topic
    return task.replace(meta=meta)
