"""The running on-done taskmaster: children published and confirmed, then the done task acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from bus import BusError, Consumer, Delivery, Message, Producer, TooLargeError
from task.codec import DEFAULT_MAX_SIZE, decode
from task.dead import dead_letter
from task.errors import DecodeError
from task.settler import Settler
from task.stats import Stats
from task.task import Task, derive_id
from task.verdict import Action, Verdict
from taskmasters.on_done.children import Family

__all__ = ["OnDoneTaskmaster"]

_log = logging.getLogger("taskbus.on-done")
#: Done tasks received, and settled, at a time.
_BATCH = 500
#: Bytes of the largest done task read: a done task is its task and a message.
_MAX_SIZE = 2 * DEFAULT_MAX_SIZE


class OnDoneTaskmaster:
    """Makes the children of the done tasks of one topic, until ``stop`` or the end of the input.

    ``atomic`` says whether ``finish`` of this consumer with this producer is.
    """

    def __init__(
        self, family: Family, consumer: Consumer, producer: Producer, *, group: str, dead_topic: str, atomic: bool
    ) -> None:
        self._family = family
        self._consumer = consumer
        self._group = group
        self._dead_topic = dead_topic
        #: ``results`` counts done tasks: chained, unmatched, unfinished (they have no result), dead.
        self.stats = Stats()
        #: Tasks made, published and confirmed.
        self.sent = 0
        self._settler = _ChildSettler(consumer, producer, self.stats, atomic=atomic, lost=self._lost)
        self._settler.dead = self.dead
        self._held: list[Delivery] = []
        self._stopping = False
        self._receiving: asyncio.Future[list[Delivery]] | None = None

    @property
    def trouble(self) -> str:
        """What keeps children from being published; empty if nothing does."""
        return self._settler.trouble

    def use(self, family: Family) -> None:
        """Have the done tasks received from now on judged by these rules."""
        self._family = family

    def stop(self) -> None:
        """Receive no more; what was received is still settled."""
        self._stopping = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def run(self) -> None:
        """Work until ``stop`` or the end of the input. Cancelling it loses nothing.

        Raises:
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        keep = asyncio.create_task(self._keep_leases())
        try:
            while not self._stopping:
                self._receiving = asyncio.ensure_future(self._consumer.receive(_BATCH))
                await asyncio.wait([self._receiving])
                if self._receiving.cancelled():
                    return
                deliveries = self._receiving.result()
                if deliveries:
                    await self._handle(deliveries)
                elif self._consumer.ended:
                    return
        finally:
            keep.cancel()
            if self._receiving is not None:
                self._receiving.cancel()

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        self._held = list(deliveries)
        self.stats.received += len(deliveries)
        verdicts = [self._judge(delivery) for delivery in deliveries]
        await self._settler.settle(verdicts)
        for verdict in verdicts:
            self.stats.results[verdict.result] += 1
            self.sent += sum(message.topic != self._dead_topic for message in verdict.messages)
        self._held = []

    def _judge(self, delivery: Delivery) -> Verdict:
        try:
            parent = decode(delivery.body, _MAX_SIZE)
        except DecodeError as error:
            return self.dead(delivery, error.code, str(error), None)
        result = parent.result
        if result is None:
            return Verdict(delivery, Action.FINISH, "unfinished")
        # As the receiver does for a task that came without an id.
        parent_id = parent.id or derive_id("message", self._consumer.topic, delivery.id, parent.type, parent.value)
        children = self._family.children(parent, parent_id, result)
        messages = tuple(Message(child.topic, child.body, None, child.delay, child.id) for child in children.found)
        if children.problems:
            verdict = self.dead(delivery, "rule-failed", "; ".join(children.problems), parent)
            verdict.messages = (*verdict.messages, *messages)
            return verdict
        return Verdict(delivery, Action.FINISH, "chained" if children.matched else "unmatched", messages, task=parent)

    def dead(self, delivery: Delivery, code: str, reason: str, task: Task | None) -> Verdict:
        """The verdict on a done task that is kept as a dead letter."""
        _log.warning(
            "a done task goes to %s: %s",
            self._dead_topic,
            reason,
            extra={"event": "dead", "code": code, "message_id": delivery.id, "task_id": task.id if task else None},
        )
        letter = dead_letter(
            delivery, topic=self._consumer.topic, group=self._group, reason=reason, code=code, task=task
        )
        message = Message(self._dead_topic, letter)
        return Verdict(delivery, Action.FINISH, "dead", (message,), 0.0, reason, None, task, code)

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        self.stats.lease_lost += len(deliveries)
        _log.warning("lost the lease of %d done tasks; another instance does them", len(deliveries))

    async def _keep_leases(self) -> None:
        """While the bus refuses what we publish, what we hold must stay ours."""
        lease = self._consumer.lease
        while lease is not None:
            await asyncio.sleep(lease / 3)
            if self._held:
                try:
                    await self._consumer.extend(self._held)
                except BusError as error:
                    _log.warning("cannot extend leases: %s", error)


class _ChildSettler(Settler):
    """A child that the bus does not take, being too large, makes its parent a dead letter; its siblings are sent."""

    dead: Callable[[Delivery, str, str, Task | None], Verdict]

    def _fitted(self, verdict: Verdict, error: TooLargeError) -> Verdict:
        fitting = tuple(m for m in verdict.messages if m.id is None or len(m.body) <= error.limit)
        if len(fitting) == len(verdict.messages):
            return super()._fitted(verdict, error)
        dead = self.dead(verdict.delivery, "too-large", f"a child is too large: {error}", verdict.task)
        if any(len(letter.body) > error.limit for letter in dead.messages):
            dead = super()._fitted(dead, error)
        verdict.result = dead.result
        verdict.messages = (*dead.messages, *fitting)
        return verdict
