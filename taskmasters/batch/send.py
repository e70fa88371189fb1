"""Publishing a batch: in order, confirmed, at a rate, and so that it can be gone on with."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from bus import BusError, Message, Producer
from task.codec import encode
from task.errors import TaskError
from task.task import Task

__all__ = ["BatchError", "send"]

#: Tasks published at once, and then confirmed.
_MOST = 500


class BatchError(TaskError):
    """A batch was sent only in part; ``sent`` tasks of it are confirmed."""

    def __init__(self, message: str, sent: int) -> None:
        super().__init__(message)
        self.sent = sent


async def send(
    tasks: Iterable[Task],
    topic: str,
    producer: Producer,
    *,
    rate: float | None = None,
) -> int:
    """Publish ``tasks`` and return how many, all confirmed. ``rate`` is the most tasks a second, on average.

    Raises:
        BatchError: the bus refused, or this was cancelled; it says how many tasks are confirmed.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = 0
    remaining = iter(tasks)
    # A slow rate is kept task by task, a fast one by tenths of a second.
    portion = _MOST if rate is None else max(1, min(_MOST, int(rate / 10)))
    while batch := list(itertools.islice(remaining, portion)):
        try:
            if rate is not None and (ahead := began + sent / rate - loop.time()) > 0:
                await asyncio.sleep(ahead)
            await producer.publish_many([Message(topic, encode(task), id=task.id) for task in batch])
        except (BusError, asyncio.CancelledError) as error:
            raise BatchError(str(error), sent) from error
        sent += len(batch)
    return sent
