"""What taskmasters do with a topic: receive a batch, keep its leases while it is dealt with, and the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from bus import Consumer, Delivery, Message
from task.codec import DEFAULT_MAX_SIZE
from task.dead import dead_letter
from task.leases import keep_leases
from task.task import Task, derive_id
from task.verdict import Action, Verdict

__all__ = ["MAX_SIZE", "Receiving", "arrival_id", "dead_verdict"]

#: Messages received, and dealt with, at a time.
_BATCH = 500
#: Bytes of the largest task read: a done task is its task and a message.
MAX_SIZE = 2 * DEFAULT_MAX_SIZE


class Receiving:
    """Gives what comes to ``handle``, a batch at a time, until ``stop`` or the end of the input."""

    def __init__(self, consumer: Consumer, handle: Callable[[Sequence[Delivery]], Awaitable[None]]) -> None:
        self._consumer = consumer
        self._handle = handle
        self._held: Sequence[Delivery] = ()
        self._stopping = False
        self._receiving: asyncio.Future[list[Delivery]] | None = None

    def stop(self) -> None:
        """Receive no more; what was received is still dealt with."""
        self._stopping = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def run(self, *beside: Coroutine[object, object, None]) -> None:
        """Work, with ``beside`` going on meanwhile. Cancelling it loses nothing. Raises what ``handle`` does."""
        going_on = [asyncio.create_task(each) for each in (keep_leases(self._consumer, lambda: self._held), *beside)]
        try:
            while not self._stopping:
                self._receiving = asyncio.ensure_future(self._consumer.receive(_BATCH))
                await asyncio.wait([self._receiving])
                if self._receiving.cancelled():
                    return
                deliveries = self._receiving.result()
                if deliveries:
                    self._held = deliveries
                    await self._handle(deliveries)
                    self._held = ()
                elif self._consumer.ended:
                    return
        finally:
            for task in going_on:
                task.cancel()
            if self._receiving is not None:
                self._receiving.cancel()


def arrival_id(task: Task, delivery: Delivery, topic: str) -> str:
    """The id of a task that came; derived, as the receiver does, for one that came without."""
    return task.id or derive_id("message", topic, delivery.id, task.type, task.value)


def dead_verdict(
    delivery: Delivery,
    consumer: Consumer,
    group: str | None,
    dead_topic: str,
    *,
    code: str,
    reason: str,
    task: Task | None,
    log: logging.Logger,
) -> Verdict:
    """The verdict on a message that is kept as a dead letter, which ``log`` tells."""
    log.warning(
        "a message of %s goes to %s: %s",
        consumer.topic,
        dead_topic,
        reason,
        extra={"event": "dead", "code": code, "message_id": delivery.id, "task_id": task.id if task else None},
    )
    letter = dead_letter(delivery, topic=consumer.topic, group=group, reason=reason, code=code, task=task)
    return Verdict(delivery, Action.FINISH, "dead", (Message(dead_topic, letter),), 0.0, reason, None, task, code)
